"""`faceward serve`: how it starts, ends, and serves by several processes."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from companies import FIRST_KEY
from served import Served, run_serve

from searching import at_last


@pytest.fixture
def environment(database_url: str, home: Path) -> dict[str, str]:
    return {"FACEWARD_DATABASE__URL": database_url, "FACEWARD_HOME": str(home), "FACEWARD_DATABASE__POOL_SIZE": "4"}


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signed itself, and its key."""
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    openssl = shutil.which("openssl")
    assert openssl is not None, "the tests of HTTPS need the program openssl"
    subject = ["-subj", "/CN=faceward", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", chain]
    subprocess.run([*made, *subject], check=True, capture_output=True)
    return chain, key


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(environment: dict[str, str], number: signal.Signals) -> None:
    with Served(environment=environment) as served:
        assert httpx.get(f"{served.url}/readyz").json()["ready"]
        assert httpx.get(f"{served.url}/v1/me", headers={"x-api-key": served.first_key}).json()["role"] == "admin"
        assert served.end(number) == 0
        assert "Traceback" not in served.log()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{served.url}/healthz")


def test_the_first_key_is_shown_once(environment: dict[str, str]) -> None:
    with Served(environment=environment) as first:
        key = first.first_key
        assert first.end() == 0
    with Served(environment=environment) as second:
        assert not [line for line in second.said if line.startswith("fw_")]
        assert httpx.get(f"{second.url}/v1/me", headers={"authorization": f"Bearer {key}"}).status_code == 200


def test_the_first_key_may_be_given(environment: dict[str, str]) -> None:
    with Served(environment={**environment, "FACEWARD_API__FIRST_KEY": FIRST_KEY}) as served:
        assert FIRST_KEY not in "".join(served.said)
        assert httpx.get(f"{served.url}/v1/me", headers={"x-api-key": FIRST_KEY}).status_code == 200


def test_what_can_not_be_served_is_told_in_a_line_and_makes_no_key(
    environment: dict[str, str], database_url: str, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    chain, key = certificate
    (tmp_path / "no.pem").write_text("no certificate")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        tls = ["--port", "0", "--tls-certificate"]
        for arguments, said in (
            (["--port", port], "can't be listened on"),
            (["--port", "0", "--host", "192.0.2.1"], "can't be listened on"),
            (["--port", "0", "--host", "no such host"], "is no address"),
            ([*tls, str(chain)], "go together"),
            ([*tls, str(tmp_path / "nothing.pem"), "--tls-key", str(key)], "can't be read"),
            ([*tls, str(tmp_path / "no.pem"), "--tls-key", str(key)], "can't be used"),
        ):
            done = run_serve(*arguments, environment=environment, cwd=tmp_path)
            assert done.returncode == 1, done.stderr
            assert said in done.stderr
            assert "Traceback" not in done.stderr
            assert "fw_" not in done.stdout
    bad = {**environment, "FACEWARD_API__FIRST_KEY": "secret"}
    done = run_serve("--port", "0", environment=bad, cwd=tmp_path)
    assert (done.returncode, "The first key can't be used" in done.stderr) == (1, True)
    assert "secret" not in done.stderr
    with psycopg.connect(database_url) as owner:
        assert owner.execute("SELECT count(*) FROM api_keys").fetchone() == (0,)


def test_https(environment: dict[str, str], certificate: tuple[Path, Path]) -> None:
    chain, key = map(str, certificate)
    with Served("--tls-certificate", chain, "--tls-key", key, environment=environment) as served:
        assert served.url.startswith("https://")
        answer = httpx.get(f"{served.url}/healthz", verify=ssl.create_default_context(cafile=chain))
        assert answer.json() == {"alive": True}
        assert "max-age" in answer.headers["strict-transport-security"]
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{served.url}/healthz")
        assert served.end() == 0


@pytest.fixture
def two_workers(environment: dict[str, str]) -> Iterator[Served]:
    with Served("--workers", "2", environment=environment) as served:
        at_last(lambda: len(served.events("worker")) == 2)
        yield served


def lives(process: psutil.Process) -> bool:
    """A zombie does not: it waits only for its parent to ask how it ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_workers_share_the_port_and_their_figures_and_are_replaced(two_workers: Served) -> None:
    served, headers = two_workers, {"x-api-key": two_workers.first_key}
    workers = [event["pid"] for event in served.events("worker")]

    def asked() -> float:
        for _ in range(20):
            assert httpx.get(f"{served.url}/v1/me", headers=headers).status_code == 200
        page = httpx.get(f"{served.url}/metrics").text
        counts = [line for line in page.splitlines() if 'route="/v1/me",status="200"' in line]
        assert len(counts) == 1  # of both together
        return float(counts[0].rpartition(" ")[2])

    assert asked() == 20.0
    os.kill(workers[0], signal.SIGKILL)
    at_last(lambda: [event["state"] for event in served.events("worker")][-1] == "started")
    at_last(lambda: httpx.get(f"{served.url}/readyz").status_code == 200)
    assert asked() >= 40.0
    everybody = psutil.Process(served.process.pid).children(recursive=True)
    assert served.end() == 0
    at_last(lambda: not [process for process in everybody if lives(process)])


def test_the_gauges_are_of_all_workers_though_only_one_is_asked(two_workers: Served) -> None:
    with httpx.Client(base_url=two_workers.url) as one:  # its connection stays with one of them
        at_last(lambda: 'faceward_database_connections{state="size"} 8.0' in one.get("/metrics").text)


def test_no_worker_outlives_a_killed_parent(two_workers: Served) -> None:
    workers = [psutil.Process(event["pid"]) for event in two_workers.events("worker")]
    two_workers.end(signal.SIGKILL)
    at_last(lambda: not [worker for worker in workers if lives(worker)])


def test_what_was_sent_before_the_end_is_answered(environment: dict[str, str], photos: dict[str, Path]) -> None:
    """Callers without a pause while SIGTERM comes, some of whom connect anew for each request: whoever was let in gets a
    whole answer.
    """
    photo = photos["biden.jpg"].read_bytes()
    with Served(environment=environment) as served:
        host, port = served.url.removeprefix("http://").split(":")
        headers = {"x-api-key": served.first_key}
        plain = f"GET /v1/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\nx-api-key: {served.first_key}\r\n\r\n".encode()
        answers: list[int] = []
        broken: list[str] = []

        def recognise() -> None:
            with httpx.Client(base_url=served.url, headers=headers, timeout=60) as http:
                while True:
                    try:
                        answers.append(http.post("/v1/detect", files={"image": photo}).status_code)
                    except httpx.ConnectError:
                        return
                    except httpx.TransportError as exc:
                        broken.append(repr(exc))
                        return

        def connect_anew() -> None:
            while True:
                try:
                    line = socket.create_connection((host, int(port)), timeout=60)
                except OSError:
                    return
                with line:
                    try:
                        line.sendall(plain)
                        answer = b""
                        while data := line.recv(1 << 16):
                            answer += data
                    except OSError as exc:
                        broken.append(repr(exc))
                        return
                answers.append(int(answer[9:12] or 0))

        callers = [threading.Thread(target=target) for target in (*[recognise] * 4, *[connect_anew] * 12)]
        for caller in callers:
            caller.start()
        at_last(lambda: len(answers) >= 300)
        assert served.end() == 0
        for caller in callers:
            caller.join()
    assert set(answers) == {200}
    assert len(broken) <= 1  # a connection made between the last look at the port and its end: nobody can take that on


def test_what_the_end_cuts_off_hears_whether_it_may_be_done(environment: dict[str, str], database_url: str) -> None:
    """At the end of stop_seconds: a rename that waits in the database for a lock, and two bodies that stopped coming."""
    head = "{} HTTP/1.1\r\nHost: x\r\nx-api-key: {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{}"
    with (
        Served(environment={**environment, "FACEWARD_API__STOP_SECONDS": "1"}) as served,
        psycopg.connect(database_url) as owner,
        contextlib.ExitStack() as stack,
    ):
        key, (host, port) = served.first_key, served.url.removeprefix("http://").split(":")
        http = stack.enter_context(httpx.Client(base_url=served.url, headers={"x-api-key": key}))
        assert http.post("/v1/regions", json={"name": "A"}).status_code == 201
        owner.execute("SELECT name FROM regions WHERE name = 'A' FOR UPDATE")

        def ask(call: str, kind: str, length: int, body: str) -> socket.socket:
            line = stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
            line.sendall(head.format(call, key, kind, length, body).encode())
            return line

        name = '{"name": "B"}'
        stalled = ask("POST /v1/search", "application/json", 100, "{")
        upload = ask("POST /v1/imports", "application/zip", 100, "PK")
        begun = ask("PATCH /v1/regions/A", "application/json", len(name), name)
        at_last(lambda: 'pool_running{pool="long"} 1.0' in http.get("/metrics").text)
        served.process.send_signal(signal.SIGTERM)
        answers = [_answer_on(line) for line in (stalled, upload, begun)]
        owner.rollback()
        assert served.ended() == 0
        assert [answer.json()["code"] for answer in answers] == ["overloaded", "overloaded", "outcome_unknown"]
        logged = {event["request_id"]: event for event in served.events("request")}
        for answer in answers:
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.json()["request_id"] == answer.headers["x-request-id"]
            line = logged[answer.headers["x-request-id"]]
            assert (line["status"], line["error"]) == (503, answer.json()["code"])
        (cancelled,) = served.events("server")
        assert cancelled["level"] == "error"
        assert "Traceback" not in served.log()
        assert owner.execute("SELECT name FROM regions").fetchall() == [("B",)]
        assert owner.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


def _answer_on(line: socket.socket) -> httpx.Response:
    """The answer that the connection ends with."""
    text = b""
    while data := line.recv(1 << 16):
        text += data
    head, _, body = text.partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    pairs = [(name, value) for name, _, value in (header.partition(": ") for header in headers)]
    return httpx.Response(int(status.split()[1]), headers=pairs, content=body)


def test_the_log_names_nobody(environment: dict[str, str], photos: dict[str, Path]) -> None:
    with Served(environment=environment) as served, httpx.Client(base_url=served.url, timeout=60) as http:
        headers = {"x-api-key": served.first_key}
        made = http.post(
            "/v1/persons",
            data={"name": "Very Secret Name", "region": "Hidden-Region", "description": "private words"},
            files={"images": ("passport-scan.jpg", photos["obama.jpg"].read_bytes())},
            headers=headers,
        )
        assert made.status_code == 201
        photos_of = [("images", (f"passport-{number}.jpg", b"no image")) for number in (1, 2)]
        refused = http.post("/v1/persons", data={"name": "N", "region": "A"}, files=photos_of, headers=headers)
        assert "passport-1.jpg" in refused.json()["detail"]
        http.get("/v1/persons", params={"name_prefix": "Very Secret"}, headers=headers)
        http.post("/v1/persons", json={"name": "Very Secret Name"}, headers=headers)
        http.get("/v1/regions/Other-Hidden", headers=headers)
        http.get("/v1/me", headers={"x-api-key": "fw_wrongwrong12_secretsecret"})
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as line:
            line.sendall(b"GET /v1/persons?name_prefix=Very Secret HTTP/1.1\r\nHost: x\r\n\r\n")
            no_http = _answer_on(line)
        assert served.end() == 0
        log = served.log()
        assert len(served.events("request")) == 7
        # The connection itself gave this answer, and it is one as any other.
        unread = served.events("request")[-1]
        assert (no_http.status_code, unread["status"], unread["error"]) == (400, 400, "invalid_request")
        assert no_http.headers["x-request-id"] == no_http.json()["request_id"] == unread["request_id"]
        assert no_http.headers["x-content-type-options"] == "nosniff"
        assert {event["level"] for event in served.events("request")} == {"info"}
    for hidden in (
        "Very Secret",
        "Hidden",
        "private words",
        "passport",
        "name_prefix",
        served.first_key,
        "secretsecret",
    ):
        assert hidden not in log
    assert "/v1/regions/{region:path}" in log


def test_the_recall_of_a_region_in_use_is_watched(environment: dict[str, str], photos: dict[str, Path]) -> None:
    quick = {**environment, "FACEWARD_API__AUDIT_SECONDS": "0.2", "FACEWARD_SEARCH__SKETCH_FROM": "0"}
    with Served(environment=quick) as served, httpx.Client(base_url=served.url, timeout=60) as http:
        http.headers["x-api-key"] = served.first_key
        for name in ("obama.jpg", "biden.jpg"):
            sent = {"name": name, "region": "A"}
            assert http.post("/v1/persons", data=sent, files={"images": photos[name].read_bytes()}).status_code == 201

        def recall() -> bool:
            found = http.post("/v1/recognize", data={"region": "A"}, files={"image": photos["obama2.jpg"].read_bytes()})
            assert found.status_code == 200
            return 'faceward_recall{strategy="auto"} 1.0' in http.get("/metrics").text

        at_last(recall)
        text = http.get("/metrics").text
        assert 'faceward_recall_upper{strategy="auto"} 1.0' in text, "what the alert goes by is 1 where all were found"
        assert served.end() == 0


@pytest.mark.parametrize("times", [2])
def test_the_trial_s_calls_work_as_they_are_printed(environment: dict[str, str], times: int, tmp_path: Path) -> None:
    for _ in range(times):  # also on data that is there
        with Served("--trial", environment=environment) as served:
            calls = [line for line in served.said if line.startswith("curl")]
            assert len(calls) == 3
            answers = []
            for call in calls:
                assert shlex.split(call)[0] == "curl"
                done = subprocess.run(["sh", "-c", call], capture_output=True, text=True, cwd=tmp_path, check=True)
                answers.append(done.stdout)
            assert '"name":"Barack Obama"' in answers[0]
            assert '"decision":"match"' in answers[1]
            assert '"face_count":1' in answers[2]
            assert served.end() == 0


def test_a_reader_that_reads_nothing_holds_up_nobody(environment: dict[str, str]) -> None:
    impatient = {**environment, "FACEWARD_API__IDLE_SECONDS": "1"}
    with Served(environment=impatient) as served:
        host, port = served.url.removeprefix("http://").split(":")
        with socket.socket() as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect((host, int(port)))
            line.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
            start = time.monotonic()
            assert httpx.get(f"{served.url}/healthz").status_code == 200
            at_last(lambda: not psutil.Process(served.process.pid).net_connections("tcp")[1:], 30.0)
            assert time.monotonic() - start < 30
        assert served.end() == 0
