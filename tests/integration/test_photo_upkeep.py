"""Stored photos are brought under another key and dropped beside what others do: renames, merges, a change of the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import psycopg
import pytest

from between_models import Deployment, new_face
from faceward.photo_upkeep import PhotoTally, PhotoUpkeep
from faceward.store.audit_log import AuditLog
from faceward.store.database import Database, PoolSettings
from faceward.store.gallery import Gallery
from faceward.store.photo_vault import PhotoVault
from faceward.store.photos import StoredPhotos
from rows import waiting
from searching import at_last
from synthetic import MODEL

KEYS = {"2025": os.urandom(32), "2026": os.urandom(32)}
CLIENT = "acme"
WORK = pytest.mark.parametrize("work", ["rotate", "drop"])


def upkeep(database: Database) -> PhotoUpkeep:
    return PhotoUpkeep(StoredPhotos(database, PhotoVault(KEYS, "2026")))


def enroll(database: Database, photos: range, *, each: int = 1) -> list[int]:
    """each: photos of one person."""
    gallery = Gallery(database, MODEL)
    return [
        gallery.create_person(
            CLIENT, "A", "Name", [new_face(n, MODEL, stored=True) for n in photos[start : start + each]]
        )[0].id
        for start in range(0, len(photos), each)
    ]


def left(url: str, work: str) -> int:
    """Faces of all tables whose photo the work has not reached."""
    undone = "image_data IS NOT NULL" if work == "drop" else "image_key_id IS DISTINCT FROM '2026'"
    with psycopg.connect(url) as owner:
        tables = owner.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relname ~ '^face_encodings(_[a-z]+)?$' AND relkind = 'r'"
        )
        return sum(
            row[0]
            for (table,) in tables.fetchall()
            for row in owner.execute(f"SELECT count(*) FROM {table} WHERE client_id = 'acme' AND {undone}")
        )


@WORK
def test_a_region_that_is_being_renamed_is_waited_for(database_url: str, database: Database, work: str) -> None:
    """A rename holds the people, then changes their faces in no order: whoever has some of these first is in its way."""
    enroll(database, range(2))
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as renaming:
        renaming.execute("SELECT id FROM persons WHERE client_id = 'acme' ORDER BY id FOR UPDATE")
        faces = renaming.execute("SELECT id FROM face_encodings WHERE client_id = 'acme' ORDER BY id DESC").fetchall()
        renaming.execute("UPDATE face_encodings SET confidence = 1 WHERE id = %s", faces[0])
        running = pool.submit(getattr(upkeep(database), work), CLIENT)
        at_last(lambda: running.done() or waiting(database_url))
        renaming.execute("UPDATE face_encodings SET confidence = 1 WHERE id = %s", faces[1])
        renaming.commit()
        assert running.result(timeout=30).done == 2
    assert left(database_url, work) == 0


@WORK
def test_people_who_are_merged_meanwhile_are_taken_up_again(database_url: str, database: Database, work: str) -> None:
    (gone,) = enroll(database, range(2), each=2)
    into, _ = Gallery(database, MODEL).create_person(CLIENT, "A", "Without a photo", [])
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as merging:
        merging.execute("UPDATE face_encodings SET person_id = %s WHERE person_id = %s", (into.id, gone))
        merging.execute("DELETE FROM persons WHERE id = %s", (gone,))
        running = pool.submit(getattr(upkeep(database), work), CLIENT)
        at_last(lambda: running.done() or waiting(database_url))
        merging.commit()
        assert running.result(timeout=30).done == 2
    assert left(database_url, work) == 0


def test_photos_under_another_key_are_told_in_the_audit_log(database: Database) -> None:
    enroll(database, range(3))
    log = AuditLog(database)
    assert upkeep(database).rotate(CLIENT).done == 3
    (entry,) = log.list(CLIENT, action="photo.rotate").entries
    assert entry.details == {"photos": 3, "from_key": None, "to_key": "2026"}
    PhotoUpkeep(StoredPhotos(database, PhotoVault(KEYS))).rotate(CLIENT)
    assert log.list(CLIENT, action="photo.rotate").entries[0].details == {
        "photos": 3,
        "from_key": "2026",
        "to_key": None,
    }
    assert upkeep(database).rotate("globex").done == 0
    assert log.list("globex").entries == ()


class TestWhileTheModelIsChanged:
    @pytest.fixture
    def deployment(self, new_database: Callable[[], AbstractContextManager[str]]) -> Iterator[Deployment]:
        with new_database() as url, Database(url, pool=PoolSettings(pool_size=4)) as database:
            deployment = Deployment(url, database)
            enroll(database, range(10, 310), each=300)  # more than one batch
            deployment.change.fill()
            yield deployment

    def meanwhile(self, deployment: Deployment, work: str, step: Callable[[], object]) -> PhotoTally:
        """step: done once, after the first batch."""
        steps = [step]

        def progress(_: int) -> None:
            if steps:
                steps.pop()()

        tally: PhotoTally = getattr(upkeep(deployment.database), work)(CLIENT, progress=progress)
        assert not steps
        return tally

    @WORK
    def test_tables_that_change_places_are_both_worked_on(self, deployment: Deployment, work: str) -> None:
        self.meanwhile(deployment, work, deployment.change.cut_over)
        assert left(deployment.url, work) == 0
        if work == "drop":
            with psycopg.connect(deployment.url) as owner:
                owner.execute("UPDATE face_encodings SET image_data = '9', image_key_id = NULL")
                owner.execute("UPDATE face_encodings_previous SET image_data = '9', image_key_id = NULL")
            self.meanwhile(deployment, work, deployment.change.roll_back)
            assert left(deployment.url, work) == 0

    @WORK
    def test_a_table_that_is_dropped_is_done(self, deployment: Deployment, work: str) -> None:
        self.meanwhile(deployment, work, deployment.change.abandon)
        assert left(deployment.url, work) == 0

    def test_photos_of_who_is_left_behind_are_in_the_audit_log_too(self, deployment: Deployment) -> None:
        Gallery(deployment.database, MODEL).create_person(CLIENT, "A", "Unseen", [new_face(1, MODEL, stored=True)])
        deployment.change.fill()
        deployment.change.cut_over(leave_behind=True)
        assert upkeep(deployment.database).drop(CLIENT).done == 301
        entries = AuditLog(deployment.database).list(CLIENT, action="photo.drop").entries
        assert sum(entry.details["photos"] for entry in entries) == 301

    def test_each_photo_counts_once_and_under_every_key(self, deployment: Deployment) -> None:
        """Whoever is stopped between the tables still needs the old key, for the table beside the live one."""
        photos = upkeep(deployment.database).photos
        assert upkeep(deployment.database).rotate(CLIENT).done == 300
        entries = AuditLog(deployment.database).list(CLIENT, action="photo.rotate").entries
        assert sum(entry.details["photos"] for entry in entries) == 300
        assert [(each.key_id, each.photos) for each in photos.counts(CLIENT)] == [("2026", 300)]
        old_key = "UPDATE {} SET image_key_id = '2025' WHERE client_id = 'acme' AND id IN (SELECT max(id) FROM face_encodings)"
        with psycopg.connect(deployment.url) as owner:
            owner.execute(old_key.format("face_encodings_next"))
        assert [(each.key_id, each.photos) for each in photos.counts(CLIENT)] == [("2025", 1), ("2026", 300)]
        tally = upkeep(deployment.database).rotate(CLIENT)
        assert (tally.done, tally.unopened) == (0, {"2025": 1})
        assert upkeep(deployment.database).crop(CLIENT).unopened == {"2025": 1}
        with psycopg.connect(deployment.url) as owner:
            owner.execute(old_key.format("face_encodings"))
        assert upkeep(deployment.database).rotate(CLIENT).unopened == {"2025": 1}
        assert photos.wrong_keys(CLIENT) == {"2025"}
