"""Decisions are kept without a recognition waiting for them, read by those who may, and gone after their time."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import psycopg
import pytest

from faceward.errors import ConstraintViolatedError, DatabaseUnavailableError
from faceward.store.audit_log import AuditLog
from faceward.store.database import Database
from faceward.store.decision_log import Compared, DecisionStore, NewDecision
from faceward.store.decision_writer import DecisionWriter
from faceward.store.gallery import Gallery
from searching import at_last
from synthetic import new_face

CLIENT = "acme"
NOW = dt.datetime(2026, 3, 2, 8, 15, tzinfo=dt.UTC)


def decision(number: int = 0, client_id: str = CLIENT, candidates: Sequence[Compared] = ()) -> NewDecision:
    at = NOW + dt.timedelta(seconds=number)
    regions = ("A", "B, {c}")
    return NewDecision(client_id, at, "key:door", "recognize", regions, 0.4, "region", "match", tuple(candidates))


@pytest.fixture
def store(database: Database) -> DecisionStore:
    return DecisionStore(database)


@pytest.fixture
def writer(store: DecisionStore) -> Iterator[DecisionWriter]:
    writer = DecisionWriter(store, seconds=0.01)
    yield writer
    writer.close()


class Broken:
    """A store whose database is away, or refuses, for some time. It is the real one then."""

    def __init__(self, store: DecisionStore, error: Exception) -> None:
        self.store = store
        self.error: Exception | None = error
        self.tries = 0

    def write(self, client_id: str, decisions: Sequence[NewDecision]) -> None:
        self.tries += 1
        if self.error is not None:
            raise self.error
        self.store.write(client_id, decisions)


def test_a_decision_is_read_as_it_was_taken(store: DecisionStore, gallery: Gallery) -> None:
    ids = [gallery.create_person(CLIENT, "A", f"{n}", [new_face(n)])[0].id for n in range(2)]
    store.write(CLIENT, [decision(0, candidates=[Compared(ids[1], 9, 0.25), Compared(ids[0], 7, 0.5)]), decision(1)])
    second, first = store.list(CLIENT).decisions
    assert (first.at, first.actor, first.kind, first.regions) == (NOW, "key:door", "recognize", ("A", "B, {c}"))
    assert (first.threshold, first.threshold_source, first.decision) == (pytest.approx(0.4), "region", "match")
    assert first.candidates == (Compared(ids[0], 7, 0.5), Compared(ids[1], 9, 0.25))
    assert second.candidates == ()


def test_decisions_are_read_by_page_person_outcome_and_time(store: DecisionStore, gallery: Gallery) -> None:
    person, _ = gallery.create_person(CLIENT, "A", "Alice", [new_face(1)])
    store.write(CLIENT, [decision(n, candidates=[Compared(person.id, 1, 0.5)] if n % 2 else []) for n in range(7)])
    pages, before = [], None
    while True:
        page = store.list(CLIENT, limit=3, before=before)
        pages += [each.at for each in page.decisions]
        if (before := page.next_before) is None:
            break
    assert pages == [NOW + dt.timedelta(seconds=n) for n in reversed(range(7))]
    assert len(store.list(CLIENT, person_id=person.id).decisions) == 3
    assert len(store.list(CLIENT, decision="unknown").decisions) == 0
    assert len(store.list(CLIENT, since=NOW + dt.timedelta(seconds=5)).decisions) == 2
    assert store.list("globex").decisions == ()


def test_who_is_not_enrolled_any_more_is_not_named(store: DecisionStore, gallery: Gallery) -> None:
    person, _ = gallery.create_person(CLIENT, "A", "Alice", [new_face(1)])
    gallery.delete_person(CLIENT, person.id)
    store.write(CLIENT, [decision(candidates=[Compared(person.id, 1, 0.5)])])
    (kept,) = store.list(CLIENT).decisions
    assert kept.candidates == ()


def test_old_decisions_go_with_their_candidates(
    database: Database, database_url: str, store: DecisionStore, gallery: Gallery
) -> None:
    person, _ = gallery.create_person(CLIENT, "A", "Alice", [new_face(1)])
    for client in (CLIENT, "globex"):
        store.write(client, [decision(n, client, [Compared(person.id, 1, 0.5)]) for n in range(1500)])
    store.write(CLIENT, [decision(int((dt.datetime.now(dt.UTC) - NOW).total_seconds()))])
    assert AuditLog(database).expire(CLIENT, 365, 1, lambda: True).decisions == 1000
    assert AuditLog(database).expire(CLIENT, 365, 1).decisions == 500
    assert len(store.list(CLIENT).decisions) == 1
    assert len(store.list("globex", limit=1000).decisions) == 1000
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM decision_candidates").fetchone() == (0,)


def test_what_is_added_is_written_in_the_background(store: DecisionStore, writer: DecisionWriter) -> None:
    for number in range(0, 100, 2):
        writer.add([decision(number), decision(number + 1, "globex")])
    at_last(lambda: writer.written == 100)
    assert (writer.waiting, writer.lost) == (0, 0)
    assert len(store.list(CLIENT).decisions) == len(store.list("globex").decisions) == 50


def test_a_writer_that_was_idle_goes_on(store: DecisionStore, writer: DecisionWriter) -> None:
    for number in range(3):
        writer.add([decision(number)])
        at_last(lambda written=number + 1: writer.written == written)
        time.sleep(0.05)  # longer than it waits for others


def test_closing_writes_what_waits(store: DecisionStore) -> None:
    writer = DecisionWriter(store, seconds=3600, batch=7)
    writer.add([decision(number) for number in range(100)])
    writer.close()
    assert (writer.written, writer.waiting, writer.lost) == (100, 0, 0)
    assert len(store.list(CLIENT).decisions) == 100
    writer.add([decision()])
    assert (writer.waiting, writer.lost) == (0, 1)
    writer.close()


def test_an_outage_is_waited_out_and_what_finds_no_room_is_counted(store: DecisionStore) -> None:
    broken = Broken(store, DatabaseUnavailableError("away"))
    writer = DecisionWriter(broken, seconds=0.01, most_waiting=30, batch=10)  # type: ignore[arg-type]
    writer.add([decision(number) for number in range(25)])
    at_last(lambda: broken.tries >= 3)
    assert isinstance(writer.last_error, DatabaseUnavailableError)
    writer.add([decision(number) for number in range(25, 50)])
    assert (writer.waiting, writer.lost, writer.written) == (30, 20, 0)
    broken.error = None
    at_last(lambda: writer.written == 30)
    writer.close()
    assert (writer.lost, writer.last_error) == (20, None)
    assert len({each.at for each in store.list(CLIENT).decisions}) == 30


def test_closing_does_not_wait_for_a_database_that_is_away(store: DecisionStore) -> None:
    broken = Broken(store, DatabaseUnavailableError("away"))
    writer = DecisionWriter(broken, seconds=0.01)  # type: ignore[arg-type]
    writer.add([decision(number) for number in range(5)])
    at_last(lambda: broken.tries > 0)
    writer.close()
    assert (writer.waiting, writer.lost) == (0, 5)


def test_what_the_database_refuses_does_not_hold_up_the_rest(store: DecisionStore) -> None:
    broken = Broken(store, ConstraintViolatedError("no"))
    writer = DecisionWriter(broken, seconds=0.01)  # type: ignore[arg-type]
    writer.add([decision()])
    at_last(lambda: writer.lost == 1)
    broken.error = None
    writer.add([decision()])
    at_last(lambda: writer.written == 1)
    writer.close()
    assert writer.lost == 1


def test_many_threads_lose_nothing(store: DecisionStore) -> None:
    writer = DecisionWriter(store, seconds=0.001, batch=50)

    def add(start: int) -> None:
        for number in range(100):
            writer.add([decision(start + number)])

    threads = [threading.Thread(target=add, args=(1000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert (writer.written, writer.lost) == (400, 0)
    assert len(store.list(CLIENT, limit=1000).decisions) == 400


def test_a_writer_without_work_starts_no_thread(store: DecisionStore, count_threads: Callable[[], int]) -> None:
    before = count_threads()
    writer = DecisionWriter(store)
    writer.add([])
    assert count_threads() == before
    writer.close()


@pytest.fixture
def count_threads() -> Callable[[], int]:
    return lambda: sum(thread.name == "faceward-decisions" for thread in threading.enumerate())
