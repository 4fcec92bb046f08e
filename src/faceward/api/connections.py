"""HTTP/1.1 connections with limits that the server does not have on its own: of a request's headers in bytes and time."""

from __future__ import annotations

import asyncio
import select
import uuid
from http import HTTPStatus
from typing import ClassVar, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from faceward.api.observation import REQUEST_ID, LogLine, security_headers
from faceward.api.problems import answer

MOST_HEADER_BYTES = 64 * 1024
_LINGER_SECONDS = 0.5


class Unsent:
    """The answers of all connections that their peers have yet to take, held to a number of bytes.

    Beyond it the connection that holds most is cut off: a caller who asks for long lists over many connections and reads
    none of them must not fill the memory.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[BoundedProtocol, int] = {}

    def hold(self, connection: BoundedProtocol, size: int) -> None:
        self._held[connection] = size
        while sum(self._held.values()) > self._most:
            largest = max(self._held, key=self._held.__getitem__)
            del self._held[largest]
            largest.transport.abort()

    def release(self, connection: BoundedProtocol) -> None:
        self._held.pop(connection, None)


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed when the headers of a request are too large, or do not arrive in time; when a request that
    was answered early does not come to its end; and when the peer takes nothing of its answer for as long as an idle
    connection may last, or the peers of all together leave more than there is room for.

    Without this a peer could hold a connection, and grow the server's memory, by sending a header byte by byte, or trailers
    without end behind a body in chunks.

    An upgrade that a request offers, as to HTTP/2, is ignored (RFC 9110, 7.8), and the request read as it is.

    At the server's end what was sent on it by then is answered: an idle connection is closed after a moment in which
    nothing more came.
    """

    header_seconds: ClassVar[float]
    unsent: ClassVar[Unsent]
    log: ClassVar[LogLine]
    headers_of_all: ClassVar[dict[str, str]]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self._in_headers = False
        self._complete = True
        self._unused_bytes = 0
        self._ending = False
        self._offering = b""
        self._stalled: asyncio.TimerHandle | None = None
        self._waiting: asyncio.TimerHandle | None = self.loop.call_later(self.header_seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_watching()
        self.unsent.release(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        began = not self._complete
        self._read(data)
        if not began or self._complete or self.transport.is_closing():
            return
        # What the parser keeps of headers, or of trailers, that are not complete; they may have come in pieces of one byte.
        self._unused_bytes += len(data)
        if self._unused_bytes > MOST_HEADER_BYTES:
            if self._in_headers:
                self._refuse(431, "request_too_large", f"At most {MOST_HEADER_BYTES} bytes of headers are read.")
            elif self._unused_bytes > MOST_HEADER_BYTES + len(data):
                self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True
        self._complete = False
        self._unused_bytes = 0
        self._wait()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_headers:  # nobody reads trailers
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._unused_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._offering:
            return
        self._complete = True
        self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._complete and not self.transport.is_closing():
            self._wait()  # its keep-alive time-out ends with the next byte, of a request that need not end

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._offering = self._head_without_upgrade()
            return
        self._in_headers = False
        self._stop_waiting()
        super().on_headers_complete()
        if self._ending:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """The server ends: what is under way is answered, and then the connection closed."""
        self._ending = True
        if self._busy:
            super().shutdown()
        else:
            # Not at once: a request may be on its way, of a peer that can't know.
            self.loop.call_later(_LINGER_SECONDS, self._leave)

    def pause_writing(self) -> None:
        super().pause_writing()
        size = self.transport.get_write_buffer_size()
        self._watch(size)
        self.unsent.hold(self, size)

    def resume_writing(self) -> None:
        self._stop_watching()
        self.unsent.release(self)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What the parser could not read. msg: its words."""
        self._refuse(400, "invalid_request", msg)

    @property
    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _read(self, data: bytes) -> None:
        """As the server's own does, but that the parser, which ends a request that offers an upgrade at its headers, is given
        them again without the offer.
        """
        self._unset_keepalive_if_required()
        left = memoryview(data)
        try:
            while left:
                try:
                    self.parser.feed_data(left)
                    return
                except httptools.HttpParserUpgrade as exc:
                    head, self._offering = self._offering, b""
                    if not head:
                        return  # CONNECT, which is answered: what follows is for nobody
                    left = left[exc.args[0] :]
                    self.parser.feed_data(head)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _leave(self) -> None:
        if self.transport.is_closing() or self._busy or self._in_headers:
            return  # closed when it is answered, or when its headers took too long
        if _has_arrived(self.transport):
            self.loop.call_later(_LINGER_SECONDS, self._leave)
        else:
            super().shutdown()

    def _watch(self, left: int) -> None:
        """Cut the connection off unless the peer has taken something by the next look. left: the bytes it has to take."""
        self._stop_watching()
        self._stalled = self.loop.call_later(self.timeout_keep_alive, self._look, left)

    def _look(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left < before:
            self._watch(left)
            self.unsent.hold(self, left)
        else:
            self.transport.abort()

    def _stop_watching(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _too_slow(self) -> None:
        self._waiting = None
        if self._busy:
            return
        if self._complete or self._in_headers:
            self._refuse(408, "request_timeout", "The request's headers did not arrive in time.")
        else:
            self.transport.close()

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer and close, before there is a request that the application could see."""
        if self.transport.is_closing():
            return
        request_id = uuid.uuid4().hex
        headers = {REQUEST_ID: request_id, **self.headers_of_all, "Connection": "close"}
        response = answer(status, code, detail, request_id, headers=headers)
        head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
        head += [name + b": " + value for name, value in response.raw_headers]
        self.transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
        self.transport.close()
        self.log("request", request_id=request_id, method="other", route="unknown", status=status, error=code)

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(self.header_seconds, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def _has_arrived(transport: asyncio.Transport) -> bool:
    """Whether something was received that is not yet read."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


def protocol_with(header_seconds: float, most_unsent: int, log: LogLine, *, tls: bool = False) -> type[BoundedProtocol]:
    """The protocol with these limits, for the connections of one server. most_unsent: bytes, as of Unsent. log, tls: as of
    Observation, for the answers that are given here.
    """
    given = {
        "header_seconds": header_seconds,
        "unsent": Unsent(most_unsent),
        "log": staticmethod(log),
        "headers_of_all": security_headers(tls=tls),
    }
    return type("BoundedProtocol", (BoundedProtocol,), given)
