"""A request that is sent again does nothing twice, whether it comes after its twin or beside it."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from faceward.errors import DuplicateFaceError, RequestReusedError, UnknownPersonError
from faceward.store.audit_log import AuditLog
from faceward.store.database import Database
from faceward.store.gallery import Gallery
from faceward.store.request_tokens import ADD_FACE, ENROLL
from faceward.types import Box, NewFace, Person, Quality, RequestToken
from rows import count_rows
from synthetic import MODEL, new_face

REQUEST = RequestToken(1, "enroll Alice", b"fingerprint")
OTHER = dataclasses.replace(REQUEST, fingerprint=b"another")
ALICE = dataclasses.replace(new_face(1, "one"), box=Box(1, 2, 3, 4))
QUALITY = (Quality(0.75, ("blurred", "dark")),)


def enroll(gallery: Gallery, request: RequestToken = REQUEST) -> tuple[Person, tuple[int, ...]]:
    return gallery.create_person("acme", "A", "Alice", [ALICE], request=request, quality=QUALITY)


def test_a_repeated_enrolment_gets_the_first_answer(gallery: Gallery, database_url: str) -> None:
    first = enroll(gallery)
    before = count_rows(database_url)
    assert enroll(gallery) == first
    assert count_rows(database_url) == before
    recorded = gallery.enrollment_of("acme", REQUEST, ENROLL)
    assert recorded is not None
    assert (recorded.person, recorded.face_ids, recorded.quality) == (*first, QUALITY)


def test_a_repeated_photo_gets_the_first_answer(gallery: Gallery, database_url: str) -> None:
    person, _ = enroll(gallery)
    request = RequestToken(1, "add", b"f")

    def add() -> tuple[Person, tuple[int, ...]]:
        return gallery.add_faces("acme", person.id, [new_face(2, "two")], request=request)

    first = add()
    before = count_rows(database_url)
    assert add() == first
    assert first[0].face_count == 2
    assert count_rows(database_url) == before


@pytest.mark.parametrize("round_", range(3))
def test_of_twins_that_come_at_once_one_works_and_all_get_its_answer(database: Database, round_: int) -> None:
    gallery = Gallery(database, MODEL)
    start = threading.Barrier(8)

    def twin(_: int) -> tuple[Person, tuple[int, ...]]:
        start.wait()
        return enroll(gallery)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(twin, range(8)))
    assert answers == [answers[0]] * 8
    assert [person.id for person in gallery.list_persons("acme").persons] == [answers[0][0].id]


def test_of_twins_without_a_photo_one_works_too(database: Database) -> None:
    """Nothing but the token tells them apart from two people of one name."""
    gallery = Gallery(database, MODEL)
    start = threading.Barrier(8)

    def twin(_: int) -> int:
        start.wait()
        return gallery.create_person("acme", "A", "Alice", [], request=REQUEST)[0].id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(twin, range(8)))) == 1
    assert len(gallery.list_persons("acme").persons) == 1


def test_a_token_stands_for_one_request(gallery: Gallery, database_url: str) -> None:
    person, _ = enroll(gallery)
    before = count_rows(database_url)
    with pytest.raises(RequestReusedError, match=r"'enroll Alice' was used for another request.*Send a new one"):
        enroll(gallery, OTHER)
    with pytest.raises(RequestReusedError):
        gallery.add_faces("acme", person.id, [new_face(2)], request=REQUEST)
    with pytest.raises(RequestReusedError):
        gallery.enrollment_of("acme", OTHER, ENROLL)
    assert count_rows(database_url) == before


def test_a_token_is_its_keys_and_its_clients(gallery: Gallery) -> None:
    person, _ = enroll(gallery)
    assert gallery.enrollment_of("globex", REQUEST, ENROLL) is None
    assert gallery.enrollment_of("acme", dataclasses.replace(REQUEST, key_id=2), ENROLL) is None
    other, _ = gallery.create_person("globex", "A", "Alice", [ALICE], request=REQUEST)
    assert other.id != person.id


def test_a_request_that_failed_may_be_sent_again(gallery: Gallery, database_url: str) -> None:
    person, _ = gallery.create_person("acme", "A", "Bob", [ALICE])
    before = count_rows(database_url)
    with pytest.raises(DuplicateFaceError):
        enroll(gallery)
    assert count_rows(database_url) == before
    gallery.delete_person("acme", person.id)
    assert enroll(gallery)[0].name == "Alice"


def test_a_request_whose_person_is_deleted_does_not_bring_it_back(gallery: Gallery, database_url: str) -> None:
    person, _ = enroll(gallery)
    added = RequestToken(1, "add", b"f")
    gallery.add_faces("acme", person.id, [new_face(2)], request=added)
    other, _ = gallery.create_person("globex", "A", "Alice", [], request=REQUEST)
    gallery.delete_person("acme", person.id)
    again: tuple[NewFace, ...] = (new_face(2),)
    for repeat in (
        lambda: enroll(gallery),
        lambda: gallery.add_faces("acme", person.id, again, request=added),
        lambda: gallery.enrollment_of("acme", REQUEST, ENROLL),
        lambda: gallery.enrollment_of("acme", added, ADD_FACE),
    ):
        with pytest.raises(UnknownPersonError, match=f"Person {person.id} does not exist"):
            repeat()
    assert gallery.list_persons("acme").persons == ()
    with psycopg.connect(database_url) as connection:
        left = connection.execute("SELECT resource_id FROM request_tokens ORDER BY client_id").fetchall()
    assert left == [(None,), (None,), (other.id,)], "tokens of one client's persons are another's never"


def test_old_tokens_are_forgotten_with_new_ones(gallery: Gallery, database_url: str) -> None:
    for number in range(3):
        enroll_without_photo(gallery, f"old {number}")
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE request_tokens SET created_at = now() - interval '8 days'")
    gallery.create_person("globex", "A", "Bob", [], request=REQUEST)
    enroll_without_photo(gallery, "new")
    with psycopg.connect(database_url) as connection:
        left = connection.execute("SELECT client_id, token FROM request_tokens ORDER BY 1").fetchall()
    assert left == [("acme", "new"), ("globex", "enroll Alice")]


def test_old_tokens_of_who_sends_nothing_any_more_end_too(
    gallery: Gallery, database: Database, database_url: str
) -> None:
    for number in range(3):
        enroll_without_photo(gallery, f"old {number}")
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE request_tokens SET created_at = now() - interval '8 days' WHERE token <> 'old 2'")
    assert AuditLog(database).expire("globex", 400, 400).idempotency_keys == 0
    assert AuditLog(database).expire("acme", 400, 400).idempotency_keys == 2
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT token FROM request_tokens").fetchall() == [("old 2",)]


def enroll_without_photo(gallery: Gallery, token: str) -> None:
    gallery.create_person("acme", "A", "Alice", [], request=RequestToken(1, token, b""))
