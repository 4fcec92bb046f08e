"""Each import at the command line: a wrong, locked, empty or forbidden source, a full disk, an interrupt."""

from __future__ import annotations

import base64
import os
import re
import resource
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psycopg
import pytest
from command_line import CommandLine

COMPREFACE = """
CREATE TABLE model (name text, api_key text); CREATE TABLE subject (id uuid, api_key text, subject_name text);
CREATE TABLE img (id uuid, content bytea);
CREATE TABLE embedding (id uuid, subject_id uuid, embedding float8[], calculator text, img_id uuid);
"""
DEEPFACE = "CREATE TABLE embeddings (id bigserial, img_name text, model_name text, embedding float8[])"
PEOPLE = 12_000
_ANYBODY = (
    f"(ARRAY[n::float8] || ARRAY(SELECT sin(i) FROM generate_series(1, 511) i)) FROM generate_series(1, {PEOPLE}) n"
)
FILLED = {
    "import-compreface": (
        "INSERT INTO subject SELECT lpad(n::text, 32, '0')::uuid, 'key', 'Person ' || n "
        f"FROM generate_series(1, {PEOPLE}) n",
        "INSERT INTO embedding (id, subject_id, calculator, embedding) "
        f"SELECT lpad(n::text, 32, '0')::uuid, lpad(n::text, 32, '0')::uuid, 'c', {_ANYBODY}",
    ),
    "import-deepface": (
        f"INSERT INTO embeddings (img_name, model_name, embedding) SELECT 'Person ' || n, 'm', {_ANYBODY}",
    ),
}
"""PEOPLE in each system's tables."""
DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def other(new_database: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """The URL of another system's database, without tables."""
    with new_database() as url:
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        yield url


def run_sql(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def write_sqlite(path: Path, people: int = 3) -> Path:
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("CREATE TABLE persons (id INTEGER PRIMARY KEY, name TEXT)")
        old.execute("CREATE TABLE faces (person_id INTEGER, embedding BLOB)")
        old.executemany("INSERT INTO persons VALUES (?, ?)", ((n, f"Person {n}") for n in range(people)))
        old.executemany("INSERT INTO faces VALUES (?, ?)", ((n, embedding(n)) for n in range(people)))
    return path


def embedding(seed: int) -> bytes:
    return np.random.default_rng(seed).standard_normal(512).astype("f4").tobytes()


def write_csv(path: Path, people: int = 3) -> Path:
    lines = (f"{n},Person {n},A,{base64.b64encode(embedding(n)).decode()}\n" for n in range(people))
    path.write_text("id,name,region,embedding\n" + "".join(lines))
    return path


ALL = ("--region", "A", "--same-model")
WHOM: dict[str, tuple[str, ...]] = {
    "import-sqlite": ALL,
    "import-csv": ("--same-model",),
    "import-dir": (),
    "import-compreface": ALL,
    "import-deepface": ALL,
}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("import-sqlite", "is not an SQLite 3 database"),
        ("import-csv", "no column is known for external_id, name, embedding or photo"),
        ("import-dir", "Not a directory"),
        ("import-compreface", "must be a URL"),
        ("import-deepface", "must be a URL"),
    ],
)
def test_a_wrong_file_is_told(faceward: CommandLine, photos: dict[str, Path], command: str, said: str) -> None:
    assert said in faceward.fails(command, photos["obama.jpg"], *WHOM[command])


@pytest.mark.parametrize(
    ("command", "said"), [("import-compreface", "no table subject"), ("import-deepface", "no table has")]
)
def test_a_database_of_something_else_is_told(faceward: CommandLine, other: str, command: str, said: str) -> None:
    assert said in faceward.fails(command, other, *WHOM[command])


@pytest.mark.parametrize("command", ["import-compreface", "import-deepface"])
def test_a_locked_source_is_told(faceward: CommandLine, other: str, command: str) -> None:
    """import-sqlite has a test of its own, by a process of its own; files and folders have no lock that writers take."""
    run_sql(other, COMPREFACE, DEEPFACE)
    with psycopg.connect(other) as writer:
        writer.execute("LOCK TABLE embedding, embeddings IN ACCESS EXCLUSIVE MODE")
        assert "is locked: another session is changing" in faceward.fails(command, other, *WHOM[command])


