"""After an erasure a search of the whole database and of its dump finds neither id, name, photo nor embedding."""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from faceward import FaceService
from faceward.errors import NotFoundError
from faceward.factory import open_parts
from faceward.jobs import Imports
from faceward.settings import Settings, load_settings
from faceward.types import RequestToken
from postgres_programs import BINARIES
from searching import at_last

PERSON = 7_340_982_615_043
NAME = "Zebulon Quixworthy"
EXTERNAL = "EXT-QX-99817"
DESCRIPTION = "Keeps the lighthouse keys"


@pytest.fixture
def settings(database_url: str, home: Path, tmp_path: Path) -> Settings:
    return load_settings(
        home=home,
        database={"url": database_url, "pool_size": 4},
        images={"store": "original"},
        audit={"receipt_key": "A" * 43 + "="},
        search={"sketch_from": 0},
    )


@pytest.fixture
def parts(settings: Settings) -> Iterator[Any]:
    with open_parts(settings) as parts:
        parts.runner.start()
        yield parts


def searched(url: str, needles: dict[str, str]) -> dict[str, list[str]]:
    """Where each needle stands: in which table of the tests' schema, or of PostgreSQL's own statistics; and in the dump."""
    found: dict[str, list[str]] = {name: [] for name in needles}
    with psycopg.connect(url) as connection:
        tables = [row[0] for row in connection.execute("SELECT relname FROM pg_stat_user_tables ORDER BY 1").fetchall()]
        for table in [*tables, "pg_stats", "pg_largeobject", "pg_description"]:
            for name, needle in needles.items():
                if table == "pg_stats" and name == "id":
                    continue  # a number of the past, in a histogram of numbers
                row = connection.execute(
                    sql.SQL("SELECT count(*) FROM {} t WHERE strpos(t::text, %s) > 0").format(sql.Identifier(table)),
                    (needle,),
                ).fetchone()
                if row is None or row[0]:
                    found[name].append(table)
    dump = subprocess.run(
        [BINARIES / "pg_dump", "--dbname", url], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    for name, needle in needles.items():
        if needle in dump:
            found[name].append("dump")
    return found


def needles_of(url: str, photo: bytes) -> dict[str, str]:
    """What tells the person, as it is written in a row's text: bytes in hex."""
    with psycopg.connect(url) as connection:
        embedding, code = connection.execute(
            "SELECT embedding::text, code::text FROM face_encodings WHERE person_id = %s ORDER BY id LIMIT 1", (PERSON,)
        ).fetchone() or ("", "")
    assert embedding
    return {
        "id": str(PERSON),
        "name": NAME,
        "name in bytes": NAME.encode().hex(),
        "external id": EXTERNAL,
        "description": DESCRIPTION,
        "embedding": embedding[1:60],
        "code": code,
        "photo": photo[:64].hex(),
        "digest": hashlib.sha256(photo).hexdigest(),
        "request": "zebulon-2026",
    }


def live(service: FaceService, imports: Imports, photos: dict[str, Path]) -> None:
    """The person's time with the service: everything that leaves a trace."""
    request = RequestToken(1, "zebulon-2026", b"f")
    person = service.enroll(
        photos["obama.jpg"].read_bytes(), name=NAME, region="A", description=DESCRIPTION, external_id=EXTERNAL, request=request
    ).person  # fmt: skip
    assert person.id == PERSON
    service.add_face(PERSON, photos["obama2.jpg"].read_bytes())
    (face, _) = service.list_faces(PERSON)
    service.face_image(PERSON, face.id)
    service.update_person(PERSON, description=DESCRIPTION)
    service.move_region(PERSON, "B")
    assert service.warm("B")
    service.recognize(photos["obama3.jpg"], region="B")
    service.verify(photos["obama3.jpg"], person_id=PERSON)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(f"B/{EXTERNAL}/nobody.jpg", b"no image")
        packed.writestr("B/Someone/again.jpg", photos["obama.jpg"].read_bytes())
        packed.writestr(f"B/{NAME}/nothing.jpg", b"no image")
        packed.writestr("B/Joe/joe.jpg", photos["biden.jpg"].read_bytes())
    with imports.receive(None, "archive") as upload:
        upload.append(archive.getvalue())
        job = upload.finish()
    at_last(lambda: imports.get(job.id).finished)
    assert [refusal.code for refusal in imports.refusals(job.id).refusals] == [
        "not_an_image", "duplicate_face", "not_an_image"
    ]  # fmt: skip
    # One that is deleted, and brings the sequence beyond the person.
    service.enroll(photos["astronaut.png"], name="Eileen", region="A")


def test_a_search_of_everything_finds_nothing(
    settings: Settings, parts: Any, database_url: str, photos: dict[str, Path]
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE persons ALTER COLUMN id RESTART WITH {PERSON}")
    service = parts.service
    live(service, parts.imports, photos)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ANALYZE")
        at_last(lambda: connection.execute("SELECT count(*) FROM decisions").fetchone() == (2,))
    batches = parts.journal.list_audit(action="import.batch").entries
    assert {entry.actor.partition(":")[0] for entry in batches} == {"import"}
    photo = photos["obama.jpg"].read_bytes()
    needles = needles_of(database_url, photo)
    before = searched(database_url, needles)
    assert "audit_log" in before["id"]
    assert "decision_candidates" in before["id"]
    assert {"job_refusals", "persons", "dump"} <= set(before["name"])
    assert all(before[name] for name in needles if name != "name in bytes"), before
    assert [name for name, tables in before.items() if "pg_stats" in tables] == []

    receipt = service.erase_person(PERSON)

    assert searched(database_url, needles) == {name: [] for name in needles}
    assert receipt.content["complete"] is True
    assert receipt.content["removed"] == {
        "persons": 1,
        "faces": 2,
        "photos": 2,
        "request_tokens": 1,
        "refusals": 3,
        "audit_entries": 5,
        "decisions": 2,
    }
    assert str(PERSON) not in str(receipt)
    ((face,),) = [service.recognize(photos["obama3.jpg"], region="B").faces]
    assert face.decision == "unknown"
    assert service.recognize(photos["biden.jpg"], region="B").faces[0].match.name == "Joe"
    with pytest.raises(NotFoundError):
        service.enroll(photo, name=NAME, region="A", request=RequestToken(1, "zebulon-2026", b"f"))
    assert searched(database_url, needles) == {name: [] for name in needles}


def test_the_codes_leave_the_memory_of_this_process_and_of_others(
    settings: Settings, parts: Any, photos: dict[str, Path]
) -> None:
    quick = settings.model_copy(update={"search": settings.search.model_copy(update={"refresh_seconds": 0.2})})
    with open_parts(quick) as other:
        service = parts.service
        person = service.enroll(photos["obama.jpg"], name=NAME, region="A").person
        service.enroll(photos["biden.jpg"], name="Joe", region="A")
        assert service.warm("A")
        other.service.recognize(photos["obama2.jpg"], region="A")
        cached = other.sketches.cache
        at_last(lambda: cached.peek(("default", "A")) is not None)
        assert len(cached.peek(("default", "A")).sketch) == 2
        service.erase_person(person.id)
        own = parts.sketches.cache.peek(("default", "A"))
        assert own is None or len(own.sketch) == 1
        # Nobody searches there: it looks by itself.
        at_last(lambda: len(cached.peek(("default", "A")).sketch) == 1)
