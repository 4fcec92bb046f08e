"""Persons looked for in some regions only: who leaves them meanwhile is not there."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from faceward.errors import UnknownPersonError
from faceward.store.database import Database
from faceward.store.gallery import Gallery
from faceward.store.personal_data import PersonalDataStore
from faceward.store.photo_vault import PhotoVault
from faceward.store.photos import StoredPhotos
from faceward.types import NewFace
from rows import count_rows, waiting
from synthetic import new_face, unit

Call = Callable[[Database, Gallery, int, int], object]


def _export(database: Database, _: Gallery, person_id: int, __: int) -> None:
    with PersonalDataStore(database).open("acme", person_id, regions=["A"]) as held:
        held.person()


CALLS: dict[str, Call] = {
    "rename": lambda _, gallery, person, __: gallery.update_person("acme", person, name="Eve", regions=["A"]),
    "suspend": lambda _, gallery, person, __: gallery.update_person("acme", person, state="suspended", regions=["A"]),
    "move": lambda _, gallery, person, __: gallery.move_person("acme", person, "A", regions=["A"]),
    "delete": lambda _, gallery, person, __: gallery.delete_person("acme", person, regions=["A"]),
    "add a face": lambda _, gallery, person, __: gallery.add_faces("acme", person, [new_face(2)], regions=["A"]),
    "delete a face": lambda _, gallery, person, face: gallery.delete_face("acme", person, face, regions=["A"]),
    "export": _export,
    "read a photo": lambda database, _, person, face: StoredPhotos(database, PhotoVault()).read(
        "acme", person, face, regions=["A"]
    ),
}
EACH = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


@pytest.fixture
def enrolled(gallery: Gallery) -> tuple[int, int]:
    person, (face,) = gallery.create_person("acme", "A", "Alice", [NewFace(unit(1), image_data=b"a photo")])
    gallery.create_person("acme", "B", "Bob", [new_face(3)])
    return person.id, face


@EACH
def test_a_person_who_is_being_moved_out_of_the_regions_is_not_there(
    call: Call, database_url: str, database: Database, gallery: Gallery, enrolled: tuple[int, int]
) -> None:
    before = count_rows(database_url)
    with psycopg.connect(database_url) as mover, ThreadPoolExecutor(1) as pool:
        mover.execute(
            "WITH moved AS (UPDATE persons SET region = 'B' WHERE id = %(id)s) "
            "UPDATE face_encodings SET region = 'B' WHERE person_id = %(id)s",
            {"id": enrolled[0]},
        )
        done = pool.submit(call, database, gallery, *enrolled)
        until = time.monotonic() + 20
        while not waiting(database_url) and not done.done():
            assert time.monotonic() < until
        mover.commit()
        with pytest.raises(UnknownPersonError):
            done.result()
    assert count_rows(database_url) == before
    person = gallery.get_person("acme", enrolled[0])
    assert (person.name, person.region, person.state, person.face_count) == ("Alice", "B", "active", 1)


@EACH
def test_a_person_of_the_regions_is(
    call: Call, database: Database, gallery: Gallery, enrolled: tuple[int, int]
) -> None:
    call(database, gallery, *enrolled)


def test_what_is_only_read_is_looked_for_in_the_regions_too(gallery: Gallery, enrolled: tuple[int, int]) -> None:
    assert gallery.get_person("acme", enrolled[0], regions=["A"]).name == "Alice"
    assert len(gallery.face_page("acme", enrolled[0], regions=["A"]).faces) == 1
    for regions in (["B"], []):
        with pytest.raises(UnknownPersonError):
            gallery.get_person("acme", enrolled[0], regions=regions)
        with pytest.raises(UnknownPersonError):
            gallery.face_page("acme", enrolled[0], regions=regions)
