"""PostgreSQL goes and comes back under load, and the server is killed in an import: nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from PIL import Image
from served import Served

from faceward.store.embedded import EmbeddedServer
from faceward.store.schema import Schema
from postgres_programs import run
from searching import at_last


@pytest.fixture
def own_server(
    server_directories: Callable[[], Path], copy_cluster: Callable[[Path], Path]
) -> Iterator[EmbeddedServer]:
    """A server of this test's own, with its tables."""
    with contextlib.closing(EmbeddedServer(copy_cluster(server_directories() / "data"))) as server:
        server.ensure_database()
        Schema(server.url).upgrade()
        yield server


def small(photo: Path) -> bytes:
    """The photo at 320 pixels: quickly analysed."""
    with Image.open(photo) as image:
        image.thumbnail((320, 320))
        made = io.BytesIO()
        image.save(made, "JPEG", quality=95)
    return made.getvalue()


def photo_of(photo: bytes, number: int) -> bytes:
    """The same picture in another file."""
    return photo + b"number %d" % number


def test_postgresql_stops_and_starts_under_load(
    own_server: EmbeddedServer, photos: dict[str, Path], home: Path
) -> None:
    photo = small(photos["biden.jpg"])
    environment = {
        "FACEWARD_DATABASE__URL": own_server.url,
        "FACEWARD_HOME": str(home),
        "FACEWARD_DATABASE__POOL_SIZE": "4",
    }
    acknowledged: dict[int, str] = {}
    refused: set[tuple[int, str]] = set()
    stop = threading.Event()
    with Served(environment=environment) as served:
        headers = {"x-api-key": served.first_key}

        def enroll(caller: int) -> None:
            with httpx.Client(base_url=served.url, headers=headers, timeout=60) as http:
                number = caller
                while not stop.is_set():
                    number += 10
                    sent = {"name": f"number {number}", "region": "A"}
                    answer = http.post("/v1/persons", data=sent, files={"images": photo_of(photo, number)})
                    if answer.status_code == 201:
                        acknowledged[answer.json()["person"]["id"]] = sent["name"]
                    else:
                        refused.add((answer.status_code, answer.json()["code"]))

        callers = [threading.Thread(target=enroll, args=(caller,)) for caller in range(4)]
        for caller in callers:
            caller.start()
        at_last(lambda: len(acknowledged) >= 20)
        run("pg_ctl", "-D", own_server.pgdata, "-w", "-m", "immediate", "stop")
        at_last(lambda: len(refused) > 0)
        assert httpx.get(f"{served.url}/healthz").status_code == 200
        at_last(lambda: httpx.get(f"{served.url}/readyz").status_code == 503)
        with contextlib.closing(EmbeddedServer(own_server.pgdata)) as again:
            before = len(acknowledged)
            at_last(lambda: httpx.get(f"{served.url}/readyz").status_code == 200)
            at_last(lambda: len(acknowledged) >= before + 20)
            stop.set()
            for caller in callers:
                caller.join()
            assert {status for status, _ in refused} == {503}
            assert served.end() == 0
            with psycopg.connect(again.url) as owner:
                stored = owner.execute(
                    "SELECT p.id, p.name, count(f.id) FROM persons p LEFT JOIN face_encodings f "
                    "ON f.client_id = p.client_id AND f.person_id = p.id GROUP BY p.client_id, p.id"
                ).fetchall()
    names = {person: name for person, name, _ in stored}
    assert acknowledged.items() <= names.items()
    assert {faces for _, _, faces in stored} == {1}


def test_a_server_that_is_killed_in_an_import_is_followed_by_one_that_goes_on(
    database_url: str, photos: dict[str, Path], home: Path
) -> None:
    environment = {
        "FACEWARD_DATABASE__URL": database_url,
        "FACEWARD_HOME": str(home),
        "FACEWARD_IMPORTS__LEASE_SECONDS": "5",
    }
    photo = small(photos["biden.jpg"])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(120):
            archive.writestr(f"A/Person {number % 40}/{number}.jpg", photo_of(photo, number))
        archive.writestr("A/Person 1/broken.jpg", b"no photo")
    with psycopg.connect(database_url, autocommit=True) as owner:

        def stored() -> int:
            (count,) = owner.execute("SELECT count(*) FROM face_encodings").fetchone() or (0,)
            return int(count)

        with Served(environment=environment) as killed:
            headers = {"x-api-key": killed.first_key}
            sent = httpx.post(
                f"{killed.url}/v1/imports",
                content=packed.getvalue(),
                headers={**headers, "content-type": "application/zip"},
                timeout=60,
            )
            assert sent.status_code == 202
            at_last(lambda: stored() > 0)
            killed.process.kill()
        assert stored() < 120
        with Served(environment=environment) as served, httpx.Client(base_url=served.url, headers=headers) as http:

            def state() -> dict[str, object]:
                job: dict[str, object] = http.get(f"/v1/jobs/{sent.json()['id']}").json()
                return job

            at_last(lambda: state()["finished_at"] is not None)
            done = state()
            assert served.end() == 0
    counts = {name: done[name] for name in ("state", "total", "done", "stored_persons", "stored_faces", "refused")}
    assert counts == {
        "state": "partial",
        "total": 121,
        "done": 121,
        "stored_persons": 40,
        "stored_faces": 120,
        "refused": 1,
    }
