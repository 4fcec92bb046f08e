"""Runs the application on a port, in this process or in several."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from faceward.api.connections import BoundedProtocol
from faceward.api.metrics import MULTIPROCESS_DIRECTORY
from faceward.api.observation import LogLine
from faceward.api.opening import build_app, worker_app
from faceward.errors import SettingsError
from faceward.settings import Settings

_BACKLOG = 2048


def serve(settings: Settings, log: LogLine, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; what runs by then is finished. announce: told the URL once the port is taken.

    Raises SettingsError, ModelError, StoreError.
    """
    given = settings.api
    if (given.tls_certificate is None) != (given.tls_key is None):
        raise SettingsError("api.tls_certificate and api.tls_key go together: set both for HTTPS, or neither.")
    logging.getLogger("uvicorn").addHandler(_Forward(log))
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(given.host, given.port))
        config = uvicorn.Config(
            f"{worker_app.__module__}:{worker_app.__name__}" if given.workers > 1 else build_app(settings),
            factory=given.workers > 1,
            workers=given.workers,
            http=partial(BoundedProtocol, header_seconds=given.header_seconds),  # type: ignore[arg-type]
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=given.idle_seconds,
            timeout_graceful_shutdown=given.stop_seconds,
            ssl_certfile=given.tls_certificate,
            ssl_keyfile=None if given.tls_key is None else str(given.tls_key),
        )
        announce(_url(listener, tls=given.tls_certificate is not None))
        if given.workers == 1:
            uvicorn.Server(config).run(sockets=[listener])
            return
        shared = stack.enter_context(tempfile.TemporaryDirectory(prefix="faceward-metrics-"))
        # The workers read their settings as this process did; these are what it decides for them.
        os.environ[MULTIPROCESS_DIRECTORY] = os.environ["FACEWARD_API__METRICS_DIRECTORY"] = shared
        os.environ["FACEWARD_API__WORKERS"] = str(given.workers)
        Multiprocess(config, sockets=[listener]).run()


def _listen(host: str, port: int) -> socket.socket:
    """Raises SettingsError where the address can't be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as exc:
        raise SettingsError(f"api.host {host!r} is no address of this machine: {exc.strerror}.") from exc
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as exc:
        listener.close()
        raise SettingsError(
            f"{host} port {port} can't be listened on: {exc.strerror}. Choose another with --port, or end what uses it."
        ) from exc
    listener.set_inheritable(True)
    return listener


def _url(listener: socket.socket, *, tls: bool) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"


class _Forward(logging.Handler):
    """The server's own warnings, as lines of the same log."""

    def __init__(self, log: LogLine) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"level": record.levelname.lower()}
        if record.exc_info and record.exc_info[0] is not None:
            fields["error"] = record.exc_info[0].__name__
        self._log("server", message=record.getMessage(), **fields)
