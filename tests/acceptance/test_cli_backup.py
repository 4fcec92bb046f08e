"""`faceward backup` and `faceward restore`: what they print, and that every kind of bad end leaves nothing half done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from command_line import CommandLine
from sqlalchemy.engine import make_url

from faceward.store.gallery import Gallery
from faceward.store.schema import HEAD
from searching import at_last
from synthetic import new_face


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "faces.backup"


@pytest.fixture
def filled(gallery: Gallery) -> None:
    """One person, and no model."""
    gallery.create_person("default", "A", "Joe", [new_face(1)])


@pytest.fixture
def backed_up(faceward: CommandLine, filled: None, file: Path) -> Path:
    """Of a database with one person."""
    faceward.succeeds("backup", file, "--no-check")
    return file


@pytest.fixture
def in_the_way(database_url: str, faceward: CommandLine) -> Iterator[Any]:
    """Somebody else's transaction, at which both commands have to wait."""
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE persons IN ACCESS EXCLUSIVE MODE")
        yield other


def people(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM persons")]


def test_a_backup_is_checked_and_restored(faceward: CommandLine, database_url: str, enrolled: int, file: Path) -> None:
    answer = faceward.succeeds("backup", file)
    assert "restored: 1 persons, 1 faces, 1 searches, all alike" in answer.stdout
    assert f"version {HEAD}" in answer.stdout
    name = make_url(database_url).database
    assert f"/{name}" in "".join(answer.stdout.split()), "which database it was"
    assert "Nobody is enrolled" not in answer.stderr
    faceward.succeeds("people", "delete", enrolled, "--yes")
    assert "--replace" in faceward.fails("restore", file)
    restored = faceward.succeeds("restore", file, "--replace").stdout
    assert "1 persons, 1 faces" in restored
    assert f"/{name}" in "".join(restored.split())
    assert faceward.succeeds("people", "list", "--json").json["people"][0]["name"] == "Barack Obama"
    assert faceward.succeeds("db", "status", "--json").json["current"]
    assert "until" in faceward.succeeds("purge").stderr, "nobody is erased by what a backup says"
    assert "Erased 0 people" in faceward.succeeds("purge", "--after-restore").stdout
    assert "idx_embedding_hnsw" in faceward.succeeds("db", "status", "--json").json["indexes"]


def test_a_backup_of_nobody_says_so(faceward: CommandLine, file: Path) -> None:
    assert "Nobody is enrolled in this database. Is it the one you mean?" in faceward.succeeds("backup", file).stderr


def test_the_reports_as_json(faceward: CommandLine, backed_up: Path) -> None:
    report = faceward.succeeds("backup", backed_up, "--replace", "--no-check", "--json").json
    assert (report["file"], report["bytes"]) == (str(backed_up), backed_up.stat().st_size)
    assert (report["checked"], len(report["sha256"])) == (False, 64)
    restored = faceward.succeeds("restore", backed_up, "--replace", "--json").json
    assert (restored["rows"]["public.persons"], restored["version"]) == (1, HEAD)


def test_a_file_that_is_there_is_kept(faceward: CommandLine, file: Path) -> None:
    file.write_text("mine")
    assert f"{file}: It exists already. Name another file, or say --replace." in faceward.fails("backup", file)
    assert file.read_text() == "mine"


def test_a_folder_that_is_not_there(faceward: CommandLine, tmp_path: Path) -> None:
    assert "No such file or directory" in faceward.fails("backup", tmp_path / "nowhere" / "faces.backup")
    assert "No such file or directory" in faceward.fails("restore", tmp_path / "nowhere")


def test_a_folder_that_may_not_be_written(faceward: CommandLine, tmp_path: Path) -> None:
    place = Path("/sys")  # where root may not write either
    if os.geteuid() != 0:
        place = tmp_path / "locked"
        place.mkdir(mode=0o555)
    assert f"{place / 'faces.backup.part'}: Permission denied" in faceward.fails("backup", place / "faces.backup")


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n" + bytes(5000)])
def test_a_file_that_is_no_backup(faceward: CommandLine, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert "no backup, or a damaged one" in faceward.fails("restore", file)


def test_a_backup_that_was_cut_off(faceward: CommandLine, backed_up: Path, database_url: str) -> None:
    os.truncate(backed_up, backed_up.stat().st_size * 3 // 4)
    assert "no backup, or a damaged one" in faceward.fails("restore", backed_up, "--replace")
    assert people(database_url) == ["Joe"]


def test_no_room_for_the_file(faceward: CommandLine, filled: None, file: Path) -> None:
    """A limit of the process stands for the disk's end: it meets pg_dump in the same call."""
    code = "from faceward.cli import main; main()"
    command = [sys.executable, "-c", code, "--config", str(faceward.config), "backup", str(file)]
    limited = ["bash", "-c", 'ulimit -f 8; trap "" XFSZ; exec "$@"', "bash", *command]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "The backup could not be written" in done.stderr
    assert list(file.parent.glob("faces*")) == []


def test_programs_that_are_older_than_the_server(faceward: CommandLine, file: Path, tmp_path: Path) -> None:
    """Those on the PATH are passed over for faceward's own."""
    for name in ("pg_dump", "pg_restore", "psql"):
        (tmp_path / name).write_text('#!/bin/sh\necho "pg_dump (PostgreSQL) 14.9"\n')
        (tmp_path / name).chmod(0o755)
    with faceward.program("backup", file, "--no-check", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}) as program:
        _, told = program.communicate(timeout=60)
    assert program.returncode == 0, told
    assert file.read_bytes()[:5] == b"PGDMP"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name)
def test_an_interrupted_backup_leaves_nothing(
    faceward: CommandLine, file: Path, in_the_way: Any, sent: signal.Signals
) -> None:
    # A shell that runs the tests in the background has its children ignore SIGINT.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with faceward.program("backup", file, "--no-check", **heard) as program:
        children = waiting_at_a_lock(program, "pg_dump", in_the_way)
        program.send_signal(sent)
        _, told = program.communicate(timeout=60)
    assert (program.returncode, told) == (130, "Stopped.\n")
    assert not any(child.is_running() for child in children)
    assert list(file.parent.glob("faces*")) == []


def test_an_interrupted_restore_changes_nothing(faceward: CommandLine, backed_up: Path, database_url: str) -> None:
    with psycopg.connect(database_url) as other:
        other.execute("SELECT count(*) FROM persons")
        with faceward.program("restore", backed_up, "--replace") as program:
            children = waiting_at_a_lock(program, "psql", other)
            program.send_signal(signal.SIGTERM)
            _, told = program.communicate(timeout=60)
    assert (program.returncode, told) == (130, "Stopped.\n")
    assert not any(child.is_running() for child in children)
    assert people(database_url) == ["Joe"]


def test_after_a_killed_backup_the_next_one_waits_for_what_is_left_of_it(
    faceward: CommandLine, file: Path, in_the_way: Any
) -> None:
    with faceward.program("backup", file, "--no-check") as program:
        (left,) = waiting_at_a_lock(program, "pg_dump", in_the_way)
        program.kill()
        program.communicate(timeout=60)
    assert "Another backup is being written" in faceward.fails("backup", file, "--no-check")
    in_the_way.rollback()
    psutil.wait_procs([left], timeout=60)
    faceward.succeeds("backup", file, "--no-check")
    assert [path.name for path in file.parent.glob("faces*")] == ["faces.backup"]


def waiting_at_a_lock(program: subprocess.Popen[str], name: str, other: Any) -> list[psutil.Process]:
    """The programs of PostgreSQL that it has started, once the named one waits for the other transaction."""
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'persons'::regclass"
    at_last(lambda: bool(other.execute(waits).fetchone()[0]))
    children = psutil.Process(program.pid).children(recursive=True)
    assert name in {child.name() for child in children}
    return children
