"""A PostgreSQL database of another system: read in one read-only transaction, a few hundred rows at a time."""

from __future__ import annotations

import contextlib
import itertools
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format

from faceward.errors import ImportSourceError, SettingsError
from faceward.importers.assignment import RegionAssignment
from faceward.importers.decoding import MAX_ENCODED
from faceward.importers.rows import FaceRow, PersonRow
from faceward.store.database import parse_url, shown

MAX_NUMBERS = MAX_ENCODED // 8
"""Of one embedding; a longer array is none."""

_ROWS_AT_ONCE = 500
_MOST_IMAGE = 32 * 1024 * 1024  # bytes
_SESSION = (
    "SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; "
    "SET LOCAL jit = off"
)
_LOCKED, _NOT_ALLOWED = "55P03", "42501"


@dataclass(frozen=True, slots=True)
class Statements:
    """How one system's tables are read. The parameters are all statements'.

    persons, faces: give the fields of PersonRow and of FaceRow, by ascending bytes of the key; a face has its model's name in
    the place of its problem. models: (name, faces) of each. sample: as faces, at most %(most)s of those that have an image,
    of the model %(model)s where one is meant, spread over all of them. image: the bytes of the image of the face %(row)s,
    where they are at most %(max_image)s. same_names: (name, persons), at most %(most)s.
    """

    prefix: str
    persons_table: str
    faces_table: str
    layout: Mapping[str, str]
    count: str
    models: str
    persons: str
    faces: str
    sample: str
    image: str | None = None
    same_names: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)


class PostgresSource:
    """The gallery that stands in another PostgreSQL database; see Source. Raises ImportSourceError.

    find: looks at the database and says how it is read. model: whose embeddings are meant; those of others are refused.
    any_model: the embeddings are not used. Without either there must be those of one model only. max_image: bytes of an image
    in the database; a larger one counts as none.
    """

    has_embeddings = True
    has_regions = False

    def __init__(
        self,
        url: str,
        find: Callable[[psycopg.Connection[Any]], Statements],
        *,
        model: str | None = None,
        any_model: bool = False,
        max_image: int = _MOST_IMAGE,
    ) -> None:
        try:
            parsed = parse_url(url)
        except SettingsError as exc:
            raise ImportSourceError(
                "The source must be a URL: postgresql://user:password@host:5432/database. The password may stand in "
                "PGPASSWORD or in ~/.pgpass instead, where no list of processes shows it."
            ) from exc
        self._shown = shown(parsed)
        self._model = model
        self._max_image = max_image
        self._numbers = itertools.count()
        conninfo = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
        with contextlib.ExitStack() as opened:
            with self._readable():
                connection = psycopg.connect(
                    conninfo, connect_timeout=10, application_name="faceward-import", client_encoding="utf8"
                )
                self._connection = opened.enter_context(contextlib.closing(connection))
                connection.read_only = True
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                connection.execute(_SESSION)
                _register_loaders(connection)
                self._statements = find(connection)
            if not any_model:
                self._require_model()
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @property
    def prefix(self) -> str:
        return self._statements.prefix

    @property
    def persons_table(self) -> str:
        return self._statements.persons_table

    @property
    def faces_table(self) -> str:
        return self._statements.faces_table

    @property
    def layout(self) -> Mapping[str, str]:
        return self._statements.layout

    @property
    def folder(self) -> Path | None:
        return None

    def count(self) -> int:
        ((rows,),) = self._fetch(self._statements.count)
        return int(rows)

    def assign_regions(self, regions: RegionAssignment) -> None:
        """Its rows say nothing of regions."""

    def persons(self) -> Iterator[PersonRow]:
        return (PersonRow(*row) for row in self._stream(self._statements.persons))

    def faces(self) -> Iterator[FaceRow]:
        return map(self._face, self._stream(self._statements.faces))

    def sample_with_images(self, most: int) -> Iterator[FaceRow]:
        return map(self._face, self._fetch(self._statements.sample, most=most, model=self._model))

    def image(self, face: FaceRow) -> bytes | None:
        if self._statements.image is None or not face.has_image:
            return None
        found = self._fetch(self._statements.image, row=face.row, max_image=self._max_image)
        return found[0][0] if found and isinstance(found[0][0], bytes) and found[0][0] else None

    def same_names(self, most: int = 100) -> dict[str, int]:
        if self._statements.same_names is None:
            return {}
        return {str(name): count for name, count in self._fetch(self._statements.same_names, most=most)}

    def check_unchanged(self) -> None:
        """One snapshot is read: what others write meanwhile is not seen."""

    def _face(self, row: tuple[Any, ...]) -> FaceRow:
        place, key, embedding, image_path, has_image, model = row
        problem = None
        if self._model is not None and model != self._model:
            problem = "other_model", f"Its embedding was made by {model}, not by {self._model}."
        return FaceRow(place, key, embedding, image_path, has_image, problem)

    def _require_model(self) -> None:
        models = {str(name): count for name, count in self._fetch(self._statements.models)}
        listed = ", ".join(f"{name} ({count} faces)" for name, count in models.items()) or "none"
        if self._model is not None and self._model not in models:
            raise ImportSourceError(f"--model {self._model}: {self._shown} has no embedding of it. It has: {listed}.")
        if self._model is None and len(models) > 1:
            raise ImportSourceError(
                f"{self._shown} has embeddings of several models, which can't be compared: {listed}. Say which are meant, as "
                f"--model {next(iter(models))}; the others are refused."
            )

    def _stream(self, statement: str) -> Iterator[tuple[Any, ...]]:
        with self._readable():
            cursor = self._connection.cursor(name=f"faceward_{next(self._numbers)}", binary=True)
            self._opened.callback(cursor.close)  # of a reader that is dropped before the end, or after the connection
            cursor.itersize = _ROWS_AT_ONCE
            rows = iter(cursor.execute(statement, dict(self._statements.parameters)))
            while (row := next(rows, None)) is not None:
                yield row
            cursor.close()

    def _fetch(self, statement: str, **more: object) -> list[tuple[Any, ...]]:
        with self._readable(), self._connection.cursor(binary=True) as cursor:
            return cursor.execute(statement, {**self._statements.parameters, **more}).fetchall()

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as exc:
            # libpq repeats its sentence for each address that it tried.
            reason = exc.diag.message_primary or (str(exc).strip().splitlines() or [type(exc).__name__])[-1].strip()
            if exc.sqlstate == _LOCKED:
                raise ImportSourceError(
                    f"{self._shown} is locked: another session is changing the tables. Wait until it is done."
                ) from exc
            if exc.sqlstate == _NOT_ALLOWED:
                raise ImportSourceError(
                    f"{self._shown} can't be read: {reason}. Name a user who may read its tables."
                ) from exc
            raise ImportSourceError(f"{self._shown} can't be read: {reason}.") from exc


