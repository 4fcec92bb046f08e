"""Connections that are killed and servers that stop: an error at once, and only one, and no restart of ours after it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import psycopg
import pytest

from faceward import errors
from faceward.store.database import Database
from faceward.store.embedded import EmbeddedServer
from faceward.store.gallery import Gallery
from faceward.store.regions import RegionStore
from faceward.store.search import FaceSearch, FullVectors
from synthetic import MODEL, new_face, unit

TEMPLATE = "faceward_template"


def everyone(database: Database) -> list[Callable[[], object]]:
    """One call for each way in which the store uses a connection."""
    gallery = Gallery(database, MODEL)
    search = FaceSearch(database)
    return [
        lambda: RegionStore(database).list("c"),
        lambda: gallery.create_person("c", "A", "Alice", [new_face(1)]),
        lambda: search.search("c", ["A"], [unit(1)], [FullVectors(limit=5)], model_id=MODEL, top_k=1),
        lambda: search.similarities_of_person("c", 1, unit(1), model_id=MODEL),
        search.require_graph,
    ]


@pytest.mark.parametrize("call", range(5))
def test_idle_connections_that_were_killed(database_url: str, database: Database, call: int) -> None:
    """An error at once, and only one: the next call works, though every connection of the pool was killed."""
    with contextlib.ExitStack() as held:
        for _ in range(3):
            held.enter_context(database.transaction("c"))
    assert database.pool_status()["idle"] == 3
    kill(database_url)
    action = everyone(database)[call]
    with pytest.raises(
        errors.DatabaseUnavailableError, match=r"(terminating connection|server closed).*its disk is full"
    ):
        action()
    for again in everyone(database):
        again()


def kill(url: str) -> None:
    with psycopg.connect(url) as connection:
        killed = connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = 'faceward' AND datname = current_database()"
        ).fetchall()
    assert killed


def test_a_connection_killed_in_the_middle_of_a_change(database_url: str, database: Database) -> None:
    gallery = Gallery(database, MODEL)
    gallery.create_person("c", "A", "Alice", [new_face(1)])

    def change() -> None:
        with database.transaction("c") as tx:
            tx.exec_driver_sql("DELETE FROM face_encodings WHERE client_id = 'c'")
            kill(database_url)
            tx.exec_driver_sql("DELETE FROM persons WHERE client_id = 'c'")

    with pytest.raises(errors.DatabaseUnavailableError) as lost:
        change()
    assert not isinstance(lost.value, errors.OutcomeUnknownError)
    assert gallery.list_persons("c").persons[0].face_count == 1


def test_a_connection_killed_when_a_change_is_committed_leaves_open_what_became_of_it(
    database_url: str, database: Database
) -> None:
    def change() -> None:
        with database.transaction("c") as tx:
            tx.exec_driver_sql("INSERT INTO clients (client_id, name) VALUES ('c', 'c')")
            kill(database_url)

    with pytest.raises(errors.OutcomeUnknownError, match="may be stored"):
        change()
    with database.transaction("c") as tx:  # and the next call works
        assert tx.exec_driver_sql("SELECT 1").scalar() == 1


def test_a_server_that_is_restarted(own_server: EmbeddedServer) -> None:
    """Down: each call fails at once and says so. Up again: it works, with no restart of ours."""
    with Database(own_server.url_of(TEMPLATE), connect_timeout=2) as database:
        for call in everyone(database):
            call()
        own_server.close()
        for call in everyone(database):
            with pytest.raises(errors.DatabaseUnavailableError, match=r"ended the connection|Is the server running"):
                call()
        with contextlib.closing(EmbeddedServer(own_server.pgdata)):
            everyone(database)[0]()
            for call in everyone(database):
                call()


def test_a_server_restarted_between_two_calls(own_server: EmbeddedServer) -> None:
    with Database(own_server.url_of(TEMPLATE)) as database:
        for call in everyone(database):
            call()
        own_server.close()
        with contextlib.closing(EmbeddedServer(own_server.pgdata)):
            with pytest.raises(errors.DatabaseUnavailableError):
                everyone(database)[2]()
            for call in everyone(database):
                call()


def test_connections_of_before_are_closed_when_they_are_wanted_next(database: Database) -> None:
    """Also one that was in use: nobody is left to close it when the pool is thrown away."""

    def backend() -> int:
        with database.unscoped() as connection:
            return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())

    with database.driver_connection() as in_use:
        idle = backend()
        database.reconnect()
        assert backend() != idle
    assert not in_use.closed
    before = in_use.info.backend_pid
    assert backend() != before
    assert in_use.closed
