"""What breaks servers: each gets a problem with a status of 4xx, memory stays bounded, and the server lives on."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
from companies import HEADER_SECONDS, Company, RunningServer

PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def own(new_company: Any) -> Company:
    made: Company = new_company()
    return made


@pytest.fixture(autouse=True)
def _alive(running: RunningServer, own: Company) -> Iterator[None]:
    """After each of these, a good request is answered."""
    yield
    answer = own.http("recognizer").post("/v1/detect", files={"image": ("p.jpg", own.photo("obama.jpg"))})
    assert answer.status_code == 200
    assert len(answer.json()["faces"]) == 1


def refused(answer: httpx.Response, *statuses: int) -> dict[str, Any]:
    """The problem of an answer that must be one of these."""
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == PROBLEM
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["request_id"] == answer.headers.get("x-request-id", problem["request_id"])
    assert "Traceback" not in answer.text
    return problem


def recognize(own: Company, image: bytes) -> httpx.Response:
    return own.http().post("/v1/detect", files={"image": ("p.jpg", image)})


def png(width: int, height: int) -> bytes:
    """The header of a picture that would unfold to width * height pixels, and a little of its content."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = zlib.compress(bytes(1 << 20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (b"", "invalid_value"),
        (b"not an image", "not_an_image"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "damaged_image"),
        (png(60_000, 60_000), "image_too_large"),
        (b"GIF89a" + bytes(10) + b"<script>alert(1)</script>\xff\xd8\xff", "not_an_image"),
        (gzip.compress(bytes(1 << 20)), "not_an_image"),
    ],
    ids=["empty", "text", "cut off", "bomb", "polyglot", "gzip"],
)
def test_what_is_no_image(own: Company, image: bytes, code: str) -> None:
    assert refused(recognize(own, image), 413, 422)["code"] in (code, "damaged_image", "not_an_image")


