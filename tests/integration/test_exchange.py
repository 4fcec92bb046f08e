"""What others do in the very moment of an exchange: after all was caught up, and before writes have to wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack

import psycopg
import pytest

from between_models import Deployment, new_face
from faceward.reembedding import Exchanged
from faceward.store.database import Database, PoolSettings
from faceward.store.embedding_models import MODEL_LOCK
from faceward.store.gallery import Gallery
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
