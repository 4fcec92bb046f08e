"""What a reading can lack is always found: late commits, other histories, rows from dumps."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import psycopg
import pytest
from pgvector import Vector

from faceward.errors import DatabaseUnavailableError
from faceward.store.database import Database
from searching import CLIENT, Searching, at_last
from synthetic import MODEL, unit


@pytest.fixture
def searching(database: Database) -> Iterator[Searching]:
    searching = Searching.on(database)
    yield searching
    searching.keeper.close()


@pytest.fixture
def owner(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def watermark(searching: Searching) -> int:
    entry = searching.keeper.cache.peek((CLIENT, "A"))
    assert entry is not None
    return entry.watermark.version


def test_a_row_of_a_transaction_that_ran_while_the_sketch_was_loaded(searching: Searching) -> None:
    searching.fill([unit(n) for n in range(50)])
    with searching.database.transaction(CLIENT) as slow:
        person_id = slow.exec_driver_sql(
            "INSERT INTO persons (client_id, region, name) VALUES (%s, 'A', 'late') RETURNING id", (CLIENT,)
        ).scalar_one()
        slow.exec_driver_sql(
            "INSERT INTO face_encodings (client_id, person_id, region, model_id, embedding) VALUES (%s, %s, 'A', %s, %s)",
            (CLIENT, person_id, MODEL, Vector(unit(1000))),
        )
        searching.enroll("early", unit(1001))  # a later transaction, which ends first
        searching.warm()
        assert searching.names(unit(1000))[:1] != ["late"]
    assert searching.names(unit(1000))[:1] == ["late"]
    assert searching.names(unit(1001))[:1] == ["early"]


def test_extending_begins_where_the_last_reading_ended(searching: Searching) -> None:
    searching.fill([unit(n) for n in range(50)])
    searching.warm()
    before = watermark(searching)
    searching.enroll("first", unit(1000))
    with searching.database.transaction(CLIENT) as slow:
        version = int(slow.exec_driver_sql("SELECT pg_current_xact_id()::text").scalar_one())
        searching.enroll("early", unit(1001))
        searching.keeper.extend((CLIENT, "A"))
        assert before < watermark(searching) <= version
        assert searching.find(unit(1001)).fresh == 1  # above the watermark still, though in the sketch by now
    searching.keeper.extend((CLIENT, "A"))
    assert searching.find(unit(1001)).fresh == 0
    assert searching.names(unit(1001))[:1] == ["early"]


def test_rows_that_arrive_with_an_old_version_in_a_table_made_anew(
    searching: Searching, owner: psycopg.Connection
) -> None:
    """As from a dump of this database, restored while the service runs."""
    searching.fill([unit(n) for n in range(50)])
    gone = searching.enroll("restored", unit(1000))
    searching.keeper.extend((CLIENT, "A"))
    owner.execute("CREATE TABLE p AS SELECT * FROM persons")
    owner.execute("CREATE TABLE f AS SELECT * FROM face_encodings")
    searching.gallery.delete_person(CLIENT, gone)
    searching.warm()
    assert searching.names(unit(1000))[:1] != ["restored"]
    columns = "client_id, id, person_id, region, model_id, row_version, embedding"
    owner.execute("TRUNCATE face_encodings, persons CASCADE")
    owner.execute("INSERT INTO persons (client_id, id, name, region) SELECT client_id, id, name, region FROM p")
    owner.execute(f"INSERT INTO face_encodings ({columns}) SELECT {columns} FROM f")
    assert searching.names(unit(1000))[:1] == ["restored"]


class TestVersionsOfAnotherServer:
    """Rows from a dump bring ids that this server has not given yet."""

    @pytest.fixture
    def restored(self, searching: Searching, owner: psycopg.Connection) -> Searching:
        searching.fill([unit(n) for n in range(1200)])
        owner.execute("UPDATE face_encodings SET row_version = (1000000000 + id)::text::xid8")
        searching.warm()
        return searching

    def test_are_not_taken_for_new(self, restored: Searching) -> None:
        answer = restored.find(unit(7))
        assert answer.candidates[0].name == "p7"
        assert answer.fresh == 0

    def test_do_not_hide_what_is_new(self, restored: Searching) -> None:
        restored.enroll("new", unit(5000))
        answer = restored.find(unit(5000))
        assert answer.candidates[0].name == "new"
        assert answer.fresh == 1
        restored.keeper.extend((CLIENT, "A"))
        answer = restored.find(unit(5000))
        assert answer.candidates[0].name == "new"
        assert answer.fresh == 0

    def test_higher_ones_that_come_later_are_found(self, restored: Searching, owner: psycopg.Connection) -> None:
        restored.enroll("replicated", unit(5000))
        owner.execute(
            "UPDATE face_encodings SET row_version = '2000000000' WHERE id = (SELECT max(id) FROM face_encodings)"
        )
        assert restored.names(unit(5000))[:1] == ["replicated"]


def test_a_server_that_gives_its_transaction_ids_again(own_database: str) -> None:
    """After a crash, ids whose end was not written to disk are given to new transactions, below the sketch's watermark."""
    with psycopg.connect(own_database, autocommit=True) as owner:
        owner.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        owner.execute("ALTER SYSTEM SET autovacuum = off")
        owner.execute("SELECT pg_reload_conf()")
    with Database(own_database) as database:
        searching = Searching.on(database)
        searching.fill([unit(n) for n in range(50)])
        for attempt in range(5):
            crash(own_database, searching)
            before = watermark(searching)
            searching.enroll("after the crash", unit(1000 + attempt))
            with database.transaction(CLIENT) as tx:
                given = tx.exec_driver_sql("SELECT max(row_version::text::bigint) FROM face_encodings").scalar_one()
            assert searching.find(unit(1000 + attempt)).candidates[0].similarity > 0.999
            if given < before:
                break
        assert given < before, "the server went on counting: this run shows nothing"
        searching.keeper.extend((CLIENT, "A"))  # loads the sketch anew, in the background
        at_last(lambda: searching.find(unit(1000 + attempt)).fresh == 0)
        assert searching.find(unit(1000 + attempt)).candidates[0].similarity > 0.999
        searching.keeper.close()


def crash(url: str, searching: Searching) -> None:
    """End many transactions, load the sketch, and kill a session of the server at once: it recovers from its log."""
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url, autocommit=True) as owner:
        owner.execute("DO $$ BEGIN FOR i IN 1..300 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
        searching.warm()
        os.kill(owner.info.backend_pid, signal.SIGKILL)
        at_last(lambda: not answers(searching))  # its own session ends with all others
        at_last(lambda: answers(searching))


def answers(searching: Searching) -> bool:
    try:
        return bool(searching.find(unit(1)).candidates)
    except DatabaseUnavailableError:
        return False