def _register_loaders(connection: psycopg.Connection[Any]) -> None:
    adapters = connection.adapters
    for name in ("text", "varchar"):
        adapters.register_loader(name, _Text)
    adapters.register_loader(adapters.types["float8"].array_oid, _Doubles)
    adapters.register_loader(adapters.types["float4"].array_oid, _Floats)
    found = connection.execute("SELECT to_regtype('vector')::oid").fetchone()
    if found and found[0] is not None:
        adapters.register_loader(int(found[0]), _Vector)


class _Text(Loader):
    """A text that is not UTF-8 must not end the reading: what it is for refuses it by its row."""

    format = Format.BINARY

    def load(self, data: Buffer) -> str:
        return bytes(data).decode("utf-8", "surrogateescape")


class _Array(Loader):
    """An array of floats in its shape, without a Python object for each. One with a null is read as NaN."""

    format = Format.BINARY
    kind: ClassVar[str]

    def load(self, data: Buffer) -> NDArray[Any]:
        sides, nulls = struct.unpack_from(">ii", data)
        if nulls:
            return np.array([np.nan])
        elements = np.dtype([("length", ">i4"), ("value", self.kind)])
        read = np.frombuffer(data, elements, offset=12 + 8 * sides) if sides else np.empty(0, elements)
        numbers = np.ascontiguousarray(read["value"], dtype=read["value"].dtype.newbyteorder("<"))
        return numbers.reshape(struct.unpack_from(">" + "i4x" * sides, data, 12)) if sides > 1 else numbers


class _Doubles(_Array):
    kind = ">f8"


class _Floats(_Array):
    kind = ">f4"


class _Vector(Loader):
    """pgvector's type."""

    format = Format.BINARY

    def load(self, data: Buffer) -> NDArray[np.float32]:
        return np.frombuffer(data, ">f4", offset=4).astype("<f4")
