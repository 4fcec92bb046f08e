"""Connections that would not end, each closed by the server: what a peer can hold without a key must have a bound."""

from __future__ import annotations

import contextlib
import socket
import time

import psutil
from companies import HEADER_SECONDS, RunningServer

CHUNKED = b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def ended(line: socket.socket, within: float) -> bool:
    """Whether the server closes the connection in that time."""
    line.settimeout(within)
    try:
        while line.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
    return True


def send_until_closed(line: socket.socket, data: bytes, times: int) -> int:
    """How many times it could be sent."""
    for number in range(times):
        try:
            line.sendall(data)
        except OSError:
            return number
    return times


def test_trailers_without_end_are_cut_off(running: RunningServer) -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as line:
        line.sendall(CHUNKED + b"2\r\n{}\r\n0\r\n")
        sent = send_until_closed(line, b"x-a: " + b"b" * (1 << 16) + b"\r\n", 1000)
    assert sent < 200
    assert process.memory_info().rss - before < 50 << 20


def test_a_request_that_is_refused_early_and_does_not_end_is_closed(running: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as line:
        line.sendall(CHUNKED + b"2\r\n{}\r\n")
        assert line.recv(1 << 16).startswith(b"HTTP/1.1 401")
        line.sendall(b"2\r\n")  # one byte more ends the server's own time-out of an idle connection
        assert ended(line, HEADER_SECONDS + 10)


def test_a_request_that_is_refused_early_and_never_stops_is_closed(running: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as line:
        line.sendall(CHUNKED)
        until = time.monotonic() + HEADER_SECONDS + 10
        with contextlib.suppress(OSError):
            while time.monotonic() < until:
                line.sendall(b"1\r\n \r\n")
                time.sleep(0.02)
        assert time.monotonic() < until


def test_a_connection_goes_on_after_a_refusal_whose_body_came(running: RunningServer) -> None:
    body = b"x" * 300_000
    sent = b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as line:
        for _ in range(3):
            line.sendall(sent + body)
            assert line.recv(1 << 16).startswith(b"HTTP/1.1 401")
