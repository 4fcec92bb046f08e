"""Persons, faces and regions: written whole or not at all, listed in pages, also when several write at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from faceward.errors import DuplicateFaceError, DuplicatePersonError, UnknownPersonError
from faceward.store.database import Database
from faceward.store.gallery import Gallery
from faceward.store.regions import RegionStore
from faceward.types import Box, NewFace
from rows import count_rows
from synthetic import MODEL, unit

BOX = Box(1.04, 2.5, 30.0, 400.25)


def photo(seed: int, name: str) -> NewFace:
    return NewFace(
        unit(seed), box=BOX, confidence=0.9, quality=0.75, image_path=f"{name}.jpg", image_sha256=name.encode()
    )


def test_a_person_is_stored_with_all_that_was_given(gallery: Gallery) -> None:
    image = NewFace(unit(2), image_data=b"the photo", image_sha256=b"2")
    person, face_ids = gallery.create_person(
        "acme", "Zürich", "O'Neil %_\\", [photo(1, "one"), image], description="a\nb", external_id="x-1"
    )
    assert (person.client_id, person.region, person.name) == ("acme", "Zürich", "O'Neil %_\\")
    assert (person.description, person.external_id, person.face_count) == ("a\nb", "x-1", 2)
    assert person.created_at == person.updated_at
    assert gallery.get_person("acme", person.id) == person
    first, second = gallery.list_faces("acme", person.id)
    assert (first.id, second.id) == face_ids
    assert first.box == Box(1.0, 2.5, 30.0, 400.2)
    assert (first.confidence, first.quality) == (pytest.approx(0.9), pytest.approx(0.75))
    assert (first.image_path, first.has_image) == ("one.jpg", False)
    assert (second.box, second.image_path, second.has_image) == (None, None, True)


def test_a_photo_is_enrolled_once_in_a_region(database_url: str, gallery: Gallery) -> None:
    person, _ = gallery.create_person("acme", "A", "Alice", [photo(1, "one")])
    before = count_rows(database_url)
    with pytest.raises(DuplicateFaceError, match=rf"region 'A' already, for person {person.id}") as caught:
        gallery.create_person("acme", "A", "Bob", [photo(2, "two"), photo(1, "one")])
    assert caught.value.person_id == person.id
    with pytest.raises(DuplicateFaceError, match="Nothing was stored"):
        gallery.add_faces("acme", person.id, [photo(2, "two"), photo(1, "one")])
    with pytest.raises(DuplicateFaceError, match="sent twice"):
        gallery.create_person("acme", "new region", "Bob", [photo(2, "two"), photo(2, "two")])
    assert count_rows(database_url) == before
    gallery.create_person("acme", "B", "Alice", [photo(1, "one")])
    gallery.create_person("globex", "A", "Alice", [photo(1, "one")])
    assert gallery.person_of_photo("acme", "A", b"one") == person.id
    assert gallery.person_of_photo("acme", "A", b"two") is None
    assert gallery.person_of_photo("initech", "A", b"one") is None


def test_an_external_id_is_taken_once_in_a_region(database_url: str, gallery: Gallery) -> None:
    alice, _ = gallery.create_person("acme", "A", "Alice", [], external_id="x")
    bob, _ = gallery.create_person("acme", "B", "Bob", [], external_id="x")
    gallery.create_person("globex", "A", "Carol", [], external_id="x")
    before = count_rows(database_url)
    with pytest.raises(DuplicatePersonError, match="external id 'x' is taken by another person of region 'A'"):
        gallery.create_person("acme", "A", "Dave", [photo(1, "one")], external_id="x")
    with pytest.raises(DuplicatePersonError, match="external id is taken by another person of region 'A'"):
        gallery.move_person("acme", bob.id, "A")
    dave, _ = gallery.create_person("acme", "A", "Dave", [])
    with pytest.raises(DuplicatePersonError, match="external id 'x' is taken"):
        gallery.update_person("acme", dave.id, external_id="x")
    gallery.delete_person("acme", dave.id)
    assert count_rows(database_url) == {**before, "audit_log": before["audit_log"] + 2}
    assert gallery.list_persons("acme", external_id="x").persons == (alice, bob)


def test_a_photo_that_is_in_the_other_region_too_stops_a_move(gallery: Gallery) -> None:
    gallery.create_person("acme", "A", "Alice", [photo(1, "one")])
    bob, _ = gallery.create_person("acme", "B", "Bob", [photo(1, "one")])
    with pytest.raises(DuplicateFaceError, match="region 'A' already"):
        gallery.move_person("acme", bob.id, "A")
    assert gallery.get_person("acme", bob.id).region == "B"


def test_pages_hold_everybody_once(gallery: Gallery) -> None:
    ids = [gallery.create_person("acme", "AB"[i % 2], f"person {i}", [])[0].id for i in range(7)]
    gallery.create_person("globex", "A", "another client's", [])
    seen: list[int] = []
    after: int | None = 0
    while after is not None:
        page = gallery.list_persons("acme", after=after, limit=3)
        assert 1 <= len(page.persons) <= 3
        seen += [person.id for person in page.persons]
        after = page.next_after
    assert seen == ids
    assert gallery.list_persons("acme", limit=7).next_after is None
    assert [p.id for p in gallery.list_persons("acme", region="B").persons] == ids[1::2]
    assert gallery.list_persons("nobody").persons == ()


def test_a_name_is_searched_by_its_beginning_and_every_character_is_itself(gallery: Gallery) -> None:
    for name in ("100% cotton", "1000 men", "a_b", "axb", "back\\slash", "Alice", "alice"):
        gallery.create_person("acme", "A", name, [])

    def found(prefix: str) -> list[str]:
        return [person.name for person in gallery.list_persons("acme", name_prefix=prefix).persons]

    assert found("100%") == ["100% cotton"]
    assert found("a_") == ["a_b"]
    assert found("back\\") == ["back\\slash"]
    assert found("A") == ["Alice"]
    assert found("lice") == []


def test_an_update_changes_what_was_given_and_nothing_else(gallery: Gallery) -> None:
    person, _ = gallery.create_person("acme", "A", "Alice", [photo(1, "one")], description="d", external_id="x")
    assert gallery.update_person("acme", person.id) == person
    renamed = gallery.update_person("acme", person.id, name="Alicia")
    assert (renamed.name, renamed.description, renamed.external_id) == ("Alicia", "d", "x")
    assert renamed.updated_at > person.updated_at
    assert renamed.created_at == person.created_at
    cleared = gallery.update_person("acme", person.id, description=None, external_id=None)
    assert (cleared.name, cleared.description, cleared.external_id) == ("Alicia", None, None)


def test_a_person_moves_with_all_faces(database_url: str, database: Database, gallery: Gallery) -> None:
    person, _ = gallery.create_person("acme", "A", "Alice", [photo(1, "one"), photo(2, "two")])
    moved = gallery.move_person("acme", person.id, "B")
    assert (moved.region, moved.face_count, moved.id) == ("B", 2, person.id)
    regions = RegionStore(database).list("acme").regions
    assert [(r.name, r.persons, r.faces) for r in regions] == [("A", 0, 0), ("B", 1, 2)]
    assert gallery.move_person("acme", person.id, "B").region == "B"
    assert gallery.count_faces("acme", "B") == 2


def test_a_deleted_person_leaves_no_face(database_url: str, gallery: Gallery) -> None:
    before = count_rows(database_url)
    person, _ = gallery.create_person("acme", "A", "Alice", [photo(1, "one"), photo(2, "two")])
    assert gallery.delete_person("acme", person.id) == 2
    left = count_rows(database_url)
    assert {table: left[table] - before[table] for table in left if left[table] != before[table]} == {
        "clients": 1,
        "regions": 1,
        "embedding_models": 1,
        "audit_log": 4,  # which made a client, a region and a person, and deleted the person
    }
    gallery.create_person("acme", "A", "Alice", [photo(1, "one")])


@pytest.mark.parametrize("client", ["acme", "globex"])
def test_who_does_not_exist_is_an_error_and_changes_nothing(database_url: str, gallery: Gallery, client: str) -> None:
    """An id that nobody has, and one that another client's person has."""
    person, (face,) = gallery.create_person("acme", "A", "Alice", [photo(1, "one")])
    person_id = 10**9 if client == "acme" else person.id
    before = count_rows(database_url)
    attempts: list[Callable[[], Any]] = [
        lambda: gallery.get_person(client, person_id),
        lambda: gallery.list_faces(client, person_id),
        lambda: gallery.add_faces(client, person_id, [photo(2, "two")]),
        lambda: gallery.update_person(client, person_id, name="Bob"),
        lambda: gallery.update_person(client, person_id),
        lambda: gallery.move_person(client, person_id, "new region"),
        lambda: gallery.delete_person(client, person_id),
        lambda: gallery.delete_face(client, person_id, face),
    ]
    for attempt in attempts:
        with pytest.raises(UnknownPersonError, match=f"Person {person_id} does not exist") as caught:
            attempt()
        assert caught.value.person_id == person_id
    assert count_rows(database_url) == before
    assert gallery.get_person("acme", person.id) == person


