"""Whatever is done to people between a cut-over and the roll-back: afterwards the answers are as if it had been done under the
model of before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import numpy as np
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from between_models import OTHER, Deployment, Row, new_face
from faceward.errors import BusyError, FacewardError
from faceward.photo_upkeep import PhotoUpkeep
from faceward.store import in_line
from faceward.store.database import Database, PoolSettings
from faceward.store.erasure import Eraser
from faceward.store.gallery import Gallery
from faceward.store.merging import merge
from faceward.store.photo_vault import PhotoVault
from faceward.store.photos import StoredPhotos
from faceward.store.regions import RegionStore
from searching import at_last
from synthetic import MODEL, unit

REGIONS = ("A", "B", "C")


@pytest.fixture(scope="module")
def deployment(new_database: Callable[[], AbstractContextManager[str]]) -> Iterator[Deployment]:
    with new_database() as url, Database(url, pool=PoolSettings(pool_size=4)) as database:
        yield Deployment(url, database)


class Company:
    """One client of the deployment. Of the faces that were there at the cut-over it knows whose they are by now."""

    def __init__(self, deployment: Deployment) -> None:
        self.client_id = f"client-{next(deployment.numbers)}"
        self.deployment = deployment
        self.model_id = MODEL
        self.persons: list[int] = []
        self.owner: dict[int, int] = {}
        self.photo: dict[int, int] = {}
        self.bare: set[int] = set()

    @property
    def gallery(self) -> Gallery:
        return Gallery(self.deployment.database, self.model_id)

    def cut_over(self) -> None:
        """The next steps are of a service that has the other model."""
        rows = self.deployment.rows(self.client_id)
        self.owner, self.photo = {row.id: row.person for row in rows}, {row.id: row.photo for row in rows}
        self.bare = {row.id for row in rows if not row.kept}
        self.model_id = OTHER

    def enrolled_since(self) -> list[Row]:
        """The faces of which the photo is kept."""
        return [row for row in self.deployment.rows(self.client_id) if row.kept and row.id not in self.owner]

    def check(self, since: list[Row]) -> None:
        """After the roll-back."""
        rows, places = self.deployment.rows(self.client_id), self.deployment.places(self.client_id)
        for row in rows:
            assert row.region == places[row.person]
            np.testing.assert_array_equal(np.float32(row.embedding), unit(row.photo))
        there = {(row.photo, row.region) for row in rows}
        for face, person in self.owner.items():
            # A photo is in a region once: of one who was left behind, or of who is enrolled there since.
            assert (self.photo[face], places[person]) in there
        for row in since:
            assert (row.photo, row.region) in there, "whose photo is kept is made anew"
        assert not {row.id for row in rows if row.kept} & self.bare

    def do(self, step: Step) -> None:
        name, one, other, region, photo, stored = step
        if name != "enroll" and not self.persons:
            return
        person, second = (self.persons[number % len(self.persons)] if self.persons else 0 for number in (one, other))
        with contextlib.suppress(FacewardError):  # refused: then nothing was done
            getattr(self, name)(person, second, region, photo, stored)

    def enroll(self, _person: int, _other: int, region: str, photo: int, stored: bool) -> None:
        faces = [new_face(photo, self.model_id, stored=stored)]
        self.persons.append(self.gallery.create_person(self.client_id, region, "Name", faces)[0].id)

    def add(self, person: int, _other: int, _region: str, photo: int, stored: bool) -> None:
        self.gallery.add_faces(self.client_id, person, [new_face(photo, self.model_id, stored=stored)])

    def merge(self, person: int, other: int, *_: object) -> None:
        if person != other:
            self.gallery.merge_persons(self.client_id, person, other, across_regions=True)
            self.owner = {face: other if owner == person else owner for face, owner in self.owner.items()}

    def move(self, person: int, _other: int, region: str, *_: object) -> None:
        self.gallery.move_person(self.client_id, person, region)

    def suspend(self, person: int, *_: object) -> None:
        state = self.gallery.get_person(self.client_id, person).state
        self.gallery.update_person(self.client_id, person, state="active" if state == "suspended" else "suspended")

    def delete(self, person: int, *_: object) -> None:
        self.gallery.delete_person(self.client_id, person)
        self._forget(lambda face: self.owner[face] == person)

    def erase(self, person: int, *_: object) -> None:
        eraser = Eraser(self.deployment.database)
        assert eraser.left(eraser.erase(self.client_id, person), person) == {}
        self._forget(lambda face: self.owner[face] == person)

    def delete_face(self, person: int, _other: int, _region: str, photo: int, *_: object) -> None:
        for row in self.deployment.rows(self.client_id):
            if (row.person, row.photo) == (person, photo):
                self.gallery.delete_face(self.client_id, person, row.id)
                self._forget(lambda face: (self.owner[face], self.photo[face]) == (person, photo))

    def rename(self, _person: int, _other: int, region: str, photo: int, *_: object) -> None:
        RegionStore(self.deployment.database).update(self.client_id, region, new_name=f"{region}{photo}")

    def drop_photos(self, _person: int, _other: int, region: str, *_: object) -> None:
        PhotoUpkeep(StoredPhotos(self.deployment.database, PhotoVault())).drop(self.client_id, region)
        places = self.deployment.places(self.client_id)
        self.bare |= {face for face, owner in self.owner.items() if places.get(owner) == region}

    def _forget(self, which: Callable[[int], bool]) -> None:
        for face in [face for face in self.owner if which(face)]:
            del self.owner[face], self.photo[face]


Step = tuple[str, int, int, str, int, bool]
KINDS = "enroll enroll add merge merge move move suspend delete erase delete_face rename drop_photos"  # the likely ones twice
STEPS = st.tuples(
    st.sampled_from(KINDS.split()),
    st.integers(0, 4),
    st.integers(0, 4),
    st.sampled_from(REGIONS),
    st.integers(0, 3),
    st.booleans(),
)
PEOPLE = st.tuples(
    st.just("enroll"), st.just(0), st.just(0), st.sampled_from(REGIONS), st.integers(0, 3), st.booleans()
)
Story = tuple[list[Step], list[Step], list[Step]]
"""What is done before the filling, between it and the cut-over, and between the cut-over and the roll-back."""


def tell(deployment: Deployment, stories: Sequence[Story]) -> None:
    """Each story of a company of its own, all of them with one cut-over and one roll-back."""
    companies = [Company(deployment) for _ in stories]

    def go_on(part: int) -> None:
        for company, story in zip(companies, stories, strict=True):
            for step in story[part]:
                company.do(step)

    go_on(0)
    deployment.change.fill()
    go_on(1)
    for company in companies:
        company.cut_over()
    deployment.change.cut_over(leave_behind=True)
    try:
        go_on(2)
        enrolled_since = [company.enrolled_since() for company in companies]
    finally:
        deployment.change.roll_back(leave_behind=True)
    for company, since in zip(companies, enrolled_since, strict=True):
        company.check(since)


CASES: dict[str, Story] = {
    "merged, without a photo": (
        [("enroll", 0, 0, "A", 2, False), ("enroll", 0, 0, "A", 3, False)],
        [],
        [("merge", 0, 1, "", 0, False)],
    ),
    "merged into another region, where the photo is": (
        [("enroll", 0, 0, "A", 2, False), ("enroll", 0, 0, "B", 2, False)],
        [],
        [("merge", 0, 1, "", 0, False), ("move", 1, 0, "C", 0, False)],
    ),
    "merged while it is filled, then erased": (
        [("enroll", 0, 0, "A", 2, True), ("enroll", 0, 0, "B", 3, True)],
        [("merge", 0, 1, "", 0, False), ("erase", 0, 0, "", 0, False)],
        [("move", 1, 0, "C", 0, False)],
    ),
    "two who were left behind come into one region": (
        [("enroll", 0, 0, "A", 2, False), ("enroll", 0, 0, "B", 2, False)],
        [],
        [("move", 0, 0, "C", 0, False), ("move", 1, 0, "C", 0, False)],
    ),
    "two who were left behind change places": (
        [("enroll", 0, 0, "A", 2, False), ("enroll", 0, 0, "B", 2, False)],
        [],
        [("move", 0, 0, "B", 0, False), ("move", 1, 0, "A", 0, False)],
    ),
    "moved to where one was left behind": (
        [("enroll", 0, 0, "A", 2, False), ("enroll", 0, 0, "B", 2, True)],
        [],
        [("move", 1, 0, "A", 0, False)],
    ),
    "moved to where one who was left behind is no more": (
        [("enroll", 0, 0, "A", 2, False), ("enroll", 0, 0, "B", 2, True)],
        [],
        [("move", 0, 0, "C", 0, False), ("move", 1, 0, "A", 0, False)],
    ),
    "enrolled where one who was left behind is no more": (
        [("enroll", 0, 0, "A", 2, False)],
        [],
        [("move", 0, 0, "B", 0, False), ("enroll", 0, 0, "A", 2, True)],
    ),
    "photos dropped, of one who was left behind and moved": (
        [("enroll", 0, 0, "A", 0, True)],
        [],
        [("move", 0, 0, "B", 0, False), ("drop_photos", 0, 0, "B", 0, False)],
    ),
    "deleted and erased": (
        [("enroll", 0, 0, "A", 2, False), ("enroll", 0, 0, "A", 0, True), ("enroll", 0, 0, "B", 3, True)],
        [],
        [("delete", 0, 0, "", 0, False), ("erase", 1, 0, "", 0, False), ("delete_face", 2, 0, "", 3, False)],
    ),
}


def test_what_is_told_of_people_between_the_exchanges_is_so_afterwards(deployment: Deployment) -> None:
    tell(deployment, list(CASES.values()))


@pytest.mark.parametrize("photo", [0, 2], ids=["the model makes nothing of", "the model embeds"])
def test_a_person_who_is_just_being_deleted_ends_no_filling(deployment: Deployment, photo: int) -> None:
    company = Company(deployment)
    company.enroll(0, 0, "A", photo, True)
    with psycopg.connect(deployment.url) as connection, ThreadPoolExecutor(1) as pool:
        connection.execute("DELETE FROM persons WHERE client_id = %s", (company.client_id,))
        filled = pool.submit(deployment.change.fill)
        with psycopg.connect(deployment.url, autocommit=True) as onlooker:
            waiting = "SELECT 1 FROM pg_locks WHERE NOT granted"
            at_last(lambda: onlooker.execute(waiting).fetchone() is not None or filled.done())
        connection.commit()
        assert filled.result().state == "ready"


def test_who_is_merged_while_the_filling_waits_is_held_as_the_person_they_are_then(deployment: Deployment) -> None:
    """Else who deletes that person waits for the face that the filling has, and the filling for the person."""
    company = Company(deployment)
    company.enroll(0, 0, "A", 2, True)
    company.enroll(0, 0, "A", 3, False)
    gone, into = company.persons
    database, client_id = deployment.database, company.client_id
    (face,) = (row.id for row in deployment.rows(client_id) if row.person == gone)

    def hold() -> None:
        with database.transaction(client_id) as tx:
            in_line.hold(tx, client_id, [face])

    with ThreadPoolExecutor(2) as pool, psycopg.connect(deployment.url, autocommit=True) as onlooker:
        with database.transaction(client_id) as tx:
            merge(tx, client_id, gone, into, across_regions=False, regions=None)
            held, filled = pool.submit(hold), pool.submit(deployment.change.fill)
            waiting = "SELECT 1 FROM pg_locks WHERE NOT granted HAVING count(*) = 2"
            at_last(lambda: onlooker.execute(waiting).fetchone() is not None or filled.done())
        with pytest.raises(BusyError, match="merged"):
            held.result()
        assert filled.result().state == "ready"


def test_the_filling_waits_for_who_holds_people_for_long(deployment: Deployment) -> None:
    """As a long retention or renaming does: for longer than a statement may take."""
    company = Company(deployment)
    company.enroll(0, 0, "A", 2, True)
    with (
        Database(deployment.url, pool=PoolSettings(pool_size=2), statement_timeout=0.5) as hasty,
        psycopg.connect(deployment.url) as connection,
        ThreadPoolExecutor(1) as pool,
    ):
        connection.execute("SELECT 1 FROM persons WHERE client_id = %s FOR UPDATE", (company.client_id,))
        filled = pool.submit(deployment.change_by(hasty).fill)
        with psycopg.connect(deployment.url, autocommit=True) as onlooker:
            waiting = (
                "SELECT 1 FROM pg_locks WHERE NOT granted AND waitstart < clock_timestamp() - interval '0.6 seconds'"
            )
            at_last(lambda: onlooker.execute(waiting).fetchone() is not None or filled.done())
        connection.commit()
        assert filled.result().state == "ready"
    assert deployment.change.status().counts.waiting == 0


@settings(max_examples=5, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(PEOPLE, min_size=2, max_size=5),
            st.lists(STEPS, max_size=3),
            st.lists(STEPS, min_size=1, max_size=8),
        ),
        min_size=4,
        max_size=4,
    )
)
def test_whatever_is_done_the_faces_of_before_are_where_their_persons_are(
    deployment: Deployment, stories: list[Story]
) -> None:
    tell(deployment, stories)
