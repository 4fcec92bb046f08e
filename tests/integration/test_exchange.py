"""What others do in the very moment of an exchange: after all was caught up, and before writes have to wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from functools import partial

import psycopg
import pytest

from between_models import OTHER, Deployment, new_face
from faceward.errors import ConstraintViolatedError, PersonsLeftBehindError
from faceward.reembedding import Exchanged
from faceward.store.comparing import choose_faces
from faceward.store.database import Database, PoolSettings
from faceward.store.embedding_models import MODEL_LOCK
from faceward.store.gallery import Gallery
from faceward.store.reembedded_faces import LeftBehind
from faceward.store.regions import RegionStore
from searching import at_last
from synthetic import MODEL


@pytest.fixture
def deployment(new_database: Callable[[], AbstractContextManager[str]]) -> Iterator[Deployment]:
    with new_database() as url, Database(url, pool=PoolSettings(pool_size=4)) as database:
        yield Deployment(url, database)


def interrupted(url: str, exchange: Callable[[], Exchanged], steps: Sequence[Callable[[], object]]) -> Exchanged:
    """Exchange, with a step done in each of the first attempts: where it is about to hold the writes.

    One lock after the other keeps it from that; each is asked for before the one before it is released.
    """
    with ExitStack() as opened:
        pool = opened.enter_context(ThreadPoolExecutor(2))
        gates = [opened.enter_context(psycopg.connect(url, autocommit=True)) for _ in (*steps, None)]

        def shut(gate: psycopg.Connection) -> None:
            gate.execute("SELECT pg_advisory_lock_shared(%s)", (MODEL_LOCK,))

        def waiting() -> int:
            (count,) = gates[-1].execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            return int(count[0])

        shut(gates[0])
        done = pool.submit(exchange)
        for step, gate, following in zip(steps, gates, [*gates[1:-1], None], strict=False):
            at_last(lambda: waiting() == 1 or done.done())
            if done.done():
                break
            step()
            if following is not None:
                shutting = pool.submit(shut, following)
                at_last(lambda: waiting() == 2 or done.done())
            gate.execute("SELECT pg_advisory_unlock_shared(%s)", (MODEL_LOCK,))
            if following is not None:
                shutting.result()
        return done.result()


def test_many_may_move_in_one_tenant_while_few_are_enrolled_in_the_next(deployment: Deployment) -> None:
    """Only a face that has to be made takes its time: those that moved leave the next tenant as many as before."""
    database = deployment.database
    gallery = Gallery(database, MODEL)
    gallery.create_person("acme", "A", "Alice", [new_face(100 + number, MODEL, stored=True) for number in range(40)])
    gallery.create_person("globex", "A", "Bob", [new_face(50, MODEL, stored=True)])
    deployment.change.fill()

    def move_and_enroll() -> None:
        RegionStore(database).update("acme", "A", new_name="Z")
        gallery.create_person("globex", "A", "Eve", [new_face(51, MODEL, stored=True)])

    done = interrupted(deployment.url, deployment.change.cut_over, [move_and_enroll])
    assert (done.caught_up, done.attempts) == (41, 1)


def test_an_exchange_ends_where_people_who_are_left_behind_move_at_each_attempt(deployment: Deployment) -> None:
    """Also where it was not the first thing in the way. Nothing was changed, and the next one finds them at rest."""
    gallery, other = Gallery(deployment.database, MODEL), Gallery(deployment.database, OTHER)
    pairs = [
        [gallery.create_person("acme", region, "Name", [new_face(photo, MODEL, stored=False)])[0].id for region in "AB"]
        for photo in range(10, 16)
    ]
    deployment.change.fill()
    deployment.change.cut_over(leave_behind=True)

    def enroll() -> None:
        faces = [new_face(100 + number, OTHER, stored=True) for number in range(33)]
        other.create_person("acme", "C", "Busy", faces)

    def change_places() -> None:
        """Each pair can be in its own way once only: then both are set aside."""
        for person, region in zip(pairs.pop(), "BA", strict=True):
            other.move_person("acme", person, region)

    roll_back = deployment.change.roll_back
    with pytest.raises(ConstraintViolatedError):
        interrupted(deployment.url, partial(roll_back, wait=0), [change_places])
    with pytest.raises(ConstraintViolatedError):
        interrupted(deployment.url, roll_back, [enroll, *[change_places] * 5])
    assert pairs == []
    assert roll_back().change.state == "ready"


def test_who_has_the_photo_of_one_left_behind_is_not_left_without_a_face_unasked(deployment: Deployment) -> None:
    """The table that comes back has the photo in that region already. Once it has not any more, the face is made."""
    change = deployment.change
    pat = Gallery(deployment.database, MODEL).create_person("acme", "A", "Pat", [new_face(5, MODEL, stored=False)])[0]
    change.fill()
    change.cut_over(leave_behind=True)
    other = Gallery(deployment.database, OTHER)
    new = other.create_person("acme", "A", "Pat anew", [new_face(5, OTHER, stored=True)])[0]
    with pytest.raises(PersonsLeftBehindError, match=f"{new.id} of client 'acme'"):
        change.roll_back()
    (refused,) = change.faces_left()
    assert (refused.person_id, refused.code) == (new.id, "photo_taken")
    assert f"person {pat.id}" in refused.reason
    done = change.roll_back(leave_behind=True)
    assert (done.caught_up, done.persons_left, done.left) == (0, 1, (("acme", new.id),))
    assert change.lost_by_abandon() == LeftBehind(faces=1, persons=1)

    change.cut_over(leave_behind=True)
    assert change.lost_by_finish() == LeftBehind(faces=1, persons=1)
    other.delete_person("acme", pat.id)
    done = change.roll_back()
    assert (done.caught_up, done.persons_left) == (1, 0)
    assert {row.person for row in deployment.rows("acme")} == {new.id}
    assert change.lost_by_abandon() == LeftBehind()


def test_an_exchange_says_that_the_table_has_no_graph(deployment: Deployment) -> None:
    """An import may have set it aside while the other table came."""
    change = deployment.change
    assert change.cut_over().graph_missing is False
    with psycopg.connect(deployment.url) as connection:
        connection.execute("DROP INDEX idx_embedding_hnsw_previous")
    assert change.roll_back().graph_missing is True


def test_the_sample_of_a_comparison_is_spread_over_clients_who_enroll_in_turn(deployment: Deployment) -> None:
    gallery, database = Gallery(deployment.database, MODEL), deployment.database
    for photo in range(10, 22):
        client_id = ("acme", "globex")[photo % 2]
        gallery.create_person(client_id, "A", "Name", [new_face(photo, MODEL, stored=True)])
    deployment.change.fill()
    change = deployment.change.status().change
    assert change is not None
    for stride in (2, 3, 4):
        chosen = []
        for before, client_id in ((0, "acme"), (6, "globex")):
            with database.transaction(client_id) as tx:
                chosen.append(len(choose_faces(tx, client_id, change.shadow, stride, before)))
        assert sum(chosen) == 12 // stride
        assert max(chosen) - min(chosen) <= 1, stride
