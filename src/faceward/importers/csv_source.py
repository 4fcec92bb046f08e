"""A CSV file of persons and their faces, one face a line.

It is read once, line by line, into a temporary SQLite database on disk, which brings the lines of one person together: however
long the file is, and wherever in it they stand.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from faceward.checks import composed
from faceward.errors import ImportSourceError
from faceward.importers.assignment import RegionAssignment
from faceward.importers.decoding import MAX_ENCODED
from faceward.importers.rows import SCATTERED, FaceRow, PersonRow
from faceward.importers.sqlite_layout import ROLES

# The columns, each with the names that it may have, the likeliest first.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "external_id": ("external_id", "externalid", *ROLES["persons.id"]),
    "name": ROLES["persons.name"],
    "region": ("region", "site", "location", "office", "branch"),
    "description": ROLES["persons.description"],
    "embedding": ROLES["faces.embedding"],
    "photo": ("photo", "image", *ROLES["faces.image_path"]),
}
_DELIMITERS = (",", ";", "\t", "|")
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_LONGEST_LINE = 2 * MAX_ENCODED
_HEADER_LINES = 4  # of a header whose names hold line breaks
_RECORD_LINES = 3_000  # of a record whose fields hold line breaks, as JSON with a number a line
_NOT_READ = "�"
_BATCH = 1_000
_NEW = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA temp_store = FILE;
PRAGMA cache_size = -16000;
CREATE TABLE lines (
    line INTEGER PRIMARY KEY, key TEXT, id TEXT, name TEXT, region TEXT, description TEXT, photo TEXT, code TEXT, reason TEXT,
    embedding TEXT, assigned TEXT
)
"""
_PERSONS = """
SELECT min(line), key, min(id), min(name), min(description), min(coalesce(region, assigned)),
       count(DISTINCT composed(name)) > 1, 0
FROM lines WHERE key IS NOT NULL GROUP BY key ORDER BY key
"""
# A line whose region is left out is of the person whom others name with the region that it gets.
_ASSIGN = """
UPDATE lines SET assigned = of_person.region, key = person_key(lines.id, of_person.region)
FROM (SELECT id, region_of(id, min(name)) AS region FROM lines WHERE region IS NULL AND id IS NOT NULL GROUP BY id) of_person
WHERE lines.id = of_person.id AND lines.region IS NULL
"""
_FACES = "SELECT line, key, embedding, photo, photo IS NOT NULL, code, reason FROM lines"
_SAMPLE = f"{_FACES} WHERE photo IS NOT NULL ORDER BY {SCATTERED.format('line')} LIMIT ?"
_SAME_NAMES = """
SELECT name, count(DISTINCT key) FROM lines WHERE name IS NOT NULL GROUP BY name HAVING count(DISTINCT key) > 1
ORDER BY 2 DESC, 1 LIMIT ?
"""