def test_an_empty_source_is_told(faceward: CommandLine, other: str, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert "is empty" in faceward.fails("import-sqlite", empty, "--region", "A")
    assert "is empty" in faceward.fails("import-csv", empty, "--region", "A")
    assert "holds no photo to enroll" in faceward.fails("import-dir", tmp_path)
    run_sql(other, COMPREFACE, DEEPFACE)
    for command in ("import-compreface", "import-deepface"):
        account = faceward.succeeds(command, other, *WHOM[command], "--dry-run", "--json").json
        assert (account["persons"]["read"], account["faces"]["read"]) == (0, 0)


def test_a_forbidden_source_is_told(faceward: CommandLine, other: str, tmp_path: Path) -> None:
    forbidden = tmp_path / "forbidden"
    if os.geteuid() == 0:
        forbidden.mkdir()  # root may read every file, but no directory as one
        said = "can't be read: Is a directory"
    else:
        forbidden.touch()
        forbidden.chmod(0)
        said = "can't be read: Permission denied"
    assert said in faceward.fails("import-sqlite", forbidden, "--region", "A")
    assert said in faceward.fails("import-csv", forbidden, "--region", "A")
    run_sql(
        other, COMPREFACE, DEEPFACE, "DROP ROLE IF EXISTS onlooker", "CREATE ROLE onlooker LOGIN PASSWORD 'onlooker'",
        "GRANT USAGE ON SCHEMA public TO onlooker",
    )  # fmt: skip
    parts = psycopg.conninfo.conninfo_to_dict(other)
    url = f"postgresql://onlooker:onlooker@/{parts['dbname']}?host={parts['host']}"
    for command in ("import-compreface", "import-deepface"):
        line = faceward.fails(command, url, *WHOM[command])
        assert "permission denied for table" in line
        assert ":onlooker" not in line


def test_a_photo_of_several_faces_is_told_with_the_option_that_helps(
    faceward: CommandLine, two_faces: Path, tmp_path: Path
) -> None:
    file = tmp_path / "people.csv"
    file.write_text(f"id,name,region,photo\n1,Joe Biden,A,{two_faces.name}\n")
    problems = faceward("import-csv", file, "--json").json["problems"]
    (told,) = [each["reason"] for each in problems if each["code"] == "several_faces"]
    assert told.endswith("Here: --largest.")


def test_a_folder_that_may_not_be_read_is_told() -> None:
    """Root may read every folder, so it is tried as nobody, and in a directory that others may enter."""
    code = "import os\nfrom faceward.cli import main\nif os.geteuid() == 0:\n    os.setuid(65534)\nmain()"
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        locked = Path(place) / "people" / "A" / "Ada"
        locked.mkdir(parents=True)
        locked.chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", code, "import-dir", "people"], cwd=place, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        locked.chmod(0o755)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: people/A/Ada: Permission denied.\n"


@pytest.mark.parametrize("command", WHOM)
def test_a_server_without_room_is_told(
    faceward: CommandLine, other: str, database_url: str, tmp_path: Path, photos: dict[str, Path], command: str
) -> None:
    """The gallery's server answers with what PostgreSQL says when its disk is full."""
    run_sql(
        database_url,
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION "
        "'could not extend file \"base/1/2\": No space left on device' USING ERRCODE = '53100'; END $$",
        "CREATE TRIGGER full_disk BEFORE INSERT ON persons EXECUTE FUNCTION full_disk()",
    )
    run_sql(other, COMPREFACE, DEEPFACE)
    numbers = str(np.frombuffer(embedding(1), "f4").tolist())
    subject = uuid.uuid4()
    source: Any = other
    if command == "import-sqlite":
        source = write_sqlite(tmp_path / "old.db")
    elif command == "import-csv":
        source = write_csv(tmp_path / "people.csv")
    elif command == "import-dir":
        source = tmp_path / "people"
        (source / "A" / "Barack").mkdir(parents=True)
        shutil.copy(photos["obama.jpg"], source / "A" / "Barack")
    elif command == "import-compreface":
        run_sql(
            other,
            f"INSERT INTO subject VALUES ('{subject}', 'key', 'Ada')",
            f"INSERT INTO embedding VALUES ('{uuid.uuid4()}', '{subject}', ARRAY{numbers}, 'c', NULL)",
        )
    else:
        run_sql(other, f"INSERT INTO embeddings (img_name, model_name, embedding) VALUES ('Ada', 'm', ARRAY{numbers})")
    answer = faceward(command, source, *WHOM[command])
    assert (answer.status, answer.stdout) == (1, "")
    assert "The database server is out of room" in answer.stderr
    assert "Nothing was stored" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("command", ["import-sqlite", "import-dir"])
def test_a_server_that_is_full_in_the_middle_is_told_with_what_is_stored_by_then(
    faceward: CommandLine,
    database_url: str,
    tmp_path: Path,
    photos: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    """The error is of one transaction, of which nothing was stored; the people before it are."""
    if command == "import-sqlite":
        monkeypatch.setattr("faceward.bulk_import._BATCH_FACES", 100)
        source, last = write_sqlite(tmp_path / "old.db", 250), "Person 99"  # the last one by id, which is a text
        told = "At least 200 people were imported by this run."
    else:
        monkeypatch.setattr("faceward.photo_import._FIRST_BATCH", 1)
        source, last = tmp_path / "people", "Joe"
        told = "1 of 2 photos were enrolled, 0 had been already."
        for name, photo in (("Barack", "obama.jpg"), ("Joe", "biden.jpg")):
            (source / "A" / name).mkdir(parents=True)
            shutil.copy(photos[photo], source / "A" / name)
    run_sql(
        database_url,
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION "
        "'could not extend file \"base/1/2\": No space left on device' USING ERRCODE = '53100'; END $$",
        f"CREATE TRIGGER full_disk BEFORE INSERT ON persons FOR EACH ROW WHEN (NEW.name = '{last}') "
        "EXECUTE FUNCTION full_disk()",
    )
    answer = faceward(command, source, *WHOM[command])
    assert (answer.status, answer.stdout) == (1, "")
    (error,) = (line for line in answer.stderr.splitlines() if line.startswith("Error: "))
    assert "No space left on device. Nothing more was stored; free space" in error
    assert error.endswith(f"{told} What is imported is kept; the same command goes on from there.")
    run_sql(database_url, "DROP TRIGGER full_disk ON persons")
    faceward.succeeds(command, source, *WHOM[command])


def test_a_disk_without_room_for_putting_a_csv_in_order_is_told(faceward: CommandLine, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "people.csv", 5_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))  # Python ignores the signal, and sees the error
    try:
        line = faceward.fails("import-csv", file, "--same-model", "--dry-run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "could not be put in order in a temporary file" in line
    assert "SQLITE_TMPDIR" in line


@pytest.mark.parametrize("command", ["import-csv", "import-compreface", "import-deepface"])
def test_an_interrupt_keeps_what_is_done_and_the_next_run_goes_on(
    faceward: CommandLine, other: str, database_url: str, tmp_path: Path, command: str
) -> None:
    """import-sqlite and import-dir are interrupted in tests of their own."""
    if command == "import-csv":
        source: Any = write_csv(tmp_path / "people.csv", PEOPLE)
    else:
        source = other
        run_sql(other, COMPREFACE if command == "import-compreface" else DEEPFACE, *FILLED[command])
    with psycopg.connect(database_url, autocommit=True) as gallery:
        gallery.execute("DROP INDEX idx_embedding_hnsw")
        running = faceward.program(command, source, *WHOM[command])
        while not gallery.execute("SELECT 1 FROM face_encodings LIMIT 1").fetchone():
            assert running.poll() is None, running.communicate()
            time.sleep(0.001)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
        assert running.returncode == 130, said
        assert re.search(r"What is imported is kept.*\n.*Stopped\.", said)
        assert "Traceback" not in said
        (there,) = gallery.execute("SELECT count(*) FROM face_encodings").fetchone() or (None,)
    assert 0 < there < PEOPLE
    account = faceward.succeeds(command, source, *WHOM[command], "--json").json
    assert (account["faces"]["imported"], account["faces"]["present"]) == (PEOPLE - there, there)


def test_a_password_in_the_url_is_never_shown(faceward: CommandLine) -> None:
    for command in ("import-compreface", "import-deepface"):
        line = faceward.fails(command, "postgresql://me:sEcReT@127.0.0.1:1/x", "--region", "A", "--same-model")
        assert "127.0.0.1:1/x can't be read" in line
        assert "sEcReT" not in line


def test_a_report_for_people_has_tables(faceward: CommandLine, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "people.csv")
    with file.open("a") as stream:
        stream.write("9,Nobody,A,no base64!\n")
    answer = faceward("import-csv", file, "--same-model", "--dry-run")
    assert answer.status == 1
    for said in ("persons.external_id", "would be imported", "base64 of float32: 3", "unreadable: The text is neither"):
        assert said.removeprefix("persons.") in answer.stdout


def test_a_dry_run_says_which_model_it_expects(faceward: CommandLine, tmp_path: Path) -> None:
    """It asks no gallery, and after a change of the model that of the settings need not be the gallery's."""
    file = write_csv(tmp_path / "people.csv")
    pack = next(each for each in faceward.succeeds("models", "list", "--json").json if each["in_use"])
    said = faceward.succeeds("import-csv", file, "--same-model", "--dry-run").stderr
    assert re.search(
        rf"^Checked for {pack['name']}:\S+, the model of the settings: 512 numbers an embedding\.", said, re.M
    )
    assert "Checked for" not in faceward.succeeds("import-csv", file, "--same-model").stderr
    assert "Checked for" not in faceward("import-csv", file, "--re-embed", "--dry-run").stderr


def test_after_a_change_of_the_model_embeddings_are_taken_of_a_named_model_only(
    faceward: CommandLine, database_url: str, tmp_path: Path
) -> None:
    """A command that was written down before it would fill the gallery with embeddings that fit nobody."""
    file = write_csv(tmp_path / "people.csv")
    faceward.succeeds("import-csv", write_csv(tmp_path / "first.csv", 1), "--same-model")
    with psycopg.connect(database_url, autocommit=True) as gallery:
        (model_id,) = gallery.execute("SELECT model_id FROM embedding_models").fetchone() or (None,)
        gallery.execute(
            "INSERT INTO reembeddings (client_id, model_from, model_to, state, cut_over_at) "
            "VALUES ('default', 'before:1', %s, 'finished', now())",
            (model_id,),
        )
    line = faceward.fails("import-csv", file, "--same-model")
    assert f"was changed once; it is {model_id} now" in line
    assert f"--same-model --model-id {model_id}." in line
    for dry_run in ((), ("--dry-run",)):
        line = faceward.fails("import-csv", file, "--same-model", "--model-id", "before:1", *dry_run)
        assert f"made by the model before:1; the one in use is {model_id}" in line
    account = faceward.succeeds("import-csv", file, "--same-model", "--model-id", model_id, "--json").json
    assert account["persons"]["imported"] == 2
    assert "say both" in faceward("import-csv", file, "--re-embed", "--model-id", model_id).stderr


def test_a_change_of_the_model_in_the_middle_of_an_import_is_told(
    faceward: CommandLine, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL refuses embeddings of the model before; the same command must not be advised."""
    monkeypatch.setattr("faceward.bulk_import._BATCH_FACES", 100)
    run_sql(
        database_url,
        "CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION "
        "'of another model' USING ERRCODE = '23514', CONSTRAINT = 'ck_face_model'; END $$",
        "CREATE TRIGGER changed BEFORE INSERT ON persons FOR EACH ROW WHEN (NEW.name = 'Person 99') "
        "EXECUTE FUNCTION changed()",
    )
    said = faceward.fails("import-sqlite", write_sqlite(tmp_path / "old.db", 250), *ALL)
    assert (
        "At least 200 people were imported by this run. What is imported is kept. The rest has to be made anew" in said
    )
    assert "the same command" not in said


def test_photos_and_embeddings_are_one_or_the_other(faceward: CommandLine, tmp_path: Path, save_photo: Any) -> None:
    file = tmp_path / "people.csv"
    save_photo("grey.png", np.full((400, 400, 3), 128, np.uint8))
    file.write_text("id,name,photo\n1,Ada,grey.png\n")
    assert cv2.imread(str(tmp_path / "grey.png")) is not None
    assert "holds no embeddings" in faceward.fails("import-csv", file, "--region", "A", "--same-model")
    answer = faceward("import-csv", file, "--region", "A", "--json")
    assert answer.json["faces"]["refused"] == {"no_face": 1}


@pytest.mark.parametrize("document", ["importing.md", "migrating-from-sqlite.md"])
def test_the_commands_of_the_documents_run(
    faceward: CommandLine, tmp_path: Path, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch, document: str
) -> None:
    write_csv(tmp_path / "people.csv")
    with closing(sqlite3.connect(write_sqlite(tmp_path / "old.db"))) as old, old:
        old.execute("CREATE TABLE staff (nr, full_name)")
        old.execute("CREATE TABLE vectors (staff_nr, data)")
        old.execute("INSERT INTO staff VALUES (9, 'Ada')")
        old.execute("INSERT INTO vectors VALUES (9, ?)", (embedding(9),))
    (tmp_path / "people" / "A" / "Barack").mkdir(parents=True)
    shutil.copy(photos["obama.jpg"], tmp_path / "people" / "A" / "Barack")
    monkeypatch.chdir(tmp_path)
    text = (DOCS / document).read_text(encoding="utf-8").replace("\\\n", "")
    lines = [line for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.S | re.M) for line in block.splitlines()]
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "faceward"
        faceward.succeeds(*arguments)
    assert len(lines) >= 3