def test_a_face_of_another_person_is_not_deleted(gallery: Gallery) -> None:
    alice, (face,) = gallery.create_person("acme", "A", "Alice", [photo(1, "one")])
    bob, _ = gallery.create_person("acme", "A", "Bob", [photo(2, "two")])
    assert gallery.delete_face("acme", bob.id, face) is False
    assert gallery.delete_face("acme", alice.id, face) is True
    assert gallery.get_person("acme", alice.id).face_count == 0


# Several at once


def blocked(url: str, condition: str = "true") -> bool:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'faceward' "
            f"AND datname = current_database() AND {condition}"
        ).fetchone()
    return row is not None and row[0] > 0


def while_a_face_is_added(url: str, gallery: Gallery, person_id: int, action: Callable[[], Any]) -> Any:
    """Run the action when a face of the person was added and is not committed; commit once the action waits for it."""
    with ThreadPoolExecutor(1) as pool, psycopg.connect(url) as adding:
        adding.execute("SELECT 1 FROM persons WHERE id = %s FOR SHARE", (person_id,))
        adding.execute(
            "INSERT INTO face_encodings (client_id, person_id, region, model_id, embedding) "
            "SELECT client_id, id, region, %s, %s::text::vector FROM persons WHERE id = %s",
            (MODEL, str(unit(9).tolist()), person_id),
        )
        running = pool.submit(action)
        while not running.done() and not blocked(url):
            pass
        assert not running.done()
        adding.commit()
        return running.result(timeout=30)


