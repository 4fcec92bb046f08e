"""PostgreSQL's programs: which are taken, how they log in, what is told of their errors, and that none outlives its block."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from faceward.errors import BackupFailedError, ProgramMissingError, SettingsError
from faceward.store.database import parse_url
from faceward.store.embedded import BUNDLED_MAJOR, BUNDLED_PROGRAMS
from faceward.store.libpq import login_environment
from faceward.store.programs import NAMES, Programs, find_programs


def programs(folder: Path, version: str, script: str = "") -> Path:
    """A folder whose programs say that version."""
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && echo "{name} (PostgreSQL) {version}"\n{script}\n'
        )
        (folder / name).chmod(0o755)
    return folder


def test_the_first_that_are_new_enough_are_taken(tmp_path: Path) -> None:
    old, new = programs(tmp_path / "old", "14.9 (Debian 14.9-1)"), programs(tmp_path / "new", "17beta1")
    assert find_programs(14, [old, new]) == Programs(old, 14)
    assert find_programs(16, [old, new]) == Programs(new, 17)
    assert find_programs(18, [old, new, BUNDLED_PROGRAMS]) == Programs(BUNDLED_PROGRAMS, BUNDLED_MAJOR)


def test_those_of_the_path_are_meant_by_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs(tmp_path / "bin", "16.1")))
    assert find_programs(16, [None]) == Programs(tmp_path / "bin", 16)


def test_older_ones_are_named_with_what_installs_newer_ones(tmp_path: Path) -> None:
    old = programs(tmp_path / "old", "14.9")
    with pytest.raises(ProgramMissingError, match=rf"those found are older: 14 in {old}\. .*postgresql-client-17"):
        find_programs(17, [old])


def test_a_folder_that_lacks_one_of_them_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (programs(tmp_path / "bin", "18.0") / "psql").unlink()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(ProgramMissingError, match="none were found"):
        find_programs(18, [None, tmp_path / "bin"])


def test_a_password_is_in_the_environment_alone() -> None:
    url = parse_url("postgresql://someone:s%40cret@db.example:5433/faces?sslmode=require&keepalives_idle=9")
    environment, arguments = login_environment(url)
    assert environment == {
        "PGHOST": "db.example",
        "PGPORT": "5433",
        "PGDATABASE": "faces",
        "PGUSER": "someone",
        "PGPASSWORD": "s@cret",
        "PGSSLMODE": "require",
    }
    assert arguments == ("--dbname=keepalives_idle=9",)


def test_several_hosts_of_one_url() -> None:
    environment, _ = login_environment(parse_url("postgresql://me@/faces?host=a:5432&host=b:5433"))
    assert (environment["PGHOST"], environment["PGPORT"]) == ("a,b", "5432,5433")


def test_a_secret_that_could_only_be_an_argument_is_refused() -> None:
    with pytest.raises(SettingsError, match="sslpassword") as caught:
        login_environment(parse_url("postgresql://me@db/faces?sslpassword=s3cret"))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("pg_dump: error: connection to server failed: refused", "connection to server failed: refused"),
        ("a warning\npg_dump: error: one\npg_dump: error: two", "one"),
        (
            'psql:<stdin>:9: ERROR:  invalid input syntax for type vector: "[1,2"',
            "invalid input syntax for type vector",
        ),
        ("nothing of an error", "nothing of an error"),
        ("", "ended with 3"),
    ],
)
def test_the_first_error_is_told_and_no_value_of_a_row(tmp_path: Path, said: str, told: str) -> None:
    script = f"cat >&2 <<'END'\n{said}\nEND\nexit 3"
    found = Programs(programs(tmp_path / "bin", "18.0", script), 18)
    with pytest.raises(BackupFailedError) as caught, found.running("pg_dump", "x") as running:
        running.finish(BackupFailedError)
    assert str(caught.value).strip() == f"pg_dump: {told}" if said else f"pg_dump {told}"


def test_one_that_still_runs_is_ended_with_its_block(tmp_path: Path) -> None:
    found = Programs(programs(tmp_path / "bin", "18.0", "exec sleep 600"), 18)
    with pytest.raises(KeyboardInterrupt), found.running("psql", "x", stdin=subprocess.PIPE) as running:
        raise KeyboardInterrupt
    assert running.process.poll() is not None
