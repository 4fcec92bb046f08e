"""Regions are made, renamed with all that is in them, and deleted when nothing is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from faceward.errors import (
    BusyError,
    DeadlineExceededError,
    DuplicateRegionError,
    RegionNotEmptyError,
    RequestReusedError,
    TooManyRegionsError,
    UnknownRegionError,
)
from faceward.store import database as database_module
from faceward.store import regions as regions_module
from faceward.store.api_keys import KeyStore
from faceward.store.bulk import BulkWriter, NewPerson, NewPhoto
from faceward.store.clients import ClientStore
from faceward.store.database import Database, deadline
from faceward.store.gallery import Gallery
from faceward.store.regions import RegionStore
from faceward.store.search import FaceSearch, FullVectors
from faceward.types import RegionSummary, RequestToken
from rows import count_rows, waiting
from synthetic import MODEL, new_face, unit


@pytest.fixture
def regions(database: Database) -> RegionStore:
    return RegionStore(database)


def names(regions: RegionStore, client: str = "acme") -> list[tuple[str, int, int]]:
    return [(region.name, region.persons, region.faces) for region in regions.list(client, limit=1000).regions]


def found(database: Database, region: str, seed: int) -> list[str]:
    """Who of the region looks like this face."""
    (answer,) = FaceSearch(database).search("acme", [region], [unit(seed)], [FullVectors(100)], model_id=MODEL, top_k=1)
    return [candidate.name for candidate in answer.candidates if candidate.similarity > 0.99]


def test_a_region_is_made_before_its_first_person(database: Database, gallery: Gallery, regions: RegionStore) -> None:
    made = regions.create("acme", "Zürich", 0.35)
    assert (made.name, made.persons, made.faces, made.threshold) == ("Zürich", 0, 0, 0.35)
    assert regions.get("acme", "Zürich") == made
    assert ClientStore(database).get("acme").name == "acme"
    gallery.create_person("acme", "Zürich", "Alice", [new_face(1)])
    assert regions.get("acme", "Zürich").faces == 1
    with pytest.raises(DuplicateRegionError, match="Region 'Zürich' exists already"):
        regions.create("acme", "Zürich")
    assert regions.get("acme", "Zürich").threshold == 0.35
    regions.create("globex", "Zürich")


def test_a_region_that_is_not_there_names_those_that_are(gallery: Gallery, regions: RegionStore) -> None:
    gallery.create_person("acme", "A", "Alice", [])
    gallery.create_person("globex", "B", "Bob", [])
    for call in (regions.get, regions.delete, regions.update):
        with pytest.raises(UnknownRegionError, match=r"Region 'B' does not exist.*Regions that do: A\.") as caught:
            call("acme", "B")
        assert caught.value.known == ("A",)


def test_only_what_is_given_is_changed(regions: RegionStore) -> None:
    regions.create("acme", "A", 0.5)
    assert regions.update("acme", "A").threshold == 0.5
    assert regions.update("acme", "A", threshold=-1.0).threshold == -1.0
    assert regions.update("acme", "A", threshold=None).threshold is None
    assert regions.update("acme", "A", new_name="A").name == "A"


@pytest.mark.parametrize("at_once", [2, 1000])
def test_a_renamed_region_takes_its_people_along(
    database: Database,
    gallery: Gallery,
    regions: RegionStore,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
) -> None:
    monkeypatch.setattr(regions_module, "_MOVED_AT_ONCE", at_once)
    clients = ClientStore(database)
    for number in range(5):
        gallery.create_person("acme", "A", f"person {number}", [new_face(number), new_face(number + 100)])
    gallery.create_person("acme", "B", "Bob", [new_face(50)])
    gallery.create_person("globex", "A", "Eve", [new_face(60)])
    regions.update("acme", "A", threshold=0.4)
    keys = KeyStore(database)
    for client, limits in (("acme", ["B", "A"]), ("acme", ["B"]), ("acme", None), ("globex", ["A"])):
        assert clients.get(client)
        keys.create(client, "manager", prefix=f"{client}{limits}"[:20], secret_hash=bytes(32), regions=limits)
    changed = regions.update("acme", "A", new_name="Z")
    assert (changed.name, changed.persons, changed.faces, changed.threshold) == ("Z", 5, 10, 0.4)
    assert names(regions) == [("B", 1, 1), ("Z", 5, 10)]
    assert names(regions, "globex") == [("A", 1, 1)]
    assert [key.regions for key in keys.list("acme").keys] == [("B", "Z"), ("B",), None]
    assert [key.regions for key in keys.list("globex").keys] == [("A",)]
    assert found(database, "Z", 103) == ["person 3"]
    assert found(database, "A", 103) == []


def test_a_name_that_is_taken_is_refused(gallery: Gallery, regions: RegionStore) -> None:
    gallery.create_person("acme", "A", "Alice", [new_face(1)])
    regions.create("acme", "B")
    with pytest.raises(DuplicateRegionError, match=r"Region 'B' exists already.*or move the persons there"):
        regions.update("acme", "A", new_name="B", threshold=0.1)
    assert names(regions) == [("A", 1, 1), ("B", 0, 0)]
    assert regions.get("acme", "A").threshold is None


def test_a_renaming_makes_the_rows_new_to_every_sketch(
    gallery: Gallery, regions: RegionStore, database_url: str
) -> None:
    gallery.create_person("acme", "A", "Alice", [new_face(1)])

    def version() -> int:
        with psycopg.connect(database_url) as connection:
            row = connection.execute("SELECT row_version::text::bigint FROM face_encodings").fetchone()
        assert row is not None
        value: int = row[0]
        return value

    before = version()
    regions.update("acme", "A", new_name="B")
    assert version() > before


def test_only_an_empty_region_is_deleted(gallery: Gallery, regions: RegionStore, database_url: str) -> None:
    alice, _ = gallery.create_person("acme", "A", "Alice", [])
    gallery.create_person("globex", "A", "Bob", [])
    before = count_rows(database_url)
    with pytest.raises(RegionNotEmptyError, match=r"Region 'A' has people in it \(1\).*Move or delete them first"):
        regions.delete("acme", "A")
    assert count_rows(database_url) == before
    gallery.delete_person("acme", alice.id)
    regions.delete("acme", "A")
    assert names(regions) == []
    assert names(regions, "globex") == [("A", 1, 0)]


@pytest.mark.parametrize("change", ["rename", "delete"])
def test_who_enrolls_while_a_region_goes_is_told_so(
    database: Database, gallery: Gallery, database_url: str, change: str
) -> None:
    """The enrolment found the region, and waits at its key until that is gone."""
    RegionStore(database).create("acme", "A")
    going: dict[str, Callable[[psycopg.Connection], Any]] = {
        "rename": lambda c: c.execute("UPDATE regions SET name = 'B' WHERE client_id = 'acme' AND name = 'A'"),
        "delete": lambda c: c.execute("DELETE FROM regions WHERE client_id = 'acme' AND name = 'A'"),
    }
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as other:
        other.execute("SELECT 1 FROM regions WHERE client_id = 'acme' AND name = 'A' FOR UPDATE")
        running = pool.submit(gallery.create_person, "acme", "A", "Alice", [])
        while not running.done() and not waiting(database_url):
            pass
        going[change](other)
        other.commit()
        with pytest.raises(BusyError, match="Region 'A' was renamed or deleted by another request meanwhile"):
            running.result(timeout=30)
    assert gallery.list_persons("acme").persons == ()


@pytest.mark.parametrize("change", ["rename", "delete"])
def test_who_is_being_enrolled_is_waited_for(
    regions: RegionStore, gallery: Gallery, database_url: str, change: str
) -> None:
    regions.create("acme", "A")
    changes: dict[str, Callable[[], Any]] = {
        "rename": lambda: regions.update("acme", "A", new_name="B"),
        "delete": lambda: regions.delete("acme", "A"),
    }
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as enrolling:
        enrolling.execute("INSERT INTO persons (client_id, region, name) VALUES ('acme', 'A', 'Alice')")
        running = pool.submit(changes[change])
        while not running.done() and not waiting(database_url):
            pass
        enrolling.commit()
        if change == "delete":
            with pytest.raises(RegionNotEmptyError):
                running.result(timeout=30)
        else:
            assert running.result(timeout=30).persons == 1
    assert [person.name for person in gallery.list_persons("acme").persons] == ["Alice"]


def test_a_face_that_is_being_added_is_renamed_with_its_person(
    regions: RegionStore, gallery: Gallery, database_url: str
) -> None:
    person, _ = gallery.create_person("acme", "A", "Alice", [new_face(1)])
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as adding:
        adding.execute("SELECT 1 FROM persons WHERE id = %s FOR SHARE", (person.id,))
        running = pool.submit(regions.update, "acme", "A", new_name="B")
        while not running.done() and not waiting(database_url):
            pass
        adding.execute(
            "INSERT INTO face_encodings (client_id, person_id, region, model_id, embedding) "
            "SELECT client_id, person_id, region, model_id, embedding FROM face_encodings"
        )
        adding.commit()
        assert running.result(timeout=30).faces == 2


def test_of_many_that_rename_and_enroll_at_once_nobody_is_lost(database: Database) -> None:
    """Whatever the order: each person is in a region that exists, with all faces there."""
    gallery, regions = Gallery(database, MODEL), RegionStore(database)
    gallery.create_person("acme", "A", "first", [new_face(0)])
    start = threading.Barrier(6)
    enrolled = []

    def enroll(number: int) -> None:
        start.wait()
        for turn in range(3):
            try:
                enrolled.append(
                    gallery.create_person("acme", "A", f"{number} {turn}", [new_face(number * 10 + turn)])[0].id
                )
            except BusyError:
                continue

    def rename(to: str) -> RegionSummary | None:
        start.wait()
        try:
            return regions.update("acme", "A", new_name=to)
        except UnknownRegionError:
            return None

    with ThreadPoolExecutor(6) as pool:
        work = [pool.submit(enroll, number) for number in range(1, 5)] + [pool.submit(rename, to) for to in ("B", "C")]
        for done in work:
            done.result(timeout=60)
    total = len(enrolled) + 1
    assert len(gallery.list_persons("acme", limit=1000).persons) == total
    assert sum(persons for _, persons, _ in names(regions)) == total
    assert sum(faces for _, _, faces in names(regions)) == total


@pytest.mark.parametrize("way", ["people", "photos"])
def test_an_import_into_a_region_that_is_renamed_meanwhile_makes_it_again(
    database: Database, database_url: str, gallery: Gallery, regions: RegionStore, way: str
) -> None:
    """As one does that comes after it."""
    regions.create("acme", "A")
    writer = BulkWriter(database, gallery, MODEL)
    face = new_face(1, "photo")

    def write() -> int:
        if way == "people":
            return writer.write("acme", [NewPerson("1", "A", "Alice", (face,))])[1]
        return len(writer.add_photos("acme", [NewPhoto("1", "A", "Alice", face)]))

    with psycopg.connect(database_url) as renaming, ThreadPoolExecutor(1) as pool:
        renaming.execute("SELECT FROM regions WHERE client_id = 'acme' AND name = 'A' FOR UPDATE")
        writing = pool.submit(write)
        while not waiting(database_url):
            pass
        renaming.execute("INSERT INTO regions (client_id, name) VALUES ('acme', 'B')")
        renaming.execute("DELETE FROM regions WHERE client_id = 'acme' AND name = 'A'")
        renaming.commit()
        assert writing.result(timeout=30) == 1
    assert names(regions) == [("A", 1, 1), ("B", 0, 0)]


def test_regions_are_listed_in_pages(gallery: Gallery, regions: RegionStore) -> None:
    for name in ("C", "A", "B"):
        gallery.create_person("acme", name, "Alice", [new_face(1)])
    regions.create("acme", "D", 0.5)
    regions.create("globex", "A")
    first = regions.list("acme", limit=2)
    assert [(region.name, region.persons, region.faces) for region in first.regions] == [("A", 1, 1), ("B", 1, 1)]
    assert first.next_after == "B"
    rest = regions.list("acme", after="B", limit=2)
    assert ([region.name for region in rest.regions], rest.next_after) == (["C", "D"], None)
    some = regions.list("acme", names=["D", "B", "Z"], limit=1)
    assert ([region.name for region in some.regions], some.next_after) == (["B"], "B")
    assert regions.list("acme", names=[]).regions == ()
    assert regions.list("initech").regions == ()


def test_a_client_makes_no_more_regions_than_it_may(database: Database, database_url: str) -> None:
    """However they are made; and what would have made one more stores nothing."""
    gallery, regions = Gallery(database, MODEL, max_regions=2), RegionStore(database, max_regions=2)
    writer = BulkWriter(database, gallery, MODEL, max_regions=2)
    gallery.create_person("acme", "A", "Alice", [new_face(1)])
    bob, _ = gallery.create_person("acme", "B", "Bob", [new_face(2)])
    before = count_rows(database_url)
    for makes in (
        lambda: gallery.create_person("acme", "C", "Carol", [new_face(3)]),
        lambda: gallery.move_person("acme", bob.id, "C"),
        lambda: regions.create("acme", "C"),
        lambda: writer.write("acme", [NewPerson("1", "C", "Carol", (unit(4),))]),
    ):
        with pytest.raises(TooManyRegionsError, match=r"has 2 regions.*enroll\.max_regions"):
            makes()
    assert count_rows(database_url) == before
    gallery.create_person("acme", "A", "Dan", [new_face(5)])
    regions.update("acme", "B", new_name="C")
    gallery.create_person("globex", "C", "Eve", [new_face(6)])


def test_a_repeated_request_makes_no_second_region(regions: RegionStore) -> None:
    request = RequestToken(7, "make the hall", b"1")
    made = regions.create("acme", "Hall", 0.5, request)
    assert regions.create("acme", "Hall", 0.5, request) == made
    with pytest.raises(RequestReusedError, match="'make the hall' was used for another request"):
        regions.create("acme", "Yard", 0.5, RequestToken(7, "make the hall", b"2"))
    regions.update("acme", "Hall", new_name="Yard")
    with pytest.raises(UnknownRegionError):
        regions.create("acme", "Hall", 0.5, request)
    other = RequestToken(8, "again", b"1")
    for _ in range(2):  # what was refused has used up nothing
        with pytest.raises(DuplicateRegionError):
            regions.create("acme", "Yard", None, other)


def test_a_renaming_that_takes_too_long_changes_nothing(
    gallery: Gallery, regions: RegionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is that of all steps together; one statement's own limit would let it go on for ever."""
    monkeypatch.setattr(regions_module, "_MOVED_AT_ONCE", 1)
    for number in range(20):
        gallery.create_person("acme", "A", f"person {number}", [new_face(number)])
    with deadline(60):
        steps = iter(range(6))
        timeout = regions._database.timeout

        def late() -> str | None:
            if next(steps, None) is None:
                raise DeadlineExceededError("The time given to this request is over.")
            return timeout()

        monkeypatch.setattr(regions._database, "timeout", late)
        with pytest.raises(DeadlineExceededError):
            regions.update("acme", "A", new_name="B")
        monkeypatch.undo()
    assert names(regions) == [("A", 20, 20)]


