"""The embedded server's log has a bound, at each start and while the server runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from faceward.store import server_log
from faceward.store.embedded import EmbeddedServer
from faceward.store.server_log import LogKeeper, size, why_it_ended
from searching import at_last


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_bytes(b"old\n" * 1000 + b"new\n" * 100)
    return path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keepers that look at once and keep little."""
    monkeypatch.setattr(server_log.LogKeeper.__init__, "__kwdefaults__", {"max_bytes": 4000, "seconds": 0.01})
    return


def test_a_log_within_its_bound_is_left_alone(log: Path) -> None:
    LogKeeper(log, max_bytes=4400).look()
    assert log.stat().st_size == 4400
    assert not log.with_name("log.1").exists()


def test_of_a_log_beyond_it_the_end_is_kept_beside_it(log: Path) -> None:
    LogKeeper(log, max_bytes=1000).look()
    assert log.read_bytes() == b""
    kept = log.with_name("log.1").read_bytes()
    assert len(kept) == 1000
    assert kept.endswith(b"new\n" * 100)


def test_a_log_that_is_not_there_yet_is_no_error(tmp_path: Path) -> None:
    LogKeeper(tmp_path / "log", max_bytes=0).look()


OLDER = "10:00 UTC [1] FATAL:  of another start\n"
ENDING = """11:00 UTC [2] LOG:  redo starts at 0/2A000028
11:00 UTC [2] FATAL:  could not write to file "pg_wal/xlogtemp.2": No space left on device
11:00 UTC [3] FATAL:  the database system is starting up
11:00 UTC [1] LOG:  startup process (PID 2) exited with exit code 1
11:00 UTC [1] LOG:  shutting down due to startup process failure
11:00 UTC [1] LOG:  database system is shut down
"""


@pytest.mark.parametrize("verdict", ["FATAL", "PANIC"])
def test_why_a_server_ended_is_found_above_its_last_lines(tmp_path: Path, verdict: str) -> None:
    log = tmp_path / "log"
    log.write_text(OLDER + ENDING.replace("FATAL:  could", f"{verdict}:  could"))
    told = why_it_ended(log, len(OLDER))
    assert told.startswith(
        f'11:00 UTC [2] {verdict}:  could not write to file "pg_wal/xlogtemp.2": No space left on device / …'
    )
    assert told.endswith(
        "shutting down due to startup process failure / 11:00 UTC [1] LOG:  database system is shut down"
    )
    assert told.count(" / ") == 4


def test_of_a_server_that_ended_only_what_it_said_itself_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert (size(log), why_it_ended(log, 0)) == (0, "")
    log.write_text(OLDER)
    assert why_it_ended(log, size(log)) == ""
    assert why_it_ended(log, 10_000) == OLDER.strip(), "the log was begun anew meanwhile"


def test_a_running_server_goes_on_in_the_emptied_log(
    small: None, server_directories: Callable[[], Path], copy_cluster: Callable[[Path], Path]
) -> None:
    directory = copy_cluster(server_directories() / "data")
    with (directory / "log").open("ab") as log:
        log.write(b"x" * 5000)
    with contextlib.closing(EmbeddedServer(directory)) as server:
        assert (directory / "log").stat().st_size < 4000  # at its start
        with psycopg.connect(server.url_of("postgres"), autocommit=True) as connection:
            for _ in range(200):
                with pytest.raises(psycopg.errors.UndefinedTable):
                    connection.execute("SELECT * FROM there_is_no_such_table")
            at_last(lambda: (directory / "log").stat().st_size < 4000)
            with pytest.raises(psycopg.errors.UndefinedTable):
                connection.execute("SELECT * FROM the_last_one")
        at_last(lambda: b"the_last_one" in (directory / "log").read_bytes() + (directory / "log.1").read_bytes())
        assert (directory / "log.1").stat().st_size <= 4000
        assert (directory / "log.1").stat().st_uid == (directory / "log").stat().st_uid
