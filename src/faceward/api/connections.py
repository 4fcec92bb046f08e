"""HTTP/1.1 connections with limits that the server does not have on its own: of a request's headers in bytes and time."""

from __future__ import annotations

import asyncio
import uuid
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from faceward.api.problems import answer

MOST_HEADER_BYTES = 64 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed when the headers of a request are too large, or do not arrive in time.

    Without this a peer could hold a connection, and grow the server's memory, by sending a header byte by byte.
    """

    def __init__(self, *args: Any, header_seconds: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._header_seconds = header_seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._in_headers = False
        self._header_bytes = 0
        self._waiting: asyncio.TimerHandle | None = self.loop.call_later(self._header_seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        began = self._in_headers
        super().data_received(data)
        if began and self._in_headers:
            # What the parser keeps of headers that are not complete; they may have come in pieces of one byte.
            self._header_bytes += len(data)
            if self._header_bytes > MOST_HEADER_BYTES:
                self._refuse(431, "request_too_large", f"At most {MOST_HEADER_BYTES} bytes of headers are read.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True
        self._header_bytes = 0
        if self._waiting is None:
            self._waiting = self.loop.call_later(self._header_seconds, self._too_slow)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._stop_waiting()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """What the parser could not read. msg: its words."""
        self._refuse(400, "invalid_request", msg)

    def _too_slow(self) -> None:
        self._waiting = None
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(408, "request_timeout", "The request's headers did not arrive in time.")

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer and close, before there is a request that the application could see."""
        if self.transport.is_closing():
            return
        response = answer(status, code, detail, uuid.uuid4().hex, headers={"Connection": "close"})
        head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
        head += [name + b": " + value for name, value in response.raw_headers]
        self.transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
        self.transport.close()

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