def test_a_face_that_is_being_added_moves_with_its_person(database_url: str, gallery: Gallery) -> None:
    person, _ = gallery.create_person("acme", "A", "Alice", [photo(1, "one")])
    moved = while_a_face_is_added(database_url, gallery, person.id, lambda: gallery.move_person("acme", person.id, "B"))
    assert (moved.region, moved.face_count) == ("B", 2)
    assert gallery.count_faces("acme", "A") == 0


def test_a_face_that_is_being_added_is_deleted_with_its_person(database_url: str, gallery: Gallery) -> None:
    person, _ = gallery.create_person("acme", "A", "Alice", [photo(1, "one")])
    while_a_face_is_added(database_url, gallery, person.id, lambda: gallery.delete_person("acme", person.id))
    assert gallery.count_faces("acme", "A") == 0
    with pytest.raises(UnknownPersonError):
        gallery.get_person("acme", person.id)


def test_who_is_being_suspended_or_moved_is_deleted_after_that(database_url: str, gallery: Gallery) -> None:
    """Not each holding what the other waits for: both take the person first, then the faces."""
    person, _ = gallery.create_person("acme", "A", "Alice", [photo(1, "one")])
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as suspending:
        suspending.execute("SELECT 1 FROM persons WHERE client_id = 'acme' AND id = %s FOR UPDATE", (person.id,))
        running = pool.submit(gallery.delete_person, "acme", person.id)
        while not running.done() and not blocked(database_url):
            pass
        suspending.execute("UPDATE face_encodings SET quality_score = 0 WHERE person_id = %s", (person.id,))
        suspending.commit()
        assert running.result(timeout=30) == 1


def test_a_face_is_added_in_the_region_that_its_person_is_in_by_then(database_url: str, gallery: Gallery) -> None:
    person, _ = gallery.create_person("acme", "A", "Alice", [photo(1, "one")])
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as moving:
        moving.execute("INSERT INTO regions (client_id, name) VALUES ('acme', 'B')")
        moving.execute(
            "WITH p AS (UPDATE persons SET region = 'B' WHERE id = %s RETURNING id) UPDATE face_encodings f SET region = 'B' "
            "FROM p WHERE person_id = p.id",
            (person.id,),
        )
        running = pool.submit(gallery.add_faces, "acme", person.id, [photo(2, "two")])
        while not running.done() and not blocked(database_url):
            pass
        moving.commit()
        assert running.result(timeout=30)[0].region == "B"
    assert gallery.count_faces("acme", "B") == 2


@pytest.mark.parametrize("regions", [("A",), ("A", "B")], ids="+".join)
def test_of_many_that_enroll_the_same_photo_one_wins_in_each_region(
    database: Database, regions: tuple[str, ...]
) -> None:
    gallery = Gallery(database, MODEL)
    start = threading.Barrier(8)

    def enroll(i: int) -> str:
        start.wait()
        try:
            gallery.create_person("acme", regions[i % len(regions)], f"person {i}", [photo(1, "one")])
        except DuplicateFaceError:
            return "refused"
        return "stored"

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(enroll, range(8)))
    assert answers.count("stored") == len(regions)
    listed = RegionStore(database).list("acme").regions
    assert [(r.persons, r.faces) for r in listed] == [(1, 1)] * len(regions)


def test_what_is_not_committed_is_not_seen(database_url: str, database: Database) -> None:
    regions = RegionStore(database)
    name = make_url(database_url).database
    assert name
    with psycopg.connect(database_url) as writing:
        writing.execute("INSERT INTO regions (client_id, name) VALUES ('acme', 'A')")
        assert regions.list("acme").regions == ()
    assert [region.name for region in regions.list("acme").regions] == ["A"]