def test_a_truncated_photo(own: Company) -> None:
    photo = own.photo("obama.jpg")
    refused(recognize(own, photo[: len(photo) // 3]), 422)


def test_a_body_over_the_limit_is_cut_off_by_its_declared_length(own: Company) -> None:
    problem = refused(recognize(own, bytes(17 << 20)), 413)
    assert problem["code"] == "request_too_large"


def test_a_chunked_body_over_the_limit_is_cut_off_while_it_comes(running: RunningServer, own: Company) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield bytes(1 << 20)

    process = psutil.Process()
    before = process.memory_info().rss
    with httpx.Client(base_url=running.url, headers={"x-api-key": own.keys["enroller"]}, timeout=30) as http:
        try:
            answer = http.post("/v1/detect", content=endless(), headers={"content-type": "application/json"})
        except httpx.TransportError:  # the server may close before the last of it was sent
            pass
        else:
            refused(answer, 413)
    assert process.memory_info().rss - before < 200 << 20


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/xml", "application/x-www-form-urlencoded", "image/jpeg"]
)
def test_a_body_of_another_type(own: Company, kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    assert (
        refused(own.http().post("/v1/detect", content=b"x", headers=headers), 415)["code"] == "unsupported_media_type"
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"[" * 100_000,
        b'{"a":' * 10_000,
        b"\xff\xfe",
        b'{"image": 5}',
        b'{"image": "%%%"}',
        b'{"image": "data:image/jpeg;base64,"}',
        b'{"image": null}',
        b'{"image": "aGVsbG8=", "unknown": 1}',
        b'{"image": "aGVsbG8=", "max_faces": 1e400}',
        b'{"image": "aGVsbG8=", "max_faces": -1}',
        b'{"image": "\\ud800"}',
    ],
    ids=range(16),
)
def test_json_that_can_not_be_used(own: Company, body: bytes) -> None:
    refused(own.http().post("/v1/detect", content=body, headers={"content-type": "application/json"}), 400, 422)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", '"NaN"', "true", "null", "[]", "{}"])
def test_numbers_that_are_none(own: Company, number: str) -> None:
    own.enroll_once()
    values = ",".join(["0.1"] * 511 + [number])
    body = f'{{"embedding": [{values}], "region": "A"}}'.encode()
    problem = refused(
        own.http().post("/v1/search", content=body, headers={"content-type": "application/json"}), 400, 422
    )
    assert "0.1" not in json.dumps(problem)


@pytest.mark.parametrize("threshold", ["NaN", "Infinity", "2", "-2", "", "x"])
def test_thresholds_that_are_none(own: Company, threshold: str) -> None:
    own.enroll_once()
    answer = own.http().post(
        "/v1/recognize",
        data={"region": "A", "threshold": threshold},
        files={"image": ("p.jpg", own.photo("obama.jpg"))},
    )
    assert refused(answer, 422)["problems"][0]["field"] == "threshold"


def test_embeddings_of_another_length(own: Company) -> None:
    own.enroll_once()
    for length in (1, 511, 513, 4096):
        refused(own.http().post("/v1/search", json={"embedding": [0.5] * length, "region": "A"}), 422)
    refused(own.http().post("/v1/search", json={"embedding": [0.5] * 5000, "region": "A"}), 422)
    refused(own.http().post("/v1/search", json={"embedding": [0.0] * 512, "region": "A"}), 422)


def test_ten_thousand_fields(own: Company) -> None:
    fields = {f"field-{number}": "x" for number in range(10_000)}
    refused(own.http().post("/v1/detect", data=fields, files={"image": ("p.jpg", own.photo("obama.jpg"))}), 400)
    refused(own.http().post("/v1/detect", json=fields), 422)


def test_a_field_sent_twice(own: Company) -> None:
    answer = own.http().post(
        "/v1/detect",
        files=[("image", ("a.jpg", own.photo("obama.jpg"))), ("image", ("b.jpg", own.photo("biden.jpg")))],
    )
    assert "more than once" in refused(answer, 400)["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"--x",
        b"--x\r\n",
        b'--x\r\nContent-Disposition: form-data; name="image"\r\n',
        b"--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="\xff\xfe"\r\n\r\nabc\r\n--x--\r\n',
        b"--y--\r\n",
        b"\r\n\r\n",
    ],
    ids=range(7),
)
@pytest.mark.parametrize("boundary", ["; boundary=x", "", "; boundary=", '; boundary="x'])
def test_forms_that_are_none(own: Company, body: bytes, boundary: str) -> None:
    headers = {"content-type": f"multipart/form-data{boundary}"}
    refused(own.http().post("/v1/detect", content=body, headers=headers), 400, 415, 422)


@pytest.mark.parametrize(
    "region",
    ["../../etc/passwd", "'; DROP TABLE persons; --", "A\r\nX-Injected: 1", "\u202eA", "%00", "a" * 60, "\x00", " "],
)
def test_regions_that_would_inject(own: Company, region: str) -> None:
    answer = own.http().post("/v1/recognize", json={"image": "aGVsbG8=", "region": region})
    refused(answer, 404, 422)
    assert "x-injected" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/v1/persons/0",
        "/v1/persons/-1",
        "/v1/persons/9223372036854775808",
        "/v1/persons/1e3",
        "/v1/persons/%00",
        "/v1/persons/../../etc/passwd",
        "/v1/persons/1;drop",
        "/v1/persons?cursor=abc",
        "/v1/persons?cursor=-1",
        "/v1/persons?cursor=99999999999999999999",
        "/v1/persons?limit=0",
        "/v1/persons?limit=1001",
        "/v1/persons?limit=NaN",
        "/v1/persons?region=%00",
        "/v1/persons?name_prefix=%00",
        "/v1/regions/%00",
        "/v1/regions/" + "a" * 51,
        "/v1/jobs/1.5",
        "/nothing",
        "/v1",
        "//v1/me",
    ],
)
def test_paths_and_queries_that_name_nothing(own: Company, path: str) -> None:
    refused(own.http("admin").get(path), 400, 404, 422)


def test_a_method_that_a_path_does_not_have(own: Company) -> None:
    assert refused(own.http().request("BREW", "/v1/me"), 400, 405)
    assert refused(own.http().put("/v1/persons"), 405)["code"] == "method_not_allowed"


