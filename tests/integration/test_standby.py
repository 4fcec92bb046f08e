"""Searches on a hot standby made with the tools of the wheel: as of its own moment, and after its primary's end."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pgvector import Vector

import faceward
from faceward import FaceService, PersonRecord
from faceward.errors import DatabaseUnavailableError
from faceward.settings import load_settings
from faceward.store.database import Database
from faceward.store.embedded import DATABASE_NAME, EmbeddedServer
from faceward.store.schema import Schema
from faceward.vision import ModelPack
from postgres_programs import run
from searching import CLIENT, Searching, at_last
from synthetic import unit

PORT = 5433


@dataclass
class Pair:
    """A primary and its standby."""

    primary: EmbeddedServer
    standby: Path

    @property
    def url(self) -> str:
        return self.primary.url

    @property
    def standby_url(self) -> str:
        return f"postgresql://postgres@/{DATABASE_NAME}?host={self.standby}&port={PORT}"

    @property
    def whichever_writes(self) -> str:
        """A URL of both, for the one that is no standby."""
        hosts = f"host={self.primary.pgdata}:5432&host={self.standby}:{PORT}"
        return f"postgresql://postgres@/{DATABASE_NAME}?{hosts}&target_session_attrs=read-write"

    def on_standby(self, statement: str) -> Any:
        with psycopg.connect(self.standby_url, autocommit=True) as connection:
            found = connection.execute(statement)
            return found.fetchone()[0] if found.description else None

    def has_replayed(self) -> bool:
        with psycopg.connect(self.url, autocommit=True) as connection:
            (written,) = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        return self.on_standby(f"SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn")

    def catch_up(self) -> None:
        at_last(self.has_replayed)

    def promote(self) -> None:
        run("pg_ctl", "-D", self.standby, "-w", "promote")


@pytest.fixture
def pair(server_directories: Callable[[], Path], copy_cluster: Callable[[Path], Path]) -> Iterator[Pair]:
    primary_directory, standby = server_directories() / "data", server_directories() / "data"
    if os.geteuid() == 0:
        user = pwd.getpwnam("pgserver")
        os.chown(standby.parent, user.pw_uid, user.pw_gid)
    with contextlib.closing(EmbeddedServer(copy_cluster(primary_directory))) as primary:
        primary.ensure_database()
        Schema(primary.url).upgrade()
        run("pg_basebackup", "-h", primary.pgdata, "-U", "postgres", "-D", standby, "-R", "-X", "stream", "-c", "fast")
        options = f"-p {PORT} -k {standby} -c listen_addresses=''"
        run("pg_ctl", "-D", standby, "-w", "-o", options, "-l", standby / "log", "start")
        try:
            yield Pair(primary, standby)
        finally:
            run("pg_ctl", "-D", standby, "-w", "-m", "immediate", "stop")


def records(*numbers: int) -> Iterator[PersonRecord]:
    for n in numbers:
        yield PersonRecord(f"{n}", "A", f"p{n}", unit(n))


@pytest.fixture
def service(pair: Pair, home: Path, pack: ModelPack) -> Iterator[FaceService]:
    settings = load_settings(
        database={"url": pair.url, "search_url": pair.standby_url}, search={"hnsw_index": False}, home=home
    )
    with faceward.open_service(settings) as service:
        yield service


def names(service: FaceService, number: int) -> list[str]:
    found = service.search(unit(number), region="A", threshold=0.9, strategy="sketch")
    return [candidate.name for candidate in found]


def test_searches_answer_as_of_the_standbys_moment(pair: Pair, service: FaceService) -> None:
    service.import_embeddings(records(*range(40)))
    pair.catch_up()
    assert service.warm("A")
    assert names(service, 7) == ["p7"]

    pair.on_standby("SELECT pg_wal_replay_pause()")
    at_last(lambda: pair.on_standby("SELECT pg_get_wal_replay_pause_state()") == "paused")
    service.import_embeddings(records(100))
    (gone,) = service.list_persons(external_id="7").persons
    (moved,) = service.list_persons(external_id="8").persons
    service.delete_person(gone.id)
    service.move_region(moved.id, "B")
    assert (names(service, 100), names(service, 7), names(service, 8)) == ([], ["p7"], ["p8"])
    pair.on_standby("SELECT pg_wal_replay_resume()")
    pair.catch_up()
    assert (names(service, 100), names(service, 7), names(service, 8)) == (["p100"], [], [])
    (found,) = service.search(unit(8), region=["A", "B"], threshold=0.9, strategy="sketch")
    assert found.region == "B"


def test_a_transaction_of_the_primary_that_ends_after_the_standbys_sketch_was_loaded(
    pair: Pair, service: FaceService
) -> None:
    service.import_embeddings(records(*range(10)))
    with psycopg.connect(pair.url) as slow:
        slow.execute("SELECT set_config('faceward.client_id', 'default', true)")
        (person_id,) = slow.execute("INSERT INTO persons (region, name) VALUES ('A', 'late') RETURNING id").fetchone()
        slow.execute(
            "INSERT INTO face_encodings (person_id, region, model_id, embedding) VALUES (%s, 'A', %s, %s::text::vector)",
            (person_id, service.model_id, Vector(unit(100)).to_text()),
        )
        service.import_embeddings(records(101))  # a later transaction, which ends first
        pair.catch_up()
        assert service.warm("A")
        assert (names(service, 100), names(service, 101)) == ([], ["p101"])
    pair.catch_up()
    assert names(service, 100) == ["late"]


def test_a_standby_that_takes_over_without_its_primarys_last_transactions(pair: Pair) -> None:
    """It gives their ids to new ones: a watermark of the lost primary means nothing there."""
    with Database(pair.whichever_writes) as database:
        searching = Searching.on(database)
        searching.fill([unit(n) for n in range(40)])
        pair.catch_up()
        pair.on_standby("ALTER SYSTEM SET primary_conninfo = ''")
        pair.on_standby("SELECT pg_reload_conf()")
        at_last(lambda: pair.on_standby("SELECT count(*) FROM pg_stat_wal_receiver") == 0)
        for n in range(20):
            searching.enroll(f"lost {n}", unit(100 + n))
        searching.warm()
        assert searching.names(unit(105))[:1] == ["lost 5"]
        run("pg_ctl", "-D", pair.primary.pgdata, "-w", "-m", "immediate", "stop")
        pair.promote()
        with pytest.raises(DatabaseUnavailableError):
            searching.find(unit(1))
        entry = searching.keeper.cache.peek((CLIENT, "A"))
        assert entry is not None
        searching.enroll("after", unit(200))
        with database.transaction(CLIENT) as tx:
            given = tx.exec_driver_sql("SELECT max(row_version::text::bigint) FROM face_encodings").scalar_one()
        assert given < entry.watermark.version
        assert searching.names(unit(200))[:1] == ["after"]
        assert searching.names(unit(105))[:1] != ["lost 5"]
        assert searching.names(unit(7))[:1] == ["p7"]
        searching.keeper.close()
