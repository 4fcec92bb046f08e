"""`faceward import-sqlite`: files of older systems, with their faults, into a real database by the real command."""

from __future__ import annotations

import json
import os
import pickle
import random
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from old_systems import ENCODINGS, LAYOUTS, MakesAFile, Planted, write_layout, write_people

import faceward
from faceward.service import FaceService
from synthetic import unit

COMMAND = [sys.executable, "-c", "from faceward.cli import main; main()"]
RAW = ENCODINGS["float32"]
MANY = 50_000

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def arguments(config: Path) -> list[str]:
    return [*COMMAND, "--config", str(config), "import-sqlite"]


@pytest.fixture
def run(arguments: list[str]) -> Run:
    """Runs the command with --json."""

    def start(*given: object) -> subprocess.CompletedProcess[str]:
        command = [*arguments, "--json", *map(str, given)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    return start


@pytest.fixture
def report(run: Run) -> Callable[..., dict[str, Any]]:
    """Runs the command; checks that every row is accounted for."""

    def start(*given: object) -> dict[str, Any]:
        done = run(*given)
        account: dict[str, Any] = json.loads(done.stdout)
        refused = 0
        for kind in ("persons", "faces"):
            each = account[kind]
            refused += sum(each["refused"].values())
            assert each["read"] == each["imported"] + each["present"] + sum(each["refused"].values())
        assert done.returncode == (1 if refused else 0)
        return account

    return start


@pytest.fixture
def service(config: Path) -> Iterator[FaceService]:
    with faceward.open_service(config=config) as service:
        yield service


def counts(account: dict[str, Any], kind: str) -> tuple[int, int, int]:
    return account[kind]["read"], account[kind]["imported"], account[kind]["present"]


@pytest.mark.parametrize(
    ("layout", "encoding"),
    [(layout, "float32") for layout in LAYOUTS] + [(next(iter(LAYOUTS)), each) for each in list(ENCODINGS)[1:]],
)
def test_each_layout_and_encoding_is_imported_and_found(
    layout: str, encoding: str, tmp_path: Path, config: Path, service: FaceService
) -> None:
    from faceward.importers import RegionAssignment, SourceImport, SqliteSource, parse_mappings, plan_import, run_import

    old = tmp_path / "old.db"
    mappings = write_layout(old, layout, encoding)
    before = old.read_bytes(), sorted(tmp_path.iterdir())
    with SqliteSource(old, parse_mappings(mappings)) as source:
        wanted = SourceImport(RegionAssignment("A", by_name={"Person 2": "B"}), client_id="acme", same_model=True)
        plan = plan_import(wanted, source, service.dimension)
        account = run_import(wanted, source, service)
        again = run_import(wanted, source, service)
    assert (plan.persons, plan.faces) == (account.persons, account.faces)
    assert (account.persons.read, account.persons.imported) == (3, 3)
    assert (account.faces.read, account.faces.imported) == (4, 4)
    assert (again.persons.imported, again.persons.present, again.faces.present) == (0, 3, 4)
    assert account.encodings == {encoding: 4}
    assert account.regions == {"A": 2, "B": 1}
    for seed, person, region, elsewhere in ((1, 1, "A", "B"), (101, 1, "A", "B"), (2, 2, "B", "A"), (3, 3, "A", "B")):
        (found,) = service.search(unit(seed), region=region, client_id="acme")
        assert (found.name, found.external_id) == (f"Person {person}", f"sqlite:{person}")
        assert found.similarity > 0.999
        assert service.search(unit(seed), region=elsewhere, client_id="acme") == ()
    assert (old.read_bytes(), sorted(tmp_path.iterdir())) == before


def test_the_report_counts_what_was_planted(
    tmp_path: Path, report: Callable[..., dict[str, Any]], service: FaceService
) -> None:
    old, regions = tmp_path / "old.db", tmp_path / "regions.csv"
    people: list[tuple[object, object]] = [(number, f"Person {number}") for number in range(40)]
    people += [(40, "Person 1"), (41, "  Trimmed "), (42, None), (43, "two\nlines"), (44, ""), (None, "No id")]
    people += [(45, "Only bad faces"), (46, "No faces"), (7, "Id taken"), (47, "Nobody's region"), (48, "Nor this")]
    faces: list[tuple[object, object]] = [(number, RAW(unit(number))) for number in range(42)]
    faces += [(number, RAW(unit(number))) for number in (3, 4)]  # duplicates
    faces += [
        (42, RAW(unit(42))),
        (43, RAW(unit(43))),
        (47, RAW(unit(47))),
        (48, RAW(unit(48))),
    ]  # their persons are refused
    faces += [(None, RAW(unit(1))), (999, RAW(unit(1))), ("x", RAW(unit(1)))]  # orphans
    planted = tmp_path / "planted"
    bad = [b"\x00\x01\x02", None, "[1, 2", np.full(512, np.nan, "f4").tobytes(), bytes(2048), "no base64!"]
    bad += [pickle.dumps(MakesAFile(planted)), pickle.dumps({"a": 1}), pickle.dumps(np.array([MakesAFile(planted)]))]
    faces += [(5, value) for value in bad] + [(45, b"???")]
    faces += [(6, RAW(unit(1)[:128])), (6, ENCODINGS["pickle"](np.ones(128)))]  # of another model's length
    write_people(old, people, faces)
    regions.write_text(
        "id,name,region\n"
        + "".join(f"{number},,{'A' if number < 20 else 'B'}\n" for number in range(46))
        + ",No faces,B\n"
    )
    given = (old, "--regions", regions, "--same-model")
    for account in (report(*given, "--dry-run"), report(*given)):
        assert counts(account, "persons") == (51, 41, 0)
        assert account["persons"]["refused"] == {
            "invalid": 3, "no_id": 1, "no_face": 2, "duplicate_id": 2, "no_region": 2,
        }  # fmt: skip
        assert counts(account, "faces") == (len(faces), 41, 0)
        assert account["faces"]["refused"] == {
            "duplicate": 2, "person_refused": 5, "orphan": 3, "unreadable": len(bad) + 1, "other_length": 2,
        }  # fmt: skip
        assert account["regions"] == {"A": 19, "B": 22}
        assert account["dimensions"] == {"128": 2, "512": 41}
        assert account["unmapped"] == ["47: Nobody's region", "48: Nor this"]
        assert account["same_name"] == {"Person 1": 2}
        rows = {problem["row"] for problem in account["problems"] if problem["code"] == "unreadable"}
        assert rows == set(range(52, 52 + len(bad) + 1))
    assert not planted.exists()
    again = report(*given)
    assert counts(again, "persons") == (51, 0, 41)
    assert counts(again, "faces") == (len(faces), 0, 41)
    with_default = report(*given, "--default-region", "C")
    assert counts(with_default, "persons") == (51, 2, 41)
    (found,) = service.search(unit(47), region="C")
    assert found.name == "Nobody's region"


def test_killed_at_ten_random_points_fifty_thousand_people_arrive_once(
    tmp_path: Path,
    arguments: list[str],
    report: Callable[..., dict[str, Any]],
    database_url: str,
    service: FaceService,
) -> None:
    """With every defect among them, in every encoding; and however large the file is, the same memory is enough."""
    planted = Planted.write(tmp_path, MANY)
    imported = planted.imported
    given = [str(planted.path), "--regions", str(planted.regions), "--same-model"]
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")  # shown where the test fails
    chance = random.Random(seed)
    with psycopg.connect(database_url, autocommit=True) as database:
        database.execute("DROP INDEX idx_embedding_hnsw")  # no test of the index, and its upkeep takes minutes
        for target in sorted(chance.randrange(1, MANY * 3 // 4) for _ in range(10)):
            with subprocess.Popen(
                [*arguments, *given], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as process:
                while stored(database) < target and process.poll() is None:
                    time.sleep(0.01)
                time.sleep(chance.random() / 20)
                process.send_signal(signal.SIGKILL)
        there = stored(database)
        assert 0 < there < len(imported)
        for before in (there, len(imported)):
            account = report(*given)
            assert counts(account, "persons") == (MANY + planted.each, len(imported) - before, before)
            assert counts(account, "faces")[1:] == (len(imported) - before, before)
            assert account["persons"]["refused"] == planted.persons_refused
            assert account["faces"]["refused"] == planted.faces_refused
        assert not planted.would_make.exists()
        rows = database.execute(
            "SELECT external_id, count(*), min(name), min(p.region), min(md5(vector_send(embedding))) FROM persons p "
            "JOIN face_encodings f ON f.person_id = p.id GROUP BY external_id"
        ).fetchall()
    assert {row[:4] for row in rows} == {(f"sqlite:{n}", 1, f"Person {n}", planted.region(n)) for n in imported}
    assert len({row[4] for row in rows}) == len(imported)
    for n in imported[:: len(imported) // 12]:
        for region in range(3):
            found = service.search(planted.vectors[n], region=f"Region {region}", threshold=0.9)
            assert [each.external_id for each in found] == (
                [f"sqlite:{n}"] if planted.region(n).endswith(str(region)) else []
            )


def test_memory_does_not_grow_with_the_file(tmp_path: Path, arguments: list[str]) -> None:
    peaks = []
    for faces in (100, 20_000):
        old = tmp_path / f"{faces}.db"
        vector = RAW(unit(1)) * 2  # as long as float64
        write_people(old, ((n, f"P {n}") for n in range(faces)), ((n, vector) for n in range(faces)))
        given = [str(old), "--region", "A", "--same-model", "--dry-run"]
        with subprocess.Popen([*arguments, *given], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            _, _, used = os.wait4(process.pid, 0)
            process.returncode = 0
        peaks.append(used.ru_maxrss * 1024)
    assert old.stat().st_size > 80_000_000
    assert peaks[1] - peaks[0] < 30_000_000


def stored(database: psycopg.Connection) -> int:
    """How many persons there are."""
    row = database.execute("SELECT count(*) FROM persons").fetchone()
    assert row is not None
    return int(row[0])


def test_an_interrupt_ends_with_a_line_and_what_is_done_is_kept(
    tmp_path: Path, arguments: list[str], database_url: str
) -> None:
    old = tmp_path / "old.db"
    write_people(old, ((n, f"P {n}") for n in range(20_000)), ((n, RAW(unit(n % 50))) for n in range(20_000)))
    command = [*arguments, str(old), "--region", "A", "--same-model"]
    with psycopg.connect(database_url, autocommit=True) as database:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            while not stored(database) and process.poll() is None:
                time.sleep(0.001)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert 0 < stored(database) < 20_000
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "Stopped." in errors


def make_locked(path: Path) -> sqlite3.Connection:
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    return writer


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't be read: No such file"),
        (b"", "is empty"),
        (b"GIF89a" + bytes(100), "is not an SQLite 3 database"),
        (b"SQLite format 3\x00" + b"\xaa" * 4096, "can't be read as an SQLite database"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, run: Run, content: bytes | None, message: str) -> None:
    old = tmp_path / "old.db"
    if content is not None:
        old.write_bytes(content)
    done = run(old, "--region", "A", "--dry-run")
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def in_process(path: Path) -> None:
    from faceward.importers import SqliteSource

    with SqliteSource(path):
        pass


def test_a_database_without_tables_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "old.db")) as old:
        old.execute("CREATE TABLE t (a)")
        old.execute("DROP TABLE t")
    with pytest.raises(faceward.errors.ImportSourceError, match="without tables"):
        in_process(tmp_path / "old.db")


def test_a_locked_file_is_refused(tmp_path: Path, run: Run) -> None:
    old = tmp_path / "old.db"
    write_people(old, [(1, "A")], [])
    with closing(make_locked(old)):
        done = run(old, "--region", "A", "--dry-run")
    assert done.returncode == 1
    assert "is locked: another program is writing it" in done.stderr


def test_a_write_ahead_log_is_not_overlooked(tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    write_people(old, [(1, "A")], [])
    with closing(sqlite3.connect(old)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("INSERT INTO persons VALUES (2, 'B')")
        writer.commit()
        with pytest.raises(faceward.errors.ImportSourceError, match=r"changes that are not in old\.db yet"):
            in_process(old)


def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        old = tmp_path  # root may read every file, but no directory as one
    else:
        old = tmp_path / "old.db"
        write_people(old, [(1, "A")], [])
        old.chmod(0)
    with pytest.raises(faceward.errors.ImportSourceError, match=r"can't be read: (Permission denied|Is a directory)"):
        in_process(old)


def test_an_unknown_layout_lists_what_there_is(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "old.db")) as old:
        old.execute("CREATE TABLE things (a, b)")
    with pytest.raises(faceward.errors.ImportSourceError, match=r"things \(a, b\).*--map persons.name="):
        in_process(tmp_path / "old.db")


@pytest.mark.parametrize("mapping", ["persons.name", "persons.age=a.b", "persons.name=nowhere.name"])
def test_a_wrong_mapping_is_refused(tmp_path: Path, run: Run, mapping: str) -> None:
    write_people(tmp_path / "old.db", [(1, "A")], [])
    done = run(tmp_path / "old.db", "--region", "A", "--map", mapping, "--dry-run")
    assert done.returncode == 1
    assert f"--map {mapping}" in done.stderr


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("who,where\n1,A\n", "must name the columns"),
        ("id,region\n1,A\n1,B\n", "line 3: '1' has the region 'A' above"),
        ("id,region\n1,\n", "line 2: region"),
        ("name,region\n,A\n", "line 2: names nobody"),
    ],
)
def test_a_wrong_table_of_regions_is_refused(tmp_path: Path, table: str, message: str) -> None:
    from faceward.importers import RegionAssignment

    regions = tmp_path / "regions.csv"
    regions.write_text(table)
    with pytest.raises(faceward.errors.ImportSourceError, match=message):
        RegionAssignment.build(None, regions, None)


@pytest.mark.parametrize("given", [[], ["--region", "A", "--regions", "regions.csv"]])
def test_one_way_of_naming_regions_is_needed(tmp_path: Path, run: Run, given: list[str]) -> None:
    write_people(tmp_path / "old.db", [(1, "A")], [])
    done = run(tmp_path / "old.db", "--dry-run", *given)
    assert done.returncode == 1
    assert "Say where the people belong" in done.stderr


def test_embeddings_are_not_taken_on_trust(tmp_path: Path, run: Run) -> None:
    write_people(tmp_path / "old.db", [(1, "A")], [(1, RAW(unit(1)))])
    done = run(tmp_path / "old.db", "--region", "A")
    assert done.returncode == 1
    assert "--same-model" in done.stderr
    assert "--re-embed" in done.stderr


def test_embeddings_of_another_model_are_found_out_and_made_anew(
    tmp_path: Path, run: Run, report: Callable[..., dict[str, Any]], service: FaceService, photos: dict[str, Path]
) -> None:
    old = tmp_path / "old.db"
    names = sorted(photos)[:3]
    usable = {}
    for name in names:
        try:
            (usable[name],) = service.faces_to_store(photos[name])
        except faceward.errors.InputError:
            continue
    assert usable
    write_people(old, enumerate(usable), ((n, RAW(unit(n))) for n in range(len(usable))))
    with closing(sqlite3.connect(old)) as writer, writer:
        for n, name in enumerate(usable):
            image = str(photos[name]) if n == 0 else photos[name].read_bytes()
            writer.execute("UPDATE face_encodings SET image = ? WHERE person_id = ?", (image, n))
    done = run(old, "--region", "A", "--same-model")
    assert done.returncode == 1
    assert "are not of the model in use" in done.stderr
    assert service.list_regions().regions == ()
    account = report(old, "--region", "A", "--re-embed")
    assert counts(account, "faces") == (len(usable), len(usable), 0)
    assert counts(report(old, "--region", "A", "--re-embed"), "faces") == (len(usable), 0, len(usable))
    for n, face in enumerate(usable.values()):
        found = service.search(face.embedding, region="A")[0]
        assert found.external_id == f"sqlite:{n}"
    with closing(sqlite3.connect(old)) as writer, writer:
        for n, face in enumerate(usable.values()):
            writer.execute("UPDATE face_encodings SET embedding = ? WHERE person_id = ?", (RAW(face.embedding), n))
    kept = report(old, "--region", "B", "--same-model")
    assert (kept["compared"], kept["agreed"]) == (len(usable), len(usable))
    assert counts(kept, "faces") == (len(usable), len(usable), 0)
