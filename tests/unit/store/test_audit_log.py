"""Each change writes its entry in its own transaction: neither exists without the other."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

import faceward
from faceward.actors import acting_as
from faceward.errors import FacewardError
from faceward.store.api_keys import KeyStore
from faceward.store.audit_log import ACTIONS, AuditLog, record
from faceward.store.bulk import BulkWriter, NewPerson, NewPhoto
from faceward.store.clients import ClientStore
from faceward.store.database import Database
from faceward.store.gallery import Gallery
from faceward.store.jobs import JobStore
from faceward.store.photo_vault import PhotoVault
from faceward.store.photos import StoredPhotos
from faceward.store.regions import RegionStore
from faceward.types import Box, NewFace
from synthetic import MODEL, new_face, unit

CLIENT = "acme"
BOXED = dataclasses.replace(new_face(1, "one"), box=Box(1, 2, 3, 4))


@pytest.fixture
def log(database: Database) -> AuditLog:
    return AuditLog(database)


def told(log: AuditLog, **filters: object) -> list[tuple[str, int | None, dict[str, object]]]:
    """Action, person and details of the entries, the oldest first."""
    entries = log.list(CLIENT, limit=1000, **filters).entries  # type: ignore[arg-type]
    return [(entry.action, entry.person_id, dict(entry.details)) for entry in reversed(entries)]


def test_a_persons_life_is_told_without_values(log: AuditLog, gallery: Gallery, database: Database) -> None:
    with acting_as("key:abc"):
        person, _ = gallery.create_person(CLIENT, "A", "Alice Secret", [new_face(1)], description="Hidden")
        _, (face,) = gallery.add_faces(
            CLIENT, person.id, [NewFace(unit(2), image_data=b"photo", image_sha256=b"2" * 32)]
        )
        gallery.update_person(CLIENT, person.id, name="Alicia Secret", external_id="E-77")
        gallery.move_person(CLIENT, person.id, "B")
        assert StoredPhotos(database, PhotoVault()).read(CLIENT, person.id, face) == b"photo"
        gallery.delete_face(CLIENT, person.id, face)
        gallery.delete_person(CLIENT, person.id)
    assert told(log) == [
        ("client.create", None, {}),
        ("region.create", None, {"region": "A"}),
        ("person.enroll", person.id, {"region": "A", "faces": 1}),
        ("face.add", person.id, {"faces": [face]}),
        ("person.change", person.id, {"fields": ["external_id", "name"]}),
        ("region.create", None, {"region": "B"}),
        ("person.move", person.id, {"old": "A", "new": "B"}),
        ("photo.read", person.id, {"face": face}),
        ("face.delete", person.id, {"face": face}),
        ("person.delete", person.id, {"faces": 1}),
    ]
    entries = log.list(CLIENT).entries
    assert {entry.actor for entry in entries} == {"key:abc"}
    assert not any(secret in repr(entries) for secret in ("Secret", "Hidden", "E-77"))


def test_regions_clients_keys_and_imports_are_told(log: AuditLog, database: Database) -> None:
    clients, regions, keys, jobs = ClientStore(database), RegionStore(database), KeyStore(database), JobStore(database)
    clients.create(CLIENT, "Acme Ltd")
    clients.update(CLIENT, name="Acme", threshold=0.4)
    regions.create(CLIENT, "A")
    regions.update(CLIENT, "A", threshold=0.5)
    regions.update(CLIENT, "A", new_name="B")
    regions.delete(CLIENT, "B")
    key = keys.create(CLIENT, "enroller", prefix="one", secret_hash=bytes(32), name="Door")
    keys.replace_secret(CLIENT, key.id, prefix="two", secret_hash=bytes(32))
    keys.revoke(CLIENT, key.id)
    keys.revoke(CLIENT, key.id)  # as it is: nothing happens
    assert keys.replace_secret(CLIENT, key.id, prefix="three", secret_hash=bytes(32)) is None
    job = jobs.begin(CLIENT, "archive")
    jobs.append(CLIENT, job.id, 0, b"zip")
    jobs.finish_upload(CLIENT, job.id)
    jobs.cancel(CLIENT, job.id)
    jobs.cancel(CLIENT, job.id)
    assert told(log) == [
        ("client.create", None, {}),
        ("client.change", None, {"fields": ["name", "threshold"]}),
        ("region.create", None, {"region": "A"}),
        ("region.change", None, {"region": "A", "fields": ["threshold"]}),
        ("region.rename", None, {"old": "A", "new": "B"}),
        ("region.delete", None, {"region": "B"}),
        ("key.create", None, {"key": key.id, "prefix": "one", "role": "enroller"}),
        ("key.rotate", None, {"key": key.id, "prefix": "two"}),
        ("key.revoke", None, {"key": key.id}),
        ("import.create", None, {"job": job.id, "kind": "archive"}),
        ("import.cancel", None, {"job": job.id}),
    ]


def test_a_batch_of_an_import_is_one_entry_with_counts(log: AuditLog, database: Database, gallery: Gallery) -> None:
    writer = BulkWriter(database, gallery, MODEL)
    people = [NewPerson(f"E-{n}", "A", f"Name {n}", (unit(n), unit(100 + n))) for n in range(5)]
    photos = [NewPhoto("E-1", "B", "Name", new_face(1, "one")), NewPhoto("E-1", "B", "Name", new_face(2, "two"))]
    with acting_as("import:7"):
        writer.write(CLIENT, people)
        writer.write(CLIENT, people)  # all there: nothing happens
        writer.add_photos(CLIENT, photos)
        writer.add_photos(CLIENT, photos)
    assert told(log, actor="import:7", action="import.batch") == [
        ("import.batch", None, {"persons": 5, "faces": 10}),
        ("import.batch", None, {"persons": 1, "faces": 2}),
    ]
    assert [each[0] for each in told(log)].count("region.create") == 2


@pytest.mark.parametrize(
    "attempt",
    [
        lambda gallery, regions: gallery.create_person(CLIENT, "A", "Twin", [BOXED]),
        lambda gallery, regions: gallery.create_person(CLIENT, "C", "Twin", [BOXED, BOXED]),
        lambda gallery, regions: regions.delete(CLIENT, "A"),
        lambda gallery, regions: regions.update(CLIENT, "A", threshold=0.5, new_name="B"),
        lambda gallery, regions: gallery.update_person(CLIENT, 2**60, name="Nobody"),
        lambda gallery, regions: gallery.delete_face(CLIENT, 2**60, 1),
        lambda gallery, regions: gallery.delete_person(CLIENT, 2**60),
    ],
)
def test_what_failed_is_not_told(
    log: AuditLog, database: Database, gallery: Gallery, attempt: Callable[[Gallery, RegionStore], object]
) -> None:
    gallery.create_person(CLIENT, "A", "Alice", [BOXED])
    gallery.create_person(CLIENT, "B", "Bob", [])
    before = told(log)
    with pytest.raises(FacewardError):
        attempt(gallery, RegionStore(database))
    assert told(log) == before


def test_a_change_without_its_entry_does_not_happen(database_url: str, log: AuditLog, gallery: Gallery) -> None:
    person, _ = gallery.create_person(CLIENT, "A", "Alice", [new_face(1)])
    with psycopg.connect(database_url) as connection:
        connection.execute("REVOKE INSERT ON audit_log FROM faceward_app")
    for attempt in (
        lambda: gallery.update_person(CLIENT, person.id, name="Mallory"),
        lambda: gallery.move_person(CLIENT, person.id, "B"),
        lambda: gallery.delete_person(CLIENT, person.id),
        lambda: gallery.create_person(CLIENT, "A", "Bob", [new_face(2)]),
    ):
        with pytest.raises(FacewardError):
            attempt()
    assert gallery.list_persons(CLIENT).persons == (person,)


def test_entries_are_read_by_page_person_actor_action_and_time(
    log: AuditLog, gallery: Gallery, database: Database
) -> None:
    with acting_as("cli:alice"):
        people = [gallery.create_person(CLIENT, "A", f"{n}", [])[0].id for n in range(5)]
    between = dt.datetime.now(dt.UTC)
    with acting_as("key:b"), database.transaction(CLIENT) as tx:
        record(tx, CLIENT, "person.merge", person_id=people[0], other_person_id=people[1])
    pages, before = [], None
    while True:
        page = log.list(CLIENT, limit=3, before=before)
        pages += [entry.id for entry in page.entries]
        if (before := page.next_before) is None:
            break
    assert pages == sorted(pages, reverse=True) == [entry.id for entry in log.list(CLIENT).entries]
    assert len(pages) == 8
    assert [each[0] for each in told(log, person_id=people[1])] == ["person.enroll", "person.merge"]
    assert [each[0] for each in told(log, actor="key:b")] == ["person.merge"]
    assert len(told(log, action="person.enroll")) == 5
    assert [each[0] for each in told(log, since=between)] == ["person.merge"]
    assert log.list("globex").entries == ()


def test_old_entries_go_and_young_ones_stay(database_url: str, log: AuditLog, gallery: Gallery) -> None:
    for client in (CLIENT, "globex"):
        gallery.create_person(client, "A", "Alice", [])
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE audit_log SET at = at - interval '100 days' WHERE action <> 'person.enroll'")
    assert log.expire(CLIENT, 101, 1).audit_entries == 0
    assert log.expire(CLIENT, 99, 1).audit_entries == 2
    assert [each[0] for each in told(log)] == ["person.enroll"]
    assert len(log.list("globex").entries) == 3


def test_every_action_is_written_somewhere() -> None:
    """A name that no code writes would be looked for in vain."""
    package = Path(faceward.__file__).parent
    code = "\n".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py") if path.name != "audit_log.py")
    assert [action for action in ACTIONS if not re.search(rf"[\"']{action}[\"']", code)] == []
