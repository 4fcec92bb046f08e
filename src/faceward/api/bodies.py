"""Limits of a request's body, held while it streams in.

A body is cut off at its limit, however it is sent; it must arrive in the time given; and what all bodies of the moment
hold in memory or temporary files together is bounded too. One client may have half of that: bodies that stop coming must
not take the place of all others.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from faceward.api.authentication import Caller
from faceward.errors import OverloadedError, RequestFormatError, RequestTimeoutError, RequestTooLargeError

STREAMED = "/v1/imports"
"""Its body is written away while it comes in, and has a limit of its own."""


@dataclass(frozen=True, slots=True)
class BodySettings:
    """most: bytes of a body. most_streamed: of an import. held: bytes of all bodies at once. seconds: for a body to arrive;
    an import has as many for each MiB.
    """

    most: int
    most_streamed: int
    held: int
    seconds: float


class BodyLimits:
    """ASGI middleware; raises the errors of faceward from `receive`, or before the application is called."""

    def __init__(self, app: ASGIApp, settings: BodySettings) -> None:
        self._app = app
        self._settings = settings
        self._held = 0
        self._most_of_one = max(settings.held // 2, min(settings.most, settings.held))
        self._of_clients: dict[str, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        streamed = scope["path"] == STREAMED
        most = self._settings.most_streamed if streamed else self._settings.most
        declared = _declared_length(scope)
        if declared is not None and declared > most:
            raise RequestTooLargeError(f"The body has {declared} bytes; this route takes at most {most}.")
        body = _Body(self, receive, scope, most, streamed)
        try:
            await self._app(scope, body.receive, send)
        finally:
            self._release(body)

    def hold(self, body: _Body, size: int) -> None:
        """Raises OverloadedError."""
        # It is known who calls before a byte is read.
        caller: Caller | None = body.scope["state"].get("caller")
        client_id = "" if caller is None else caller.client_id
        of_client = self._of_clients.get(client_id, 0)
        if of_client + size > self._most_of_one:
            raise OverloadedError(
                f"The bodies of this client under way hold {of_client} bytes, as many as one may. Try again in a second."
            )
        if self._held + size > self._settings.held:
            raise OverloadedError(
                f"The bodies under way hold {self._held} bytes, as many as this server takes on. Try again in a second."
            )
        self._held += size
        self._of_clients[client_id] = of_client + size
        body.held += size
        body.held_for = client_id

    def _release(self, body: _Body) -> None:
        if not body.held:
            return
        self._held -= body.held
        self._of_clients[body.held_for] -= body.held
        if not self._of_clients[body.held_for]:
            del self._of_clients[body.held_for]

    @property
    def seconds(self) -> float:
        return self._settings.seconds


class _Body:
    """One request's body on its way in."""

    def __init__(self, limits: BodyLimits, receive: Receive, scope: Scope, most: int, streamed: bool) -> None:
        self._limits = limits
        self._receive = receive
        self._most = most
        self._streamed = streamed
        self._size = 0
        self._complete = False
        self._started = time.monotonic()
        self.scope = scope
        self.held = 0
        self.held_for = ""

    async def receive(self) -> Message:
        if self._complete:  # what comes now is the caller's leaving, and may take as long as the answer does
            return await self._receive()
        allowed = self._limits.seconds * (1 + (self._size >> 20 if self._streamed else 0))
        try:
            async with asyncio.timeout(self._started + allowed - time.monotonic()):
                message = await self._receive()
        except TimeoutError as exc:
            raise RequestTimeoutError(
                f"The body did not arrive in {allowed:g} s: {self._size} bytes of it came. Send it again over a faster line."
            ) from exc
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self._size += size
            if self._size > self._most:
                raise RequestTooLargeError(
                    f"The body has more than {self._most} bytes, the most that this route takes."
                )
            if not self._streamed:
                self._limits.hold(self, size)
            self._complete = not message.get("more_body", False)
        return message


def _declared_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            if not value.isdigit() or len(value) > 18:
                raise RequestFormatError("Content-Length is not a number of bytes.")
            return int(value)
    return None
