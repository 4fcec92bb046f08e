"""Unusual and hostile SQLite files: what is read of them. Whole imports are in tests/integration/test_import_sqlite.py."""

from __future__ import annotations

import _thread
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from faceward.errors import ImportSourceError
from faceward.importers import RegionAssignment, SourceImport, SqliteSource, parse_mappings, plan_import

ENDLESS = """
CREATE TABLE persons (id INTEGER PRIMARY KEY, name TEXT);
CREATE VIEW face_encodings AS WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n)
SELECT id, 1 AS person_id, x'00' AS embedding FROM n;
"""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """However the tests were started: a shell's background work ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("read", [lambda source: source.count(), lambda source: next(iter(source.faces()))])
def test_a_view_without_end_is_ended_by_an_interrupt(tmp_path: Path, read: Callable[[SqliteSource], object]) -> None:
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as written:
        written.executescript(ENDLESS)
    written.close()
    with SqliteSource(path, {}) as source:
        interrupt = threading.Timer(0.3, _thread.interrupt_main)
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            read(source)
        interrupt.join()


Written = Callable[[str], Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """An SQLite file that a script made."""

    def write(script: str) -> Path:
        path = tmp_path / "old.db"
        with closing(sqlite3.connect(path)) as old:
            old.executescript(script)
        return path

    return write


def joined(path: Path, *mappings: str) -> tuple[dict[str, int], dict[str, int], int]:
    """What a plan says of the file: faces by what became of them; persons by what became of them; faces read."""
    with SqliteSource(path, parse_mappings(mappings)) as source:
        account = plan_import(SourceImport(RegionAssignment("A"), same_model=True), source, 4)
    told = [{"imported": each.imported, **each.refused} for each in (account.faces, account.persons)]
    assert account.faces.read == sum(told[0].values())
    return told[0], told[1], account.faces.read


def vector(number: float) -> str:
    return f"'[{number}, 1, 2, 3]'"


PLAIN = (
    "CREATE TABLE persons (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO persons VALUES (1, 'A'), (2, 'B'), (3, 'C');"
)


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("last", ["", ", (9, 'Last')"], ids=["at the end", "before others"])
def test_an_id_of_several_persons_says_of_no_face_whose_it_is(written: Written, times: int, last: str) -> None:
    same = ", ".join(f"(7, 'Person {n}')" for n in range(times))
    path = written(
        f"CREATE TABLE persons (id INT, name TEXT); INSERT INTO persons VALUES (1, 'First'), {same} {last};"
        "CREATE TABLE faces (person_id INT, embedding TEXT);"
        f"INSERT INTO faces VALUES (1, {vector(1)}), (7, {vector(2)}), (7, {vector(3)});"
    )
    faces_of, persons, _ = joined(path)
    assert faces_of == {"imported": 1, "person_refused": 2}
    assert (persons["imported"], persons["duplicate_id"]) == (1, times)


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_persons_and_faces_meet_whatever_the_files_encoding(written: Written, encoding: str) -> None:
    ids = ["a", "b1", "Āx", "ß", "é2", "z", "中", "A", "€", "𝄞", "10", "9", "Zoë", "ﬀ"]
    faceless = {"b1", "€"}
    persons = ", ".join(f"('{each}', 'Person {each}')" for each in ids)
    faces = ", ".join(f"('{each}', {vector(1)})" for each in ids if each not in faceless)
    path = written(
        f"PRAGMA encoding = '{encoding}'; CREATE TABLE persons (id TEXT, name TEXT);"
        "CREATE TABLE faces (person_id TEXT, embedding TEXT);"
        f"INSERT INTO persons VALUES {persons}; INSERT INTO faces VALUES {faces};"
    )
    assert joined(path) == ({"imported": 12}, {"imported": 12, "no_face": 2}, 12)


@pytest.mark.parametrize("column", ["rowid", "_rowid_", "oid", "ROWID"])
def test_a_column_may_be_called_as_row_ids_are(written: Written, column: str) -> None:
    rows = ", ".join(f"({n}, {n % 3 + 1}, {vector(n)}, {'NULL' if n < 3 else 7})" for n in range(1, 6))
    path = written(
        f"{PLAIN} CREATE TABLE faces (id INTEGER PRIMARY KEY, person_id INT, embedding TEXT, {column} TEXT);"
        f"INSERT INTO faces VALUES {rows};"
    )
    assert joined(path) == ({"imported": 5}, {"imported": 3}, 5)


@pytest.mark.parametrize(
    "options", ["WITHOUT ROWID", "WITHOUT /* as small as can be */ ROWID", "STRICT, WITHOUT ROWID"]
)
def test_tables_without_row_ids_are_known_by_their_answer(written: Written, options: str) -> None:
    path = written(
        f"{PLAIN} CREATE TABLE faces (person_id INT, id INT, embedding TEXT, PRIMARY KEY (person_id, id)) {options};"
        f"INSERT INTO faces VALUES (1, 1, {vector(1)}), (2, 1, {vector(2)});"
    )
    assert joined(path)[0] == {"imported": 2}


def images(path: Path, *mappings: str, max_image: int = 100) -> list[bytes | None]:
    with SqliteSource(path, parse_mappings(mappings), max_image=max_image) as source:
        return [source.image(face) for face in source.faces()]


KEYED = (
    "CREATE TABLE faces (person_id INT, id INT, embedding TEXT, image BLOB, PRIMARY KEY (person_id, id)) WITHOUT ROWID;"
)


def test_an_image_is_of_its_own_face_where_faces_are_counted_for_each_person(written: Written) -> None:
    rows = ", ".join(
        f"({person}, {face}, {vector(face)}, x'{person}{face}')" for person in (1, 2, 3) for face in (1, 2)
    )
    path = written(f"{PLAIN} {KEYED} INSERT INTO faces VALUES {rows};")
    assert images(path) == [bytes.fromhex(each) for each in ("11", "12", "21", "22", "31", "32")]


def test_which_image_is_whose_is_not_guessed(written: Written) -> None:
    path = written(
        f"{PLAIN} CREATE TABLE stored (nr INT, person INT, v TEXT, photo BLOB);"
        f"INSERT INTO stored VALUES (7, 1, {vector(1)}, x'07'), (8, 1, {vector(2)}, x'08'), (9, 2, {vector(3)}, x'09');"
        "CREATE VIEW faces AS SELECT person AS person_id, nr, v AS embedding, photo AS image FROM stored;"
    )
    with pytest.raises(ImportSourceError, match=r"faces has no row ids, .*of the person 1 .*--map faces\.id=faces\."):
        images(path)
    assert images(path, "faces.id=faces.nr") == [b"\x07", b"\x08", b"\x09"]


def test_a_larger_image_than_may_be_is_not_read(written: Written) -> None:
    path = written(
        f"{PLAIN} CREATE TABLE stored (person_id INT, size INT); INSERT INTO stored VALUES (1, 100), (2, 101), (3, 900000000);"
        f"CREATE VIEW faces AS SELECT person_id, {vector(1)} AS embedding, zeroblob(size) AS image FROM stored;"
    )
    assert images(path) == [bytes(100), None, None]


def test_a_key_as_long_as_a_book_is_shown_by_its_beginning(written: Written) -> None:
    path = written(
        f"{PLAIN} CREATE TABLE faces (person_id TEXT, embedding TEXT);"
        f"INSERT INTO faces VALUES ('1', {vector(1)}), (hex(zeroblob(2000000)), {vector(2)});"
    )
    with SqliteSource(path) as source:
        account = plan_import(SourceImport(RegionAssignment("A"), same_model=True), source, 4)
    (orphan,) = [problem for problem in account.problems if problem.code == "orphan"]
    assert len(orphan.reason) < 200


def test_a_log_beside_the_file_that_a_link_leads_to_is_seen(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    with closing(sqlite3.connect(tmp_path / "real" / "old.db")) as old:
        old.execute("PRAGMA journal_mode = WAL")
        old.executescript(PLAIN)
        (tmp_path / "link.db").symlink_to("real/old.db")
        with pytest.raises(ImportSourceError, match=r"real/old\.db-wal holds changes"):
            SqliteSource(tmp_path / "link.db")


def test_a_journal_that_is_over_is_none(written: Written, tmp_path: Path) -> None:
    path = written(
        f"PRAGMA journal_mode = PERSIST; {PLAIN} CREATE TABLE faces (person_id INT, embedding TEXT);"
        f"INSERT INTO faces VALUES (1, {vector(1)});"
    )
    journal = tmp_path / "old.db-journal"
    assert journal.stat().st_size
    assert joined(path)[0] == {"imported": 1}
    journal.write_bytes(b"\xd9" + journal.read_bytes()[1:])
    with pytest.raises(ImportSourceError, match=r"old\.db-journal holds changes"):
        SqliteSource(path)


def test_a_view_that_can_not_be_read_is_passed_over(written: Written) -> None:
    path = written(
        f"{PLAIN} CREATE TABLE faces (person_id INT, embedding TEXT); INSERT INTO faces VALUES (1, {vector(1)});"
        "CREATE TABLE gone (a); CREATE VIEW stale AS SELECT a FROM gone; DROP TABLE gone;"
    )
    assert joined(path)[0] == {"imported": 1}
    with pytest.raises(ImportSourceError, match=r"stale \(unreadable: no such table: main\.gone\)"):
        SqliteSource(path, parse_mappings(["faces.embedding=stale.a"]))


def test_keys_that_a_data_frame_made_floats_of_are_the_same_persons(written: Written) -> None:
    path = written(
        f"{PLAIN} CREATE TABLE faces (person_id REAL, embedding TEXT);"
        f"INSERT INTO faces VALUES (1.0, {vector(1)}), (2.0, {vector(2)}), (2.5, {vector(3)});"
    )
    assert joined(path)[0] == {"imported": 2, "orphan": 1}


SINGLE = "CREATE TABLE people (name TEXT, emp INT, site TEXT, embedding TEXT, image BLOB);"


def test_a_table_without_a_column_of_ids_is_read_by_its_row_ids(written: Written) -> None:
    rows = ", ".join(f"('Person {n}', 7, 'A', {vector(n)}, x'0{n}')" for n in range(1, 4))
    path = written(f"{SINGLE} INSERT INTO people VALUES {rows};")
    assert joined(path) == ({"imported": 3}, {"imported": 3}, 3)
    assert images(path) == [b"\x01", b"\x02", b"\x03"]


@pytest.mark.parametrize(
    ("sites", "told"),
    [
        (["'A'", "'A'", "' A '"], {"imported": 1}),
        (["NULL", "''", "NULL"], {"imported": 1}),
        (["'B'", "'A'"], {"imported": 0, "regions_differ": 1}),
        (["NULL", "'A'"], {"imported": 0, "regions_differ": 1}),
        (["'A'", "' '"], {"imported": 0, "regions_differ": 1}),
    ],
)
def test_a_person_with_several_regions_is_in_none_of_them(
    written: Written, sites: list[str], told: dict[str, int]
) -> None:
    rows = ", ".join(f"('Ann', 1, {site}, {vector(n)}, NULL)" for n, site in enumerate(sites))
    path = written(f"{SINGLE} INSERT INTO people VALUES {rows}, ('Bob', 2, 'B', {vector(9)}, NULL);")
    found, persons, _ = joined(path, "persons.id=people.emp", "persons.region=people.site")
    assert persons == {**told, "imported": told["imported"] + 1}
    assert found.get("person_refused", 0) == (0 if told["imported"] else len(sites))


def test_a_program_that_writes_beside_the_file_is_noticed(written: Written) -> None:
    path = written(f"PRAGMA journal_mode = WAL; {PLAIN} {KEYED}")
    before = path.stat()
    with SqliteSource(path) as source, closing(sqlite3.connect(path, isolation_level=None)) as writer:
        source.check_unchanged()
        writer.execute("INSERT INTO persons VALUES (4, 'D')")
        assert (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size)
        with pytest.raises(ImportSourceError, match=r"old\.db was changed while it was read"):
            source.check_unchanged()


def test_a_generated_column_is_a_column(written: Written) -> None:
    path = written(
        "CREATE TABLE persons (id INTEGER PRIMARY KEY, first TEXT, last TEXT, name TEXT AS (first || ' ' || last));"
        "INSERT INTO persons (first, last) VALUES ('Grace', 'Hopper');"
        f"CREATE TABLE faces (person_id INT, embedding TEXT); INSERT INTO faces VALUES (1, {vector(1)});"
    )
    with SqliteSource(path) as source:
        assert [row.name for row in source.persons()] == ["Grace Hopper"]


@pytest.mark.parametrize("place", [0, 49, 50, 51, 120, 199])
def test_a_text_that_is_not_utf_8_costs_no_other_row(written: Written, place: int) -> None:
    given = ["CAST(x'ff41' AS TEXT)" if n == place else f"'Person {n}'" for n in range(200)]
    names = ", ".join(f"({n}, {name})" for n, name in enumerate(given))
    faces = ", ".join(f"({n}, {vector(n)})" for n in range(200))
    path = written(
        f"CREATE TABLE persons (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO persons VALUES {names};"
        f"CREATE TABLE faces (person_id INT, embedding TEXT); INSERT INTO faces VALUES {faces};"
    )
    with SqliteSource(path) as source:
        assert sorted(int(row.key or "") for row in source.persons()) == list(range(200))
    faces_of, persons, _ = joined(path)
    assert (faces_of, persons) == ({"imported": 199, "person_refused": 1}, {"imported": 199, "invalid": 1})


def test_names_of_columns_and_tables_that_are_not_utf_8_are_passed_over(written: Written) -> None:
    path = written(
        f"{PLAIN} CREATE TABLE faces (person_id INT, embedding TEXT, colQQQ TEXT); CREATE TABLE tabQQQ (a);"
        f"INSERT INTO faces VALUES (1, {vector(1)}, 'x');"
    )
    path.write_bytes(path.read_bytes().replace(b"colQQQ", b"col\xff\xfe\xff").replace(b"tabQQQ", b"tab\xff\xfe\xff"))
    assert joined(path)[0] == {"imported": 1}


def test_a_text_in_the_place_of_an_image_is_none(written: Written) -> None:
    path = written(
        f"{PLAIN} CREATE TABLE faces (person_id INT, embedding TEXT, image);"
        f"INSERT INTO faces VALUES (1, {vector(1)}, CAST(x'ff41' AS TEXT)), (2, {vector(2)}, x'ff41'), (3, {vector(3)}, x'');"
    )
    assert images(path) == [None, b"\xffA", None]


PHOTOS = "CREATE TABLE photos (id INT, person_id INT, {column} TEXT); INSERT INTO photos VALUES (1, 1, 'a.jpg');"


@pytest.mark.parametrize(
    ("photos", "mapping"),
    [
        (PLAIN + PHOTOS.format(column="image_path"), []),
        (PLAIN + PHOTOS.format(column="shot"), ["faces.image_path=photos.shot"]),
        ("CREATE TABLE people (id INT, name TEXT, photo TEXT); INSERT INTO people VALUES (1, 'A', 'a.jpg');", []),
        (
            "CREATE TABLE users (id INT, name TEXT, picture TEXT); INSERT INTO users VALUES (1, 'A', 'portrait.jpg');"
            "CREATE TABLE photos (user_id INT, path TEXT); INSERT INTO photos VALUES (1, 'a.jpg');",
            [],
        ),
    ],
    ids=["a known column", "a mapped one", "one table", "a portrait beside"],
)
def test_a_file_with_photos_alone_is_read_where_embeddings_are_made_anew(
    written: Written, photos: str, mapping: list[str]
) -> None:
    path, mappings = written(photos), parse_mappings(mapping)
    with SqliteSource(path, mappings, images_do=True) as source:
        assert not source.has_embeddings
        assert [(face.key, face.image_path, face.embedding) for face in source.faces()] == [("1", "a.jpg", None)]
        account = plan_import(SourceImport(RegionAssignment("A"), reembed=True), source, 4)
    assert account.faces.imported == 1
    with pytest.raises(ImportSourceError, match="embedding"):
        SqliteSource(path, mappings)


def test_a_file_without_photos_has_nothing_to_make_embeddings_of(written: Written) -> None:
    with pytest.raises(ImportSourceError, match=r"No table holds a column with images .*--re-embed, faces\.image_path"):
        SqliteSource(written(PLAIN), images_do=True)