def test_who_waits_for_a_region_that_is_being_renamed_is_sent_away(
    database: Database, gallery: Gallery, regions: RegionStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a deadline: who waits keeps a thread from everybody else. A background import has all the time there is."""
    monkeypatch.setattr(database_module, "_LOCK_TIMEOUT", "50")
    regions.create("acme", "A")
    with psycopg.connect(database_url) as other:
        other.execute("SELECT 1 FROM regions WHERE client_id = 'acme' AND name = 'A' FOR UPDATE")
        with deadline(60), pytest.raises(BusyError, match="lock timeout"):
            gallery.create_person("acme", "A", "Alice", [])
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(gallery.create_person, "acme", "A", "Bob", [])
            while not running.done() and not waiting(database_url):
                pass
            assert not running.done()
            other.rollback()
            assert running.result(timeout=30)[0].name == "Bob"


def test_people_of_several_regions_are_listed_in_pages(gallery: Gallery) -> None:
    for number, region in enumerate("ABCABC"):
        gallery.create_person("acme", region, f"{number}", [])
    gallery.create_person("globex", "A", "Eve", [])
    first = gallery.list_persons("acme", regions=["A", "C"], limit=3)
    assert [person.name for person in first.persons] == ["0", "2", "3"]
    rest = gallery.list_persons("acme", regions=["A", "C"], after=first.next_after or 0, limit=3)
    assert ([person.name for person in rest.persons], rest.next_after) == (["5"], None)
    assert gallery.list_persons("acme", regions=[]).persons == ()
