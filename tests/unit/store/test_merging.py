"""Two records of one person become one: with all faces, all at once, and seen by every search at every moment."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest

from faceward.errors import (
    DifferentRegionsError,
    DuplicateFaceError,
    DuplicatePersonError,
    NotFoundError,
    RequestReusedError,
    UnknownPersonError,
)
from faceward.store.database import Database
from faceward.store.gallery import Gallery
from faceward.store.regions import RegionStore
from faceward.store.request_tokens import ADD_FACE, ENROLL, erase_person
from faceward.types import Box, NewFace, Person, RequestToken
from rows import count_rows
from searching import CLIENT, Searching
from synthetic import MODEL, unit

MERGE = RequestToken(1, "merge", b"fingerprint")


def photo(seed: int, name: str) -> NewFace:
    return NewFace(unit(seed), box=Box(1, 2, 3, 4), image_sha256=name.encode())


def enroll(gallery: Gallery, region: str, *photos: NewFace, **fields: Any) -> Person:
    return gallery.create_person(CLIENT, region, "Alice", photos, **fields)[0]


def test_the_one_that_stays_has_all_faces(gallery: Gallery) -> None:
    gone = enroll(gallery, "A", photo(1, "one"), photo(2, "two"), external_id="x", description="d")
    into = enroll(gallery, "A", photo(3, "three"))
    merged = gallery.merge_persons(CLIENT, gone.id, into.id)
    assert (merged.faces_moved, merged.faces_dropped, merged.external_id_dropped) == (2, 0, False)
    person = merged.person
    assert (person.id, person.face_count, person.external_id, person.description) == (into.id, 3, "x", "d")
    assert person.updated_at > into.updated_at
    assert gallery.list_persons(CLIENT).persons == (person,)


def test_what_the_one_that_stays_has_is_kept(gallery: Gallery) -> None:
    gone = enroll(gallery, "A", external_id="x", description="d")
    into = enroll(gallery, "A", external_id="y", description="e")
    merged = gallery.merge_persons(CLIENT, gone.id, into.id)
    assert (merged.person.external_id, merged.person.description) == ("y", "e")
    assert merged.external_id_dropped


def test_persons_of_different_regions_are_merged_where_that_is_said(
    gallery: Gallery, database: Database, database_url: str
) -> None:
    gone, into = enroll(gallery, "A", photo(1, "one"), photo(2, "two")), enroll(gallery, "B", photo(1, "one"))
    before = count_rows(database_url)
    with pytest.raises(DifferentRegionsError, match=r"in region 'A', person .* in region 'B'.*across_regions"):
        gallery.merge_persons(CLIENT, gone.id, into.id)
    assert count_rows(database_url) == before
    merged = gallery.merge_persons(CLIENT, gone.id, into.id, across_regions=True)
    assert (merged.faces_moved, merged.faces_dropped) == (1, 1), "the photo that both had is kept once"
    assert (merged.person.region, merged.person.face_count) == ("B", 2)
    listed = RegionStore(database).list(CLIENT).regions
    assert [(each.name, each.persons, each.faces) for each in listed] == [
        ("A", 0, 0),
        ("B", 1, 2),
    ]


def test_what_is_a_third_person_s_in_the_other_region_stops_a_merge(gallery: Gallery, database_url: str) -> None:
    third = enroll(gallery, "B", photo(1, "one"), external_id="x")
    with_photo, with_id = enroll(gallery, "A", photo(1, "one")), enroll(gallery, "A", external_id="x")
    into = enroll(gallery, "B", photo(2, "two"))
    before = count_rows(database_url)
    with pytest.raises(DuplicateFaceError, match=f"region 'B' already, for person {third.id}") as caught:
        gallery.merge_persons(CLIENT, with_photo.id, into.id, across_regions=True)
    assert caught.value.person_id == third.id
    with pytest.raises(DuplicatePersonError, match="external id is taken"):
        gallery.merge_persons(CLIENT, with_id.id, into.id, across_regions=True)
    assert count_rows(database_url) == before


def test_only_persons_of_the_client_and_of_the_regions_given(gallery: Gallery, database_url: str) -> None:
    one, other = enroll(gallery, "A", photo(1, "one")), enroll(gallery, "B", photo(2, "two"))
    before = count_rows(database_url)
    for client, person_id, into_id, regions, missing in (
        ("globex", one.id, other.id, None, one.id),
        (CLIENT, one.id, 10**9, None, 10**9),
        (CLIENT, 10**9, one.id, None, 10**9),
        (CLIENT, one.id, other.id, ("A",), other.id),
        (CLIENT, one.id, other.id, ("B",), one.id),
    ):
        with pytest.raises(UnknownPersonError, match=f"Person {missing} does not exist"):
            gallery.merge_persons(client, person_id, into_id, across_regions=True, regions=regions)
    assert count_rows(database_url) == before
    assert gallery.merge_persons(CLIENT, one.id, other.id, across_regions=True, regions=("A", "B")).faces_moved == 1


def test_a_repeated_merge_gets_the_first_answer(gallery: Gallery, database_url: str) -> None:
    gone, into = enroll(gallery, "A", photo(1, "one")), enroll(gallery, "A", photo(2, "two"))
    first = gallery.merge_persons(CLIENT, gone.id, into.id, request=MERGE)
    before = count_rows(database_url)
    assert gallery.merge_persons(CLIENT, gone.id, into.id, request=MERGE) == first
    with pytest.raises(RequestReusedError):
        gallery.merge_persons(CLIENT, gone.id, into.id, request=dataclasses.replace(MERGE, fingerprint=b"other"))
    assert count_rows(database_url) == before
    gallery.delete_person(CLIENT, into.id)
    with pytest.raises(UnknownPersonError, match=f"Person {into.id} does"):
        gallery.merge_persons(CLIENT, gone.id, into.id, request=MERGE)


def test_a_repeated_merge_into_somebody_erased_since_says_so(gallery: Gallery, database: Database) -> None:
    gone, into = enroll(gallery, "A"), enroll(gallery, "A")
    gallery.merge_persons(CLIENT, gone.id, into.id, request=MERGE)
    with database.transaction(CLIENT) as tx:
        erase_person(tx, CLIENT, [into.id], deleted=False)
    with pytest.raises(NotFoundError, match="erased since"):
        gallery.merge_persons(CLIENT, gone.id, into.id, request=MERGE)


def test_a_repeated_enrolment_finds_the_one_that_stays(gallery: Gallery) -> None:
    """It must neither bring back who is merged, nor fail for a caller who knows nothing of it."""
    enrolled, added = RequestToken(1, "enroll", b"1"), RequestToken(1, "add", b"2")
    gone = enroll(gallery, "A", photo(1, "one"), request=enrolled)
    gallery.add_faces(CLIENT, gone.id, [photo(2, "two")], request=added)
    into = enroll(gallery, "A", photo(3, "three"))
    last = enroll(gallery, "A")
    gallery.merge_persons(CLIENT, gone.id, into.id)
    assert enroll(gallery, "A", photo(1, "one"), request=enrolled).id == into.id
    gallery.merge_persons(CLIENT, into.id, last.id)
    for request, operation in ((enrolled, ENROLL), (added, ADD_FACE)):
        answer = gallery.enrollment_of(CLIENT, request, operation)
        assert answer is not None
        assert answer.person.id == last.id
    gallery.delete_person(CLIENT, last.id)
    with pytest.raises(UnknownPersonError, match=f"Person {last.id} does"):
        gallery.enrollment_of(CLIENT, enrolled, ENROLL)


@pytest.mark.parametrize("strategy", ["exact", "sketch"])
@pytest.mark.parametrize("regions", [("A", "A"), ("A", "B")], ids=["one region", "two regions"])
def test_a_search_finds_the_person_all_the_time(database: Database, regions: tuple[str, str], strategy: str) -> None:
    searching = Searching.on(database)
    probe = unit(1)
    people = [searching.enroll(f"{n}", unit(n), region=regions[0]) for n in range(1, 4)]
    people.append(searching.enroll("4", unit(4), region=regions[1]))
    searching.warm(*dict.fromkeys(regions))
    done = threading.Event()
    found: list[set[int]] = []

    def search() -> None:
        while not done.is_set():
            answer = searching.find(probe, *dict.fromkeys(regions), strategy=strategy)
            found.append({each.person_id for each in answer.candidates if each.similarity > 0.99})

    thread = threading.Thread(target=search)
    thread.start()
    try:
        for person, into in ((people[0], people[1]), (people[1], people[2]), (people[2], people[3])):
            searching.gallery.merge_persons(CLIENT, person, into, across_regions=True)
    finally:
        done.set()
        thread.join()
        searching.keeper.close()
    assert found
    assert all(len(each) == 1 for each in found)
    (last,) = searching.find(probe, regions[1], strategy=strategy).candidates
    assert (last.person_id, last.similarity > 0.99) == (people[3], True)


def test_a_face_that_is_added_meanwhile_comes_along_or_is_refused(database: Database) -> None:
    gallery = Gallery(database, MODEL)
    for round_ in range(4):
        gone, into = enroll(gallery, "A"), enroll(gallery, "A")
        start = threading.Barrier(2)
        added: list[bool] = []

        def add(person_id: int = gone.id, seed: int = round_, start: threading.Barrier = start) -> None:
            start.wait()
            try:
                gallery.add_faces(CLIENT, person_id, [photo(seed, f"photo {seed}")])
                added.append(True)  # noqa: B023
            except UnknownPersonError:
                added.append(False)  # noqa: B023

        thread = threading.Thread(target=add)
        thread.start()
        start.wait()
        gallery.merge_persons(CLIENT, gone.id, into.id)
        thread.join()
        assert gallery.get_person(CLIENT, into.id).face_count == int(added[0])


def test_persons_merged_into_each_other_at_once_do_not_both_go(database: Database) -> None:
    gallery = Gallery(database, MODEL)
    one, other = enroll(gallery, "A", photo(1, "one")), enroll(gallery, "A", photo(2, "two"))
    start = threading.Barrier(2)
    failed: list[Exception] = []

    def merge(pair: tuple[int, int]) -> None:
        start.wait()
        try:
            gallery.merge_persons(CLIENT, *pair)
        except UnknownPersonError as exc:
            failed.append(exc)

    pairs: list[tuple[int, int]] = [(one.id, other.id), (other.id, one.id)]
    threads = [threading.Thread(target=merge, args=(pair,)) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) == 1
    (left,) = gallery.list_persons(CLIENT).persons
    assert left.face_count == 2
