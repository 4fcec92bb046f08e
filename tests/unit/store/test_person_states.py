"""Who is suspended or has expired is kept and not found; who comes back is found by the very next search."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator

import psycopg
import pytest

from faceward.retrieval import RetrievalSettings
from faceward.store.bulk import BulkWriter, NewPerson, NewPhoto
from faceward.store.database import Database
from faceward.store.gallery import Gallery
from faceward.types import NewFace
from searching import CLIENT, Searching
from synthetic import MODEL, new_face, unit

STRATEGIES = ("exact", "sketch", "hnsw")
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def searching(database: Database) -> Iterator[Searching]:
    searching = Searching.on(database, settings=RetrievalSettings(full_vectors_up_to=3, sketch_from=0, size_seconds=0))
    yield searching
    searching.keeper.close()


def found_by(searching: Searching, seed: int) -> list[bool]:
    return [str(seed) in searching.names(unit(seed), strategy=strategy) for strategy in STRATEGIES]


def test_who_is_suspended_is_found_by_no_search_until_resumed(searching: Searching) -> None:
    ids = [searching.enroll(str(seed), unit(seed), unit(100 + seed)) for seed in range(5)]
    searching.warm()
    for sketch_is_older in (True, False):
        assert found_by(searching, 2) == [True] * 3
        suspended = searching.gallery.update_person(CLIENT, ids[2], state="suspended")
        assert (suspended.state, suspended.face_count) == ("suspended", 2)
        if not sketch_is_older:
            searching.warm()
            assert searching.keeper.size((CLIENT, "A")) == 8
        assert found_by(searching, 2) == [False] * 3
        assert found_by(searching, 3) == [True] * 3
        assert searching.gallery.update_person(CLIENT, ids[2], state="active").state == "active"
    assert found_by(searching, 2) == [True] * 3


def test_who_has_expired_is_not_found(searching: Searching) -> None:
    person_id = searching.enroll("1", unit(1))
    searching.warm()
    change = searching.gallery.update_person
    soon = NOW + dt.timedelta(days=1)
    assert change(CLIENT, person_id, expires_at=soon).expires_at == soon
    assert found_by(searching, 1) == [True] * 3
    change(CLIENT, person_id, expires_at=NOW - dt.timedelta(seconds=1))
    assert found_by(searching, 1) == [False] * 3
    assert searching.search.similarities_of_person(CLIENT, person_id, unit(1), model_id=MODEL) == []
    searching.warm()
    assert searching.keeper.size((CLIENT, "A")) == 0
    assert change(CLIENT, person_id, expires_at=None).expires_at is None
    assert found_by(searching, 1) == [True] * 3


def test_a_suspended_person_stays_so_when_renamed_moved_or_given_a_photo(searching: Searching) -> None:
    person_id = searching.enroll("1", unit(1))
    gallery = searching.gallery
    gallery.update_person(CLIENT, person_id, state="suspended", name="still 1", expires_at=NOW + dt.timedelta(days=1))
    gallery.add_faces(CLIENT, person_id, [new_face(2)])
    person = gallery.move_person(CLIENT, person_id, "B")
    assert (person.state, person.name, person.region, person.face_count) == ("suspended", "still 1", "B", 2)
    for seed in (1, 2):
        assert searching.names(unit(seed), "A", "B", strategy="exact") == []
    gallery.update_person(CLIENT, person_id, state="active")
    for seed in (1, 2):
        assert searching.names(unit(seed), "B", strategy="exact") == ["still 1"]


def test_more_suspended_faces_than_a_tail_holds_hide_nobody_behind_them(searching: Searching) -> None:
    """They are newer than the sketch; so is who was enrolled after them."""
    searching.enroll("0", unit(0))
    searching.warm()
    crowd, _ = searching.gallery.create_person(CLIENT, "A", "crowd", [new_face(5)] * 1_100)
    searching.gallery.update_person(CLIENT, crowd.id, state="suspended")
    searching.enroll("7", unit(7))
    assert searching.names(unit(7)) == ["7", "0"]


def test_the_tables_refuse_a_face_that_says_otherwise_than_its_person(database_url: str, gallery: Gallery) -> None:
    gallery.create_person("acme", "A", "Alice", [new_face(1)])
    with psycopg.connect(database_url) as owner, pytest.raises(psycopg.errors.ForeignKeyViolation):
        owner.execute("UPDATE face_encodings SET matchable_until = '-infinity'")
    with psycopg.connect(database_url) as owner, pytest.raises(psycopg.errors.ForeignKeyViolation):
        owner.execute("UPDATE persons SET state = 'suspended'")


def test_a_photo_that_is_being_added_is_suspended_too(database_url: str, database: Database, gallery: Gallery) -> None:
    person, _ = gallery.create_person("acme", "A", "Alice", [new_face(1)])
    with psycopg.connect(database_url) as adding:
        adding.execute("SELECT 1 FROM persons WHERE id = %s FOR SHARE", (person.id,))
        adding.execute(
            "INSERT INTO face_encodings (client_id, person_id, region, model_id, embedding, matchable_until) "
            "SELECT client_id, person_id, region, model_id, embedding, matchable_until FROM face_encodings"
        )
        suspending = threading.Thread(
            target=gallery.update_person, args=("acme", person.id), kwargs={"state": "suspended"}
        )
        suspending.start()
        suspending.join(0.3)
        assert suspending.is_alive()
    suspending.join(10)
    with psycopg.connect(database_url) as owner:
        rows = owner.execute("SELECT matchable_until::text FROM face_encodings").fetchall()
    assert rows == [("-infinity",)] * 2


def retain(url: str, region: int | None, client: int | None) -> None:
    with psycopg.connect(url) as owner:
        owner.execute("UPDATE regions SET retention_days = %s WHERE name = 'A'", (region,))
        owner.execute("UPDATE clients SET retention_days = %s", (client,))


@pytest.mark.parametrize(("region", "client", "days"), [(None, None, None), (None, 30, 30), (7, 30, 7), (7, None, 7)])
def test_new_people_expire_by_the_retention_of_region_or_client(
    database_url: str, database: Database, gallery: Gallery, region: int | None, client: int | None, days: int | None
) -> None:
    gallery.create_person("acme", "A", "before", [new_face(0)], external_id="before")
    retain(database_url, region, client)
    gallery.create_person("acme", "A", "one", [new_face(1)], external_id="one")
    writer = BulkWriter(database, gallery, MODEL)
    writer.write("acme", [NewPerson("many", "A", "many", (unit(2), unit(3)))])
    photo = NewFace(unit(4), image_sha256=bytes(32))
    assert writer.add_photos("acme", [NewPhoto("photo", "A", "photo", photo)])
    given = NOW + dt.timedelta(days=365)
    gallery.create_person("acme", "A", "given", [new_face(5)], external_id="given", expires_at=given)
    people = {person.external_id: person for person in gallery.list_persons("acme").persons}
    for name in ("one", "many", "photo"):
        person = people[name]
        assert person.expires_at == (None if days is None else person.created_at + dt.timedelta(days=days)), name
    assert people["before"].expires_at is None
    assert people["given"].expires_at == given
