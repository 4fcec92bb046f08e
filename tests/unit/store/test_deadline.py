"""A request's deadline reaches the database: as its statement_timeout, and in no round trip more."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from faceward.administration import Administration
from faceward.errors import DeadlineExceededError, StatementTimeoutError, UnauthenticatedError
from faceward.store.api_keys import KeyStore
from faceward.store.clients import ClientStore
from faceward.store.database import Database, PoolSettings, deadline
from faceward.store.gallery import Gallery
from faceward.store.regions import RegionStore
from faceward.store.search import FaceSearch, FullVectors
from faceward.types import Candidate
from synthetic import MODEL, new_face, unit

ONE = PoolSettings(pool_size=1, max_overflow=0, pool_timeout=5)


@pytest.fixture
def one(database_url: str) -> Any:
    """A database with a single connection, whose statements may take 10 seconds."""
    with Database(database_url, pool=ONE, statement_timeout=10) as database:
        yield database


def shown(database: Database) -> int:
    """statement_timeout in a transaction, in milliseconds."""
    with database.transaction("acme") as tx:
        value: int = tx.exec_driver_sql(
            "SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'"
        ).scalar_one()
    with database.unscoped() as tx:
        other = tx.exec_driver_sql("SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'").scalar_one()
    assert other <= value
    assert (other == 10_000) is (value == 10_000)
    return value


def search(database: Database) -> tuple[Candidate, ...]:
    (answer,) = FaceSearch(database).search("acme", ["A"], [unit(1)], [FullVectors(10)], model_id=MODEL, top_k=1)
    return answer.candidates


def test_statements_get_what_is_left_and_never_more_than_they_had(one: Database) -> None:
    assert shown(one) == 10_000
    with deadline(5):
        assert 0 < shown(one) <= 5_000
        with deadline(60):
            assert shown(one) <= 5_000
        with deadline(2):
            assert shown(one) <= 2_000
        assert shown(one) > 2_000
    with deadline(60):
        assert shown(one) == 10_000
    assert shown(one) == 10_000, "a pooled connection forgets its deadline"


def test_a_deadline_is_one_threads_own(one: Database) -> None:
    found: list[int] = []
    with deadline(5):
        thread = threading.Thread(target=lambda: found.append(shown(one)))
        thread.start()
        thread.join()
    assert found == [10_000]


def test_a_statement_is_cut_off_at_the_deadline(one: Database) -> None:
    def sleep() -> None:
        with one.transaction("acme") as tx:
            tx.exec_driver_sql("SELECT pg_sleep(5)")

    with deadline(0.2), pytest.raises(StatementTimeoutError, match="longer than the deadline"):
        sleep()
    assert shown(one) == 10_000


def test_a_search_is_cut_off_at_the_deadline(one: Database, database_url: str) -> None:
    """It waits for a lock here, as it would for a slow disk."""
    Gallery(one, MODEL).create_person("acme", "A", "Alice", [new_face(1)])
    with Database(database_url) as other, other.unscoped() as locking:
        locking.exec_driver_sql("RESET ROLE")
        locking.exec_driver_sql("LOCK TABLE face_encodings IN ACCESS EXCLUSIVE MODE")
        with deadline(0.2), pytest.raises(StatementTimeoutError):
            search(one)
    assert [candidate.name for candidate in search(one)] == ["Alice"]


class InAHurry(FullVectors):
    """Proposes somebody only where the search has less time than the session gives it."""

    @property
    def sql(self) -> str:
        hurry = "(SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout') < 10000"
        return f"SELECT id, fresh FROM ({super().sql}) proposed WHERE {hurry}"


def test_a_search_gets_what_is_left(one: Database) -> None:
    Gallery(one, MODEL).create_person("acme", "A", "Alice", [new_face(1)])

    def found() -> int:
        (answer,) = FaceSearch(one).search("acme", ["A"], [unit(1)], [InAHurry(10)], model_id=MODEL, top_k=1)
        return len(answer.candidates)

    assert found() == 0
    with deadline(5):
        assert found() == 1
    assert found() == 0


@pytest.mark.parametrize("ask", [search, shown, lambda database: KeyStore(database).find("x")])
def test_nothing_is_sent_once_nothing_is_left(one: Database, tmp_path: Path, ask: Callable[[Database], Any]) -> None:
    def late() -> None:
        with deadline(0), pytest.raises(DeadlineExceededError, match="time given to this request is over"):
            ask(one)

    assert round_trips(one, tmp_path, late) == []


def test_the_deadline_costs_no_round_trip(one: Database, tmp_path: Path) -> None:
    Gallery(one, MODEL).create_person("acme", "A", "Alice", [new_face(1)])
    keys = Administration(ClientStore(one), KeyStore(one))
    key = keys.create_key("acme", "recognizer")

    def within(ask: Callable[[], object]) -> tuple[int, int]:
        def in_time() -> None:
            with deadline(5):
                ask()

        ask(), in_time()  # statements are prepared by their first use
        return len(round_trips(one, tmp_path, ask)), len(round_trips(one, tmp_path, in_time))

    assert within(lambda: search(one)) == (1, 1)
    assert within(lambda: keys.authenticate(key.secret)) == (1, 1)
    plain, timed = within(lambda: RegionStore(one).list("acme"))
    assert plain == timed


def test_a_wrong_key_costs_as_many_round_trips_as_a_right_one(one: Database, tmp_path: Path) -> None:
    keys = Administration(ClientStore(one), KeyStore(one))
    keys.create_client("acme")
    secret = keys.create_key("acme", "recognizer").secret

    def refuse(text: str | None) -> None:
        with pytest.raises(UnauthenticatedError):
            keys.authenticate(text)

    keys.authenticate(secret)
    for text in (None, "", secret[:-1] + "~", secret[:-1] + "_", "fw_" + "0" * 12 + secret[15:]):
        assert len(round_trips(one, tmp_path, partial(refuse, text))) == 1


def round_trips(database: Database, directory: Path, ask: Callable[[], object]) -> list[str]:
    """What libpq received first, each time after it had sent something, on the database's only connection."""
    with database.driver_connection() as driver:
        connection = driver.pgconn
    path = directory / "trace"
    with path.open("w") as trace:
        connection.trace(trace.fileno())
        try:
            ask()
        finally:
            connection.untrace()
    directions = re.findall(r"^(?:\S+ \S+\t)?([FB])\t", path.read_text(), re.MULTILINE)
    return [first + second for first, second in itertools.pairwise(directions) if (first, second) == ("F", "B")]
