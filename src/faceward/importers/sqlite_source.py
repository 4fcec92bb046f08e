"""An SQLite file of an older system: opened read-only, and read row by row."""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import sqlite3
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from operator import methodcaller
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from faceward.checks import MAX_DESCRIPTION
from faceward.errors import ImportSourceError
from faceward.importers.assignment import RegionAssignment
from faceward.importers.decoding import MAX_ENCODED
from faceward.importers.rows import SCATTERED, FaceRow, PersonRow, scattered
from faceward.importers.sqlite_layout import Table, recognise

_ROWS_AT_ONCE = 50
_MOST_TEXT = 2 * MAX_DESCRIPTION  # characters
_MOST_KEY = 1_000  # characters: the key of a person who can be imported is far shorter
_MOST_IMAGE = 32 * 1024 * 1024  # bytes
_HIDDEN = 1  # a virtual table's column that no SELECT * shows; generated ones are others
_STEPS = 1_000_000  # of SQLite's machine: some ten milliseconds
_MAGIC = b"SQLite format 3\x00"
_PENDING_BYTE = 0x40000000  # where SQLite's own processes lock a file: pending, reserved, then 510 shared bytes
_LOCK_BYTES = 512


class SqliteSource:
    """An SQLite file that no process writes while it is read; see Source. Raises ImportSourceError.

    mappings: of roles to (table, column), as parse_mappings gives them; what they leave out is recognised. images_do: a file
    without embeddings is read as well, where it has images. max_image: bytes of an image in the file; a larger one counts as
    none.
    """

    prefix = "sqlite:"

    def __init__(
        self,
        path: Path,
        mappings: Mapping[str, tuple[str, str]] | None = None,
        *,
        images_do: bool = False,
        max_image: int = _MOST_IMAGE,
    ) -> None:
        self.path = path
        self._max_image = max_image
        with contextlib.ExitStack() as opened:
            self._lock = opened.enter_context(_shared_lock(path))
            self._before = os.fstat(self._lock)
            uri = f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1"
            self._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
            opened.callback(self._connection.close)
            with self._readable():
                # The file may be hostile: its views and triggers may call nothing that acts.
                self._connection.execute("PRAGMA trusted_schema = OFF")
                self._connection.execute("PRAGMA query_only = ON")
                self._connection.execute("PRAGMA temp_store = FILE")
                # Pages are hardly read twice, and SQLite's usual 2 MB of them push the rows out of a processor's cache.
                self._connection.execute("PRAGMA cache_size = -500")
                # A view may have no end. SQLite alone would not hear of an interrupt before it.
                self._connection.set_progress_handler(_listen, _STEPS)
                (encoding,) = self._connection.execute("PRAGMA encoding").fetchone()
                # SQLite orders texts by the bytes that the file stores: in a UTF-16 file that is not the order of UTF-8.
                self._order = "BINARY" if encoding == "UTF-8" else "CODE_POINTS"
                if encoding != "UTF-8":
                    self._connection.create_collation("CODE_POINTS", _by_code_points)
                # Names may be anything, and one that is not UTF-8 is none that a layout has.
                self._connection.text_factory = methodcaller("decode", "utf-8", "replace")
                tables = list(self._tables())
                self._connection.text_factory = str
            if not tables:
                raise ImportSourceError(f"{path} is an SQLite database without tables: there is nothing to import.")
            self._layout = recognise(tables, mappings or {}, images_do=images_do)
            self._rowid = {table.name: table.rowid for table in tables}
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @property
    def persons_table(self) -> str:
        return self._layout.persons

    @property
    def faces_table(self) -> str:
        return self._layout.faces

    @property
    def layout(self) -> Mapping[str, str]:
        return self._layout.described()

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def has_embeddings(self) -> bool:
        return self._layout.columns["faces.embedding"] is not None

    @property
    def has_regions(self) -> bool:
        return self._layout.columns["persons.region"] is not None

    def check_unchanged(self) -> None:
        """Raises ImportSourceError where another process wrote the file since it was opened, or beside it."""
        now = os.fstat(self._lock)
        written = (now.st_mtime_ns, now.st_size) != (self._before.st_mtime_ns, self._before.st_size)
        if written or any(_holds_changes(beside) for beside, _ in _beside(self.path)):
            raise ImportSourceError(
                f"{self.path} was changed while it was read. Stop what writes it, or copy it, and run the import again."
            )

    def count(self) -> int:
        """How many rows the faces' table has."""
        with self._readable():
            (rows,) = self._connection.execute(f"SELECT count(*) FROM {_quoted(self._layout.faces)}").fetchone()
        return int(rows)

    def assign_regions(self, regions: RegionAssignment) -> None:
        """Its rows are told apart by the id alone."""

    def persons(self) -> Iterator[PersonRow]:
        """By ascending key (in the order of its UTF-8 bytes); those of one table with the faces once for each key."""
        table = self._layout.persons
        key, row = self._key("persons.id"), self._row_id(table, "persons.id")
        name = self._column("persons.name")
        region = f"nullif(trim(CAST({self._column('persons.region')} AS TEXT)), '')"
        # More than can be imported is refused by its beginning: a row's texts may be as long as the file.
        texts = (_beginning(text) for text in (name, self._column("persons.description"), region))
        wanted = [row, key, key, *texts]
        if self._layout.single:
            columns = ", ".join(f"min({each})" for each in wanted)
            one_region = (
                f"count({region}) IN (0, count(*)) AND count(DISTINCT {region}) < 2" if self.has_regions else "1"
            )
            differing = f"count(DISTINCT {name}) > 1, NOT ({one_region})"
            statement = f"SELECT {columns}, {differing} FROM {_quoted(table)} GROUP BY {key} ORDER BY {key}"
        else:
            statement = f"SELECT {', '.join(wanted)}, 0, 0 FROM {_quoted(table)} ORDER BY {key}, 1"
        return map(PersonRow._make, self._rows(statement))

    def faces(self) -> Iterator[FaceRow]:
        """By ascending key, as the persons."""
        table, key = _quoted(self._layout.faces), self._key("faces.person_id")
        rowid = self._rowid[self._layout.faces]
        if rowid is None:
            return self._face_rows(f"{table} AS f ORDER BY {key}, 1")
        # Sorted are keys and row ids only: with the embeddings SQLite would write the whole table to a file, and read it back.
        order = f"SELECT {rowid} AS faceward_row FROM {table} ORDER BY {key}, {rowid} LIMIT -1"
        return self._face_rows(f"({order}) CROSS JOIN {table} AS f ON f.{rowid} = faceward_row")

    def sample_with_images(self, most: int) -> Iterator[FaceRow]:
        """Up to `most` faces that have an image, spread over the table, the same ones each time."""
        path, image = self._column("faces.image_path"), self._column("faces.image")
        if path == image == "NULL":
            return
        table, rowid = _quoted(self._layout.faces), self._rowid[self._layout.faces]
        has_image = f"coalesce(length({image}), length({path}), 0) > 0"
        if rowid is None:
            rows = enumerate(self._face_rows(f"{table} AS f WHERE {has_image}"))
            yield from (face for _, face in heapq.nsmallest(most, rows, key=lambda row: scattered(row[0])))
            return
        drawn = f"SELECT {rowid} AS faceward_row FROM {table} WHERE {has_image} ORDER BY {SCATTERED.format(rowid)} LIMIT {most}"
        yield from self._face_rows(f"({drawn}) CROSS JOIN {table} AS f ON f.{rowid} = faceward_row")

    def _face_rows(self, which: str) -> Iterator[FaceRow]:
        """which: what stands after FROM; the table is called f there."""
        key, row = self._key("faces.person_id", "f."), self._row_id(self._layout.faces, "faces.id", "f.")
        path, image, embedding = (self._column(f"faces.{name}") for name in ("image_path", "image", "embedding"))
        # The length of a text would count its characters, that of its bytes is known; that of a blob without reading it.
        where = f"CASE WHEN typeof({path}) = 'text' AND {path} <> '' THEN {path} WHEN typeof({image}) = 'text' THEN {image} END"
        length = (
            f"CASE typeof({embedding}) WHEN 'text' THEN length(CAST({embedding} AS BLOB)) ELSE length({embedding}) END"
        )
        statement = (
            f"SELECT {row}, {key}, CASE WHEN {length} > {2 * MAX_ENCODED} THEN "
            f"zeroblob({MAX_ENCODED + 1}) ELSE {embedding} END, "
            f"substr({where}, 1, {_MOST_TEXT}), "
            f"coalesce(length({image}), length({path}), 0) > 0, NULL FROM {which}"
        )
        return map(FaceRow._make, self._rows(statement))

    def image(self, face: FaceRow) -> bytes | None:
        """The image in the face's row; None where there is none (the row may name a path), or a larger one than is read.

        Raises ImportSourceError where the table has no row ids and its own don't tell its rows apart: the image could be
        somebody else's.
        """
        column, table = self._column("faces.image"), self._layout.faces
        if column == "NULL":
            return None
        which = f"{self._row_id(table, 'faces.id')} IS :row"
        if self._rowid[table] is None:
            which += f" AND {self._key('faces.person_id')} IS :key"
        statement = (
            f"SELECT CASE WHEN typeof({column}) = 'blob' AND length({column}) <= {self._max_image} THEN {column} END "
            f"FROM {_quoted(table)} WHERE {which} LIMIT 2"
        )
        with self._readable():
            found = self._connection.execute(statement, {"row": face.row, "key": face.key}).fetchall()
        if len(found) > 1:
            raise ImportSourceError(
                f"{table} has no row ids, and which of its images of the person {face.key} is of which face can't be told. Say "
                f"which column tells its rows apart, as --map faces.id={table}.COLUMN."
            )
        return found[0][0] or None if found else None

    def same_names(self, most: int = 100) -> dict[str, int]:
        """Names that several rows of the persons' table have, and how many."""
        if self._layout.single:
            return {}
        name, table = self._column("persons.name"), _quoted(self._layout.persons)
        statement = (
            f"SELECT {name}, count(*) FROM {table} GROUP BY 1 HAVING count(*) > 1 ORDER BY 2 DESC, 1 LIMIT {most}"
        )
        return {str(name): count for name, count in self._rows(statement) if name is not None}

    def _tables(self) -> Iterator[Table]:
        names = self._connection.execute(
            "SELECT name, type FROM sqlite_schema WHERE type IN ('table', 'view') "
            "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        )
        for name, kind in names.fetchall():
            try:
                described = self._connection.execute(f"PRAGMA table_xinfo({_quoted(name)})").fetchall()
                columns = tuple(row[1] for row in described if row[6] != _HIDDEN)
                rowid = self._row_ids(name, columns) if kind == "table" else None
                keys = {row[3]: row[2] for row in self._connection.execute(f"PRAGMA foreign_key_list({_quoted(name)})")}
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode != sqlite3.SQLITE_ERROR:  # as for a damaged file
                    raise
                yield Table(name, (), {}, None, str(exc))  # as a view of a table that is gone: the others are there
                continue
            yield Table(name, columns, keys, rowid)

    def _row_ids(self, table: str, columns: tuple[str, ...]) -> str | None:
        """By what name the table has row ids of its own: a column may have that name too, and hide them."""
        for name in sorted({"rowid", "_rowid_", "oid"}.difference(map(str.lower, columns)), reverse=True):
            try:
                self._connection.execute(f"SELECT {name} FROM {_quoted(table)} LIMIT 0")
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                    raise
                return None  # made WITHOUT ROWID
            return name
        return None

    def _row_id(self, table: str, role: str, of: str = "") -> str:
        """What names a row in messages and finds it again. of: the table's other name, with a dot."""
        rowid = self._rowid[table]
        return self._column(role) if rowid is None else f"{of}{rowid}"

    def _key(self, role: str, of: str = "") -> str:
        """As text, so that 7, 7.0 and '7' are one person, whatever the columns' types. of: as of _row_id."""
        table = self._layout.persons if role == "persons.id" else self._layout.faces
        column = self._column(role) if self._layout.columns[role] else f"{of}{self._rowid[table]}"
        whole = f"CAST({column} AS INTEGER)"
        value = f"CASE WHEN typeof({column}) = 'real' AND {column} = {whole} THEN {whole} ELSE {column} END"
        return f"substr(CAST({value} AS TEXT), 1, {_MOST_KEY}) COLLATE {self._order}"

    def _column(self, role: str) -> str:
        column = self._layout.columns[role]
        return "NULL" if column is None else _quoted(column)

    def _rows(self, statement: str) -> Iterator[tuple[Any, ...]]:
        return chain.from_iterable(self._chunks(statement))

    def _chunks(self, statement: str) -> Iterator[list[tuple[Any, ...]]]:
        with self._readable():
            cursor, read = self._connection.execute(statement), 0
            while rows := self._fetched(cursor):
                read += len(rows)
                yield rows
            if rows is None:
                # A text that is not UTF-8 must not end the reading: what it is for refuses it by its row. Most files have none,
                # and are read faster without looking out for it.
                self._connection.text_factory = methodcaller("decode", "utf-8", "surrogateescape")
                cursor = self._connection.execute(statement)
                deque(islice(cursor, read), maxlen=0)
                while rows := cursor.fetchmany(_ROWS_AT_ONCE):
                    yield rows

    def _fetched(self, cursor: sqlite3.Cursor) -> list[tuple[Any, ...]] | None:
        """The next rows; None where one has a text that is not UTF-8."""
        try:
            return cursor.fetchmany(_ROWS_AT_ONCE)
        except sqlite3.OperationalError as exc:
            if str(exc).startswith("Could not decode to UTF-8"):
                return None
            raise

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            if getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                raise KeyboardInterrupt from exc
            raise ImportSourceError(
                f"{self.path} can't be read as an SQLite database: {exc}. If it is damaged, `sqlite3 OLD.db .recover` may "
                "save what is left."
            ) from exc


@contextlib.contextmanager
def _shared_lock(path: Path) -> Iterator[int]:
    """Hold the lock that every reader of an SQLite file holds, without writing beside the file. Yields a descriptor."""
    try:
        with path.open("rb") as stream:
            magic = stream.read(len(_MAGIC))
            if magic != _MAGIC:
                what = "is empty" if not magic else "is not an SQLite 3 database (or an encrypted one)"
                raise ImportSourceError(f"{path} {what}.")
            for beside, advice in _beside(path):
                if _holds_changes(beside):
                    raise ImportSourceError(
                        f"{beside} holds changes that are not in {path.name} yet. Stop the program that uses the database; if "
                        f"none does, {advice} once with the program sqlite3, then import it."
                    )
            try:
                fcntl.lockf(stream, fcntl.LOCK_SH | fcntl.LOCK_NB, _LOCK_BYTES, _PENDING_BYTE)
            except (BlockingIOError, PermissionError) as exc:
                raise ImportSourceError(
                    f"{path} is locked: another program is writing it. Stop that program, or import a copy."
                ) from exc
            yield stream.fileno()
    except OSError as exc:
        raise ImportSourceError(f"{path} can't be read: {exc.strerror}.") from exc


def _beside(path: Path) -> Iterator[tuple[Path, str]]:
    """The files in which SQLite keeps changes, each with what brings them into the database."""
    real = path.resolve()
    yield real.with_name(f"{real.name}-wal"), "close it, or run PRAGMA wal_checkpoint(TRUNCATE)"
    yield real.with_name(f"{real.name}-journal"), "open it"


def _holds_changes(beside: Path) -> bool:
    """A journal that begins with a zero is over: with journal_mode=PERSIST it stays."""
    try:
        with beside.open("rb") as stream:
            return stream.read(1) not in (b"", b"\0")
    except FileNotFoundError:
        return False


def _by_code_points(one: str, other: str) -> int:
    """The order of UTF-8's bytes."""
    return (one > other) - (one < other)


def _listen() -> None:
    """What Python is told meanwhile is raised in here, and ends the statement."""


def _beginning(text: str) -> str:
    return f"CASE WHEN typeof({text}) IN ('text', 'blob') THEN substr({text}, 1, {_MOST_TEXT}) ELSE {text} END"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