@pytest.mark.parametrize("key", ["\x7f", "a b", "fw_", "fw_' OR 1=1 --_x", "\u00e9".encode("latin-1"), "x" * 10_000])
def test_keys_that_are_none(running: RunningServer, key: str | bytes) -> None:
    with httpx.Client(base_url=running.url) as http:
        # A control character is no header at all: the parser refuses it.
        refused(http.get("/v1/me", headers={"x-api-key": key}), 400 if key == "\x7f" else 401)


def test_a_request_id_that_could_forge_a_log_line_is_replaced(own: Company) -> None:
    kept = own.http().get("/v1/me", headers={"x-request-id": "door-7.2026-11-22"})
    assert kept.headers["x-request-id"] == "door-7.2026-11-22"
    for given in ('a"b', "x" * 100, "short", "two words here"):
        assert own.http().get("/v1/me", headers={"x-request-id": given}).headers["x-request-id"] != given


@pytest.mark.parametrize("token", ["", "x" * 256, "caf\u00e9".encode("latin-1")])
def test_idempotency_keys_that_are_none(own: Company, token: str | bytes) -> None:
    answer = own.http("manager").post("/v1/keys", json={"role": "recognizer"}, headers={"idempotency-key": token})
    assert refused(answer, 422)["field"] == "Idempotency-Key"


class Wire:
    """A connection on which anything can be sent."""

    def __init__(self, running: RunningServer) -> None:
        self._socket = socket.create_connection(("127.0.0.1", running.port), timeout=20)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        received = io.BytesIO()
        try:
            while data := self._socket.recv(1 << 16):
                received.write(data)
        except ConnectionResetError:
            pass
        return received.getvalue()


def head(own: Company, *lines: str) -> bytes:
    return "\r\n".join(
        ["POST /v1/detect HTTP/1.1", "Host: x", f"x-api-key: {own.keys['enroller']}", *lines, "", ""]
    ).encode()


def test_a_body_that_stops_coming_gets_408(running: RunningServer, own: Company) -> None:
    with Wire(running) as wire:
        wire.send(head(own, "Content-Type: application/json", "Content-Length: 1000") + b'{"image"')
        answer = wire.rest()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"request_timeout"' in answer


def test_a_body_that_drips_gets_408(running: RunningServer, own: Company) -> None:
    with Wire(running) as wire:
        wire.send(head(own, "Content-Type: application/json", "Content-Length: 1000"))
        stopped = threading.Event()

        def drip() -> None:
            while not stopped.wait(0.1):
                try:
                    wire.send(b" ")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        answer = wire.rest()
        stopped.set()
        thread.join()
    assert answer.startswith(b"HTTP/1.1 408")


def test_headers_that_stop_coming_are_not_waited_for(running: RunningServer) -> None:
    with Wire(running) as wire:
        wire.send(b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        start = time.monotonic()
        answer = wire.rest()
    assert answer.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - start < HEADER_SECONDS + 10


def test_a_connection_that_says_nothing_is_closed(running: RunningServer) -> None:
    with Wire(running) as wire:
        assert wire.rest().startswith(b"HTTP/1.1 408")


def test_headers_without_end(running: RunningServer) -> None:
    with Wire(running) as wire:
        with contextlib.suppress(OSError):
            wire.send(b"GET /v1/me HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(2000)))
        assert b"431" in wire.rest()[:100] or not wire.rest()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"GET /v1/me HTTP/9.9\r\n\r\n",
    ],
    ids=["tls", "no path", "negative length", "smuggled", "bad chunk", "two lengths", "version"],
)
def test_bytes_that_are_no_http(running: RunningServer, sent: bytes) -> None:
    with Wire(running) as wire:
        wire.send(sent)
        answer = wire.rest()
    assert answer == b"" or b" 4" in answer[:13]


def test_a_caller_that_leaves_in_the_middle(running: RunningServer, own: Company) -> None:
    for part in (0, 10, 500):
        with Wire(running) as wire:
            wire.send(head(own, "Content-Type: application/json", "Content-Length: 1000") + os.urandom(part))