class CsvSource:
    """The lines of a CSV file with a header; see Source. Raises ImportSourceError.

    columns: of roles to the names that their columns have here; what they leave out is recognised. encoding: of the text;
    None: as its first bytes say, else UTF-8. progress: told how many bytes were read.
    """

    prefix = ""
    persons_table = "persons"

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, str] | None = None,
        *,
        encoding: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.path = path
        self.faces_table = path.name
        with contextlib.ExitStack() as opened, self._stored():
            # Without a name: a file that nobody else sees, gone with the process.
            self._staged = opened.enter_context(contextlib.closing(sqlite3.connect("", isolation_level=None)))
            self._staged.create_function("composed", 1, composed, deterministic=True)
            self._staged.executescript(_NEW)
            self._read(columns or {}, encoding, progress or (lambda _: None))
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @property
    def layout(self) -> Mapping[str, str]:
        return self._layout

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def has_embeddings(self) -> bool:
        return "embedding" in self._layout

    @property
    def has_regions(self) -> bool:
        return "region" in self._layout

    def count(self) -> int:
        ((rows,),) = self._rows("SELECT count(*) FROM lines")
        return int(rows)

    def assign_regions(self, regions: RegionAssignment) -> None:
        """Bring lines that leave their region out together with those that name the region they get."""
        if not self.has_regions:
            return
        with self._stored():
            self._staged.create_function("region_of", 2, lambda id, name: regions.region_of(id, name or ""))
            self._staged.create_function("person_key", 2, _key)
            self._staged.execute(_ASSIGN)

    def persons(self) -> Iterator[PersonRow]:
        return map(PersonRow._make, self._rows(_PERSONS))

    def faces(self) -> Iterator[FaceRow]:
        return map(_face, self._rows(f"{_FACES} ORDER BY key, line"))

    def sample_with_images(self, most: int) -> Iterator[FaceRow]:
        return map(_face, self._rows(_SAMPLE, (most,)))

    def image(self, _: FaceRow) -> bytes | None:
        return None

    def same_names(self, most: int = 100) -> dict[str, int]:
        return dict(self._rows(_SAME_NAMES, (most,)))

    def check_unchanged(self) -> None:
        """It was read whole when it was opened."""

    def _read(self, columns: Mapping[str, str], encoding: str | None, progress: Callable[[int], None]) -> None:
        try:
            with self.path.open("rb") as file:
                text = io.TextIOWrapper(file, _encoding(file, encoding), errors="replace", newline="")
                lines = _Lines(text)
                header, delimiter = self._header(lines, columns)
                self._layout = {role: header[place] for role, place in self._places.items()}
                self._stage(lines, delimiter, len(header), lambda: progress(file.tell()))
        except OSError as exc:
            raise ImportSourceError(f"{self.path} can't be read: {exc.strerror or exc}.") from exc
        except LookupError as exc:
            raise ImportSourceError(
                f"--encoding {encoding}: there is no such encoding. Usual are utf-8, cp1252."
            ) from exc
        except UnicodeError as exc:
            reason = f"{self.path} is no text in {encoding or 'the encoding that its first bytes say'}: {exc}"
            raise ImportSourceError(f"{reason}. Say another, as --encoding cp1252.") from exc

    def _header(self, lines: _Lines, wanted: Mapping[str, str]) -> tuple[list[str], str]:
        """The names of the columns and what stands between them: of what may, that which makes most sense of the header."""
        first = lines.first(_HEADER_LINES)
        if not first:
            raise ImportSourceError(f"{self.path} is empty. Its first line must name the columns.")
        best: tuple[int, int, str, list[str]] | None = None
        for delimiter in _DELIMITERS:
            try:
                header = [
                    name.strip()
                    for name in next(csv.reader(iter(first), delimiter=delimiter, skipinitialspace=True, strict=True))
                ]
            except (csv.Error, StopIteration):
                continue
            found = _places(header, wanted)
            if best is None or (len(found), len(header)) > best[:2]:
                best = len(found), len(header), delimiter, header
        if best is None:
            raise ImportSourceError(f"{self.path} is no CSV file: its first line can't be read.")
        _, _, delimiter, header = best
        self._places = _places(header, wanted)
        listed = ", ".join(header[:30]) or "nothing"
        for role, column in wanted.items():
            if role not in COLUMNS or role not in self._places:
                raise ImportSourceError(
                    f"--map {role}={column} can't be used. The roles are {', '.join(COLUMNS)}; the columns are {listed}."
                )
        missing = [role for role in ("external_id", "name") if role not in self._places]
        if not {"embedding", "photo"} & self._places.keys():
            missing.append("embedding or photo")
        if missing:
            raise ImportSourceError(
                f"{self.path}: no column is known for {', '.join(missing)}. The first line must name the columns; it has "
                f"{listed}. Say which they are, as --map external_id=COLUMN."
            )
        return header, delimiter

    def _stage(self, lines: _Lines, delimiter: str, width: int, progress: Callable[[], None]) -> None:
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        lines.begin_record()
        next(reader)
        insert = f"INSERT INTO lines VALUES ({', '.join('?' * 11)})"
        batch: list[tuple[object, ...]] = []
        self._staged.execute("BEGIN")
        while True:
            start = lines.begin_record()
            try:
                row = next(reader, None)
                if row and lines.of_record > 1:
                    self._require_one_record(row, width, delimiter)
            except csv.Error as exc:
                batch.append(_refused(start, "not_csv", f"The line can't be read: {exc}."))
                lines.take_back()
                continue
            if row is None:
                break
            if row:
                batch.append(self._values(start, row, width))
            if len(batch) >= _BATCH:
                self._staged.executemany(insert, batch)
                batch.clear()
                progress()
        self._staged.executemany(insert, batch)
        self._staged.execute("CREATE INDEX by_key ON lines (key, line)")
        self._staged.execute("COMMIT")

    def _require_one_record(self, row: Sequence[str], width: int, delimiter: str) -> None:
        """Raises csv.Error where a record of several lines is no person's: after a quote that is not closed, other people's
        lines pass for one of its fields.
        """
        fields = {role: row[place].strip() for role, place in self._places.items()} if len(row) == width else {}
        embedding = fields.pop("embedding", "")
        fields.pop("description", None)
        torn = not embedding.startswith("[") and "\n" in embedding and delimiter in embedding
        if len(row) != width or torn or any("\n" in value or "\r" in value for value in fields.values()):
            raise csv.Error("a quote in it is not closed")

    def _values(self, line: int, row: Sequence[str], width: int) -> tuple[object, ...]:
        if len(row) != width:
            return _refused(line, "not_csv", f"The line has {len(row)} columns, the header {width}.")
        if any(_NOT_READ in value for value in row):
            return _refused(line, "not_text", "The line holds bytes that are no text in its encoding (see --encoding).")
        given = {role: row[place].strip() or None for role, place in self._places.items()}
        external_id, region = composed(given["external_id"]), composed(given.get("region"))  # as the gallery has them
        if external_id is None:
            return _refused(line, "no_id", "The line has no external id.")
        if len(given.get("embedding") or "") > MAX_ENCODED:
            return _refused(line, "unreadable", f"The embedding takes more than {MAX_ENCODED} characters; none does.")
        told = given["name"], region, given.get("description"), given.get("photo")
        rest = *told, None, None, given.get("embedding"), None
        return line, _key(external_id, region), external_id, *rest

    def _rows(self, statement: str, parameters: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        with self._stored():
            rows = iter(self._staged.execute(statement, parameters))
            # No `yield from`: it would close the cursor of a reader that is dropped late, after the connection.
            while (row := next(rows, None)) is not None:
                yield row

    @contextlib.contextmanager
    def _stored(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            if "user-defined function" in str(exc):  # none raises anything of its own: an interrupt came while one ran
                raise KeyboardInterrupt from exc
            raise ImportSourceError(
                f"{self.path} could not be put in order in a temporary file: {exc}. It takes as much room as the CSV; "
                "SQLITE_TMPDIR names another folder for it."
            ) from exc


class _Lines:
    """The lines of a text; one that is too long to be one is cut, so that memory stays bounded.

    A reader of records takes some for each, and the lines of one that went wrong can be read again.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._waiting: deque[str] = deque()
        self._record: list[str] = []
        self._taken = self._length = 0

    @property
    def of_record(self) -> int:
        """How many lines were taken since it began."""
        return len(self._record)

    def first(self, most: int) -> list[str]:
        """The first ones, which stay where they are."""
        while len(self._waiting) < most and (line := self._line()):
            self._waiting.append(line)
        return list(self._waiting)

    def begin_record(self) -> int:
        """Returns the number of its first line, from 1."""
        self._record.clear()
        self._length = 0
        return self._taken + 1

    def take_back(self) -> None:
        """The record's lines but the first come again: only that one is known to be wrong."""
        self._waiting.extendleft(reversed(self._record[1:]))
        self._taken -= max(0, len(self._record) - 1)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if len(self._record) >= _RECORD_LINES or self._length >= _LONGEST_LINE:
            raise csv.Error("a quote in it is not closed where any record ends")
        line = self._waiting.popleft() if self._waiting else self._line()
        if not line:
            raise StopIteration
        self._record.append(line)
        self._length += len(line)
        self._taken += 1
        return line

    def _line(self) -> str:
        line = self._text.readline(_LONGEST_LINE)
        if len(line) == _LONGEST_LINE and not line.endswith(("\n", "\r")):
            while (rest := self._text.readline(_LONGEST_LINE)) and not rest.endswith(("\n", "\r")):
                pass
        return line


def parse_columns(given: Sequence[str]) -> dict[str, str]:
    """`external_id=Number` -> {"external_id": "Number"}. Raises ImportSourceError."""
    columns: dict[str, str] = {}
    for each in given:
        role, _, column = each.partition("=")
        if role not in COLUMNS or not column:
            raise ImportSourceError(
                f"--map {each} can't be used: write ROLE=COLUMN, as external_id=Number. The roles are {', '.join(COLUMNS)}."
            )
        columns[role] = column
    return columns


def _places(header: Sequence[str], wanted: Mapping[str, str]) -> dict[str, int]:
    """Which column has which role."""
    names = {
        name.lower().replace(" ", "_").replace("-", "_"): place for place, name in reversed(list(enumerate(header)))
    }
    found: dict[str, int] = {}
    for role, known in COLUMNS.items():
        if role in wanted:
            if wanted[role] in header:
                found[role] = header.index(wanted[role])
        else:
            place = next((names[name] for name in known if name in names), None)
            if place is not None and place not in found.values():
                found[role] = place
    return found


def _encoding(file: BinaryIO, wanted: str | None) -> str:
    begin = file.read(4)
    file.seek(0)
    return wanted or next((name for mark, name in _MARKS if begin.startswith(mark)), "utf-8")


def _key(external_id: str, region: str | None) -> str:
    return f"{external_id}\x1f{region or ''}"


def _refused(line: int, code: str, reason: str) -> tuple[object, ...]:
    return line, None, None, None, None, None, None, code, reason, None, None


def _face(row: tuple[Any, ...]) -> FaceRow:
    line, key, embedding, photo, has_image, code, reason = row
    return FaceRow(line, key, embedding, photo, bool(has_image), None if code is None else (code, reason))
