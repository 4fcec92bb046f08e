"""Around every request: its id, its line in the log, its figures, the security headers, and an answer whatever happens.

The log names the route, never the path or the query, and of the caller the visible prefix of the key: no name, no image.
"""

from __future__ import annotations

import asyncio
import re
import time
import traceback
import uuid
from collections.abc import Callable
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from faceward.api.admission import ClientGoneError, ShuttingDownError
from faceward.api.metrics import Metrics
from faceward.api.problems import answer, problem
from faceward.errors import FacewardError

REQUEST_ID = "x-request-id"
_GIVEN_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
_GONE = 499

LogLine = Callable[..., Any]
"""Takes an event's name and its fields; of these `level` is one of logging's names, and info where it is left out."""


def security_headers(*, tls: bool) -> dict[str, str]:
    """Of every answer. tls: whether to ask browsers for HTTPS only."""
    return {**_HEADERS, "Strict-Transport-Security": "max-age=31536000"} if tls else dict(_HEADERS)


def _plain(app: ASGIApp) -> ASGIApp:
    return app


class Observation:
    """ASGI middleware, the outermost. log: takes the event's name and fields. tls: whether to ask browsers for HTTPS only.
    dressed: what has to stand around an answer that is given here, as around those of `app`.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        log: LogLine,
        *,
        tls: bool = False,
        dressed: Callable[[ASGIApp], ASGIApp] = _plain,
    ) -> None:
        self._app = app
        self._dressed = dressed
        self._metrics = metrics
        self._log = log
        self._headers = security_headers(tls=tls)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        status = 0

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                for name, value in state.get("headers", {}).items():
                    headers.setdefault(name, value)
            await send(message)

        fields: dict[str, Any] = {}
        try:
            await self._app(scope, receive, observed)
        except ClientGoneError:
            status = _GONE
        except asyncio.CancelledError:
            # The server's end, no caller's: of work on the threads the pools tell, so this waited for something else, as its
            # body. Not raised again: the task ends here, and has answered.
            ending = ShuttingDownError()
            status = await self._refuse(problem(ending, request_id), scope, receive, observed, status)
            fields["error"] = ending.code
        except FacewardError as exc:
            status = await self._refuse(problem(exc, request_id), scope, receive, observed, status)
            fields["error"] = exc.code
        except Exception as exc:  # noqa: BLE001 - the last line: whatever it is, the caller gets an answer and the log the cause
            fields |= {"error": type(exc).__name__, "trace": _frames(exc)}
            response = answer(
                500,
                "internal_error",
                "The server met an error of its own. It is in the server's log under this request id.",
                request_id,
            )
            status = await self._refuse(response, scope, receive, observed, status)
        seconds = time.perf_counter() - started
        route = getattr(scope.get("route"), "path", "unknown")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if (noted := state.get("error")) is not None:
            fields.setdefault("error", noted)
        if (cause := state.get("cause")) is not None:
            fields.setdefault("cause", cause)
        if (caller := state.get("caller")) is not None:
            fields |= {"client_id": caller.client_id, "key": caller.key.prefix}
        self._log(
            "request",
            level="error" if status == 500 else "info",
            request_id=request_id,
            method=method,
            route=route,
            status=status,
            ms=round(seconds * 1000, 2),
            **fields,
        )

    async def _refuse(self, response: Response, scope: Scope, receive: Receive, send: Send, status: int) -> int:
        if status:  # the answer has begun: it can only be cut off, which the server does on its own
            return status
        await self._dressed(response)(scope, receive, send)
        return response.status_code


_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


def _request_id(scope: Scope) -> str:
    """The caller's, where it is one that a log can hold; else a new one."""
    for name, value in scope["headers"]:
        if name == REQUEST_ID.encode() and _GIVEN_ID.fullmatch(value):
            return str(value.decode())
    return uuid.uuid4().hex


def _frames(exc: BaseException) -> list[str]:
    """Where it happened. Without the message, which may quote what the caller sent."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(exc.__traceback__)[-12:]]
