"""Runs the application on a port, in this process or in several."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import uvicorn

from faceward.api.connections import protocol_with
from faceward.api.observation import LogLine
from faceward.api.opening import build_app
from faceward.errors import SettingsError
from faceward.settings import ApiSettings, Settings

BACKLOG = 2048
_DRAIN_SECONDS = 1.0


@contextlib.contextmanager
def listening(settings: ApiSettings) -> Iterator[socket.socket]:
    """The port, taken: nobody else can have it, and nobody can connect before something serves it.

    Raises SettingsError where the address can't be had, or the certificate can't be used.
    """
    _check_certificate(settings)
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as exc:
        raise SettingsError(f"api.host {host!r} is no address of this machine: {_words(exc)}.") from exc
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as exc:
            raise SettingsError(
                f"{host} port {port} can't be listened on: {_words(exc)}. Choose another with --host and --port, or end "
                "what uses it."
            ) from exc
        listener.set_inheritable(True)
        yield listener


def url_of(listener: socket.socket, settings: ApiSettings) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'http' if settings.tls_certificate is None else 'https'}://{shown}:{port}"


@contextlib.contextmanager
def until_stopped() -> Iterator[None]:
    """A block that SIGINT or SIGTERM ends, which is how a service is meant to end: no error, and everything is closed."""
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with contextlib.suppress(_StoppedError):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve_here(settings: Settings, listener: socket.socket, log: LogLine, on_started: Callable[[], None]) -> None:
    """Serve in this process until SIGINT or SIGTERM; what runs by then is finished.

    on_started: called once requests are answered. Raises SettingsError, ModelError, StoreError.
    """
    given = settings.api
    forward = _Forward(log)
    logger = logging.getLogger("uvicorn")
    logger.addHandler(forward)
    logger.propagate = False
    try:
        config = uvicorn.Config(
            build_app(settings),
            http=protocol_with(given.header_seconds, given.max_held, log, tls=given.tls_certificate is not None),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=given.idle_seconds,
            timeout_graceful_shutdown=given.stop_seconds,
            ssl_certfile=given.tls_certificate,
            ssl_keyfile=None if given.tls_key is None else str(given.tls_key),
        )
        Server(config, on_started).run(sockets=[listener])
    finally:
        logger.removeHandler(forward)


class Server(uvicorn.Server):
    """uvicorn's, which takes on those who have connected before it closes the port."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None] = lambda: None) -> None:
        super().__init__(config)
        self._on_started = on_started
        self._ports: list[socket.socket] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Of its own, since the event loop closes its sockets in a moment that nobody can choose.
        self._ports = [listener.dup() for listener in sockets or ()]
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        await asyncio.sleep(0)
        for port in self._ports:
            # Closing the port resets the connections that wait in it, with the requests that were sent on them: nothing may
            # come between the last look and the end.
            with port:
                waiting = list(_accepted(port))
            for line in waiting:
                await self._take_on(line)
        await super().shutdown()

    async def _take_on(self, line: socket.socket) -> None:
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        protocol = partial(make, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        await asyncio.get_running_loop().connect_accepted_socket(protocol, line, ssl=self.config.ssl)


def _accepted(port: socket.socket) -> Iterator[socket.socket]:
    """The connections that wait, until there is none or it has been long enough."""
    port.setblocking(False)
    until = time.monotonic() + _DRAIN_SECONDS
    while time.monotonic() < until:
        try:
            line, _ = port.accept()
        except BlockingIOError:
            return
        except ConnectionAbortedError:
            continue
        line.setblocking(False)
        yield line


class _StoppedError(BaseException):
    """The process was told to end."""


def _stop(_number: int, _frame: object) -> None:
    raise _StoppedError


def _check_certificate(settings: ApiSettings) -> None:
    certificate, key = settings.tls_certificate, settings.tls_key
    if (certificate is None) != (key is None):
        raise SettingsError("api.tls_certificate and api.tls_key go together: set both for HTTPS, or neither.")
    if certificate is None or key is None:
        return
    for name, path in (("tls_certificate", certificate), ("tls_key", key)):
        try:
            path.read_bytes()
        except OSError as exc:
            raise SettingsError(f"api.{name} {path} can't be read: {_words(exc)}.") from exc
    try:
        # Without the empty password an encrypted key would ask for one at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as exc:
        raise SettingsError(
            f"The certificate {certificate} and the key {key} can't be used: {_words(exc)}. Both are PEM, the key belongs to "
            "the first certificate of the chain, and has no password."
        ) from exc


def _words(exc: Exception) -> str:
    text = exc.reason if isinstance(exc, ssl.SSLError) and exc.reason else getattr(exc, "strerror", None)
    return (text or str(exc)).rstrip(".")


class _Forward(logging.Handler):
    """The server's own warnings, as lines of the same log."""

    def __init__(self, log: LogLine) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"level": record.levelname.lower()}
        if record.exc_info and record.exc_info[0] is not None:
            fields["error"] = record.exc_info[0].__name__
        self._log("server", message=record.getMessage().strip(), **fields)
