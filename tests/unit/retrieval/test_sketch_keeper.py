"""Sketches are loaded, extended and loaded anew in the background; what goes wrong there costs no answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from faceward.errors import AccessDeniedError
from faceward.retrieval import KeeperSettings
from faceward.sketches import CachedSketch
from faceward.store.database import Database
from faceward.store.watermarks import Watermark
from searching import CLIENT, Searching, at_last
from synthetic import unit

SCOPE = (CLIENT, "A")


@pytest.fixture
def open_on(database: Database) -> Iterator[Callable[..., Searching]]:
    made: list[Searching] = []

    def make(*args: Any, **kwargs: Any) -> Searching:
        made.append(Searching.on(database, *args, **kwargs))
        return made[-1]

    yield make
    for searching in made:
        searching.keeper.close()


def entry(searching: Searching) -> CachedSketch[Watermark]:
    found = searching.keeper.cache.peek(SCOPE)
    assert found is not None
    return found


def test_the_first_search_asks_for_the_sketch_and_does_not_wait(open_on: Callable[..., Searching]) -> None:
    searching = open_on()
    searching.fill([unit(n) for n in range(30)])
    assert searching.keeper.get(SCOPE) is None
    assert searching.names(unit(3))[:1] == ["p3"]
    at_last(lambda: searching.keeper.get(SCOPE) is not None)
    assert searching.keeper.size(SCOPE) == 30
    assert searching.names(unit(3))[:1] == ["p3"]


def test_many_threads_that_ask_at_once_get_one_load(open_on: Callable[..., Searching]) -> None:
    searching = open_on()
    searching.fill([unit(n) for n in range(30)])
    barrier = threading.Barrier(16)

    def ask() -> None:
        barrier.wait()
        searching.keeper.get(SCOPE)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    at_last(lambda: searching.keeper.get(SCOPE) is not None)
    searching.keeper.close()
    assert searching.keeper.cache.stats().loads == 1


def test_a_client_of_many_regions_does_not_keep_another_waiting(
    open_on: Callable[..., Searching], database_url: str
) -> None:
    keeper = open_on().keeper
    with psycopg.connect(database_url) as owner:
        owner.execute("LOCK TABLE face_encodings IN ACCESS EXCLUSIVE MODE")
        for n in range(20):
            keeper.get((CLIENT, f"site {n}"))
        keeper.get(("other", "door"))
        keeper.get(("other", "gate"))
    at_last(lambda: len(keeper.cache.entries()) == 22)
    loaded = [scope for scope, _ in keeper.cache.entries()]
    assert loaded.index(("other", "door")) <= 3
    assert loaded.index(("other", "gate")) <= 5
    assert [region for client_id, region in loaded if client_id == CLIENT] == [f"site {n}" for n in range(20)]


def test_a_sketch_is_extended_when_its_tail_grows(open_on: Callable[..., Searching]) -> None:
    searching = open_on(KeeperSettings(tail=10))
    searching.fill([unit(n) for n in range(50)])
    searching.warm()
    before = entry(searching).watermark
    searching.fill([unit(n) for n in range(100, 110)], prefix="few")
    assert searching.find(unit(100)).fresh == 10
    searching.fill([unit(n) for n in range(110, 120)], prefix="many")
    assert searching.find(unit(100)).fresh == 20
    at_last(lambda: len(entry(searching).sketch) == 70)
    assert entry(searching).watermark.version > before.version
    assert searching.keeper.cache.stats().loads == 1, "it was extended, not loaded anew"
    answer = searching.find(unit(100))
    assert answer.candidates[0].name == "few0"
    assert answer.fresh == 0


def test_a_sketch_in_use_is_extended_now_and_then_though_its_tail_is_short(open_on: Callable[..., Searching]) -> None:
    searching = open_on(KeeperSettings(idle_seconds=0.05))
    searching.fill([unit(n) for n in range(50)])
    searching.warm()
    searching.enroll("new", unit(100))

    def taken_in() -> bool:
        searching.find(unit(1))
        return len(entry(searching).sketch) == 51

    at_last(taken_in)


def test_a_sketch_is_loaded_anew_when_many_of_its_faces_are_gone(open_on: Callable[..., Searching]) -> None:
    searching = open_on(KeeperSettings(dead_share=0.2))
    searching.fill([unit(n) for n in range(100)])
    searching.warm()
    page = searching.gallery.list_persons(CLIENT, limit=60)
    for person in page.persons[:30]:
        searching.gallery.delete_person(CLIENT, person.id)
    for person in page.persons[30:]:
        searching.gallery.move_person(CLIENT, person.id, "B")
    answer = searching.find(unit(70))
    assert answer.candidates[0].name == "p70"
    at_last(lambda: len(entry(searching).sketch) == 40)
    assert searching.names(unit(70))[:1] == ["p70"]


def test_a_large_import_is_loaded_anew_rather_than_row_by_row(
    open_on: Callable[..., Searching], database_url: str
) -> None:
    searching = open_on()
    searching.fill([unit(n) for n in range(10)])
    searching.warm()
    loads = searching.keeper.cache.stats().loads
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("DROP INDEX idx_embedding_hnsw")
        owner.execute(
            "INSERT INTO face_encodings (client_id, person_id, region, model_id, embedding) "
            "SELECT client_id, person_id, region, model_id, embedding FROM face_encodings, generate_series(1, 6600)"
        )
    searching.keeper.extend(SCOPE)
    at_last(lambda: searching.keeper.size(SCOPE) == 66_010)
    assert searching.keeper.cache.stats().loads == loads + 1


def test_a_region_larger_than_the_memory_for_sketches_is_searched_by_sql(open_on: Callable[..., Searching]) -> None:
    searching = open_on(budget=10_000)
    searching.fill([unit(n) for n in range(200)])
    assert not searching.retriever.warm(CLIENT, "A")
    assert searching.keeper.cache.state(SCOPE) == "refused"
    assert searching.names(unit(150))[:1] == ["p150"]


def test_a_load_that_fails_leaves_searches_going_and_is_tried_again(
    open_on: Callable[..., Searching], database_url: str
) -> None:
    """As where the login of the sketches' database was locked for a while."""
    name = "sketch_reader"
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {name} NOLOGIN IN ROLE faceward_app")
        url = make_url(database_url).set(username=name).render_as_string(hide_password=False)
        try:
            with Database(url) as locked:
                searching = open_on(KeeperSettings(retry_seconds=0.2), reads_from=locked)
                searching.fill([unit(n) for n in range(30)])
                assert searching.names(unit(3))[:1] == ["p3"]
                at_last(lambda: searching.keeper.last_error is not None)
                assert isinstance(searching.keeper.last_error, AccessDeniedError)
                assert searching.names(unit(3))[:1] == ["p3"]
                owner.execute(f"ALTER ROLE {name} LOGIN")
                at_last(lambda: searching.keeper.get(SCOPE) is not None)
                at_last(lambda: searching.keeper.last_error is None)
                assert searching.names(unit(3))[:1] == ["p3"]
                searching.keeper.close()
        finally:
            owner.execute(f"DROP ROLE {name}")


def test_closing_waits_for_the_load_under_way_and_starts_no_other(
    open_on: Callable[..., Searching], database_url: str
) -> None:
    searching = open_on()
    searching.fill([unit(n) for n in range(30)])
    closer = threading.Thread(target=searching.keeper.close)
    with psycopg.connect(database_url) as owner:
        owner.execute("LOCK TABLE face_encodings IN ACCESS EXCLUSIVE MODE")
        assert searching.keeper.get(SCOPE) is None
        at_last(lambda: owner.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() != (0,))
        closer.start()
        closer.join(0.2)
        assert closer.is_alive()
    closer.join(20)
    assert not closer.is_alive()
    assert searching.keeper.size(SCOPE) == 30
    searching.keeper.get((CLIENT, "B"))
    assert searching.keeper.cache.state((CLIENT, "B")) == "absent"
    searching.keeper.close()


def test_closing_what_never_loaded_anything(open_on: Callable[..., Searching]) -> None:
    open_on().keeper.close()
