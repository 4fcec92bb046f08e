"""Connections that would not end, each closed by the server: what a peer can hold without a key must have a bound."""

from __future__ import annotations

import contextlib
import socket
import time

import httpx
import psutil
from companies import HEADER_SECONDS, Company, RunningServer

from faceward import PersonRecord
from searching import at_last
from synthetic import unit

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


def test_answers_that_nobody_takes_have_a_bound_together(running: RunningServer, company: Company) -> None:
    """Each is 8 MB, of which the kernel takes half, ten callers read none of theirs, and there is room for 16 MiB: those who
    hold most are cut off.
    """
    service, client_id = running.app.state.parts.service, company.client_id
    people = [PersonRecord(f"{number}", "A", "P", unit(number), "x" * 10_000) for number in range(800)]
    assert service.import_embeddings(people, client_id=client_id).persons == 800
    ask = f"GET /v1/persons?limit=800 HTTP/1.1\r\nHost: x\r\nx-api-key: {company.keys['recognizer']}\r\n\r\n"

    def answered() -> float:
        """Lists of persons, told to whoever asks for the figures."""
        page = httpx.get(f"{running.url}/metrics").text
        counts = [line for line in page.splitlines() if 'method="GET",route="/v1/persons",status="200"' in line]
        return sum(float(line.rpartition(" ")[2]) for line in counts if "_total{" in line)

    def taken(line: socket.socket) -> int:
        line.settimeout(20)
        size = 0
        with contextlib.suppress(ConnectionResetError):
            while size < 8_000_000 and (data := line.recv(1 << 16)):
                size += len(data)
        return size

    before = answered()
    with contextlib.ExitStack() as stack:
        lines = []
        for _ in range(10):
            line = stack.enter_context(socket.socket())
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect(("127.0.0.1", running.port))
            line.sendall(ask.encode())
            lines.append(line)
        at_last(lambda: answered() == before + len(lines))
        sizes = [taken(line) for line in lines]
    assert min(sizes) < 8_000_000 <= max(sizes)


OFFERED = (
    "{} HTTP/1.1\r\nHost: x\r\nx-api-key: {}\r\nContent-Type: application/json\r\n{}"
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n\r\n"
)
"""As Java's HttpClient and `curl --http2` send it over plain HTTP."""


def test_an_upgrade_that_is_offered_is_ignored_and_its_body_read(running: RunningServer, company: Company) -> None:
    """In one packet, in several, in chunks, one request behind the other, and on a connection that goes on."""
    key = company.keys["manager"]

    def regions(names: str) -> list[bytes]:
        """Calls that make them, with the body behind the headers."""
        bodies = [f'{{"name": "{name}"}}' for name in names]
        head = [OFFERED.format("POST /v1/regions", key, f"Content-Length: {len(body)}\r\n") for body in bodies]
        return [each.encode() for pair in zip(head, bodies, strict=True) for each in pair]

    chunked = OFFERED.format("POST /v1/regions", key, "Transfer-Encoding: chunked\r\n").encode()
    listing = OFFERED.format("GET /v1/regions", key, "").encode()
    with (
        socket.create_connection(("127.0.0.1", running.port), timeout=20) as line,
        line.makefile("rb") as answers,
    ):

        def answered() -> bytes:
            status = answers.readline()
            size = 0
            while (header := answers.readline()) not in (b"\r\n", b""):
                if header.lower().startswith(b"content-length:"):
                    size = int(header.split(b":")[1])
            return status[9:12] + answers.read(size)

        line.sendall(b"".join(regions("P")))
        assert answered().startswith(b"201")
        head, body = regions("Q")
        line.sendall(head.replace(b"\r\nConnection", b"\r\nExpect: 100-continue\r\nConnection"))
        assert answered() == b"100"
        line.sendall(body)
        assert answered().startswith(b"201")
        line.sendall(chunked)
        line.sendall(b'7\r\n{"name"\r\n')
        line.sendall(b'6\r\n: "R"}\r\n0\r\n\r\n')
        assert answered().startswith(b"201")
        line.sendall(b"".join([*regions("ST"), listing, *regions("U"), listing[: len(listing) // 2]]))
        assert [answered()[:3] for _ in range(4)] == [b"201", b"201", b"200", b"201"]
        line.sendall(listing[len(listing) // 2 :])
        listed = answered()
        assert [name for name in "PQRSTU" if f'"name":"{name}"'.encode() not in listed] == []
