"""Imports a stream of persons: checks each record, writes in batches, and accounts for all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from faceward.checks import (
    MAX_EXTERNAL_ID,
    check_description,
    check_name,
    check_region,
    check_text,
    unit_embedding,
)
from faceward.errors import InputError, InvalidValueError
from faceward.store.bulk import BulkWriter, NewPerson
from faceward.types import Embedding, NewFace

_BATCH_FACES = 2_000
_BLOCK_FACES = 100  # checked at once: their numbers fit a processor's cache
_SQUARES = 1e-100, 1e100  # sums of squares that are exact enough: others take more care
_BATCH_IMAGES = 32 * 1024 * 1024  # bytes
_MOST_REFUSALS = 1_000
_MOST_FACES = 1_000


class PersonRecord(NamedTuple):
    """A person to import. embeddings: one or more, each as many finite numbers as the model's dimension, or a NewFace
    with such an embedding, which keeps what else is known of the face.

    external_id: names the person within the region for good, so that a repeated import stores nobody twice.
    """

    external_id: str
    region: str
    name: str
    embeddings: Any
    description: str | None = None

    def __repr__(self) -> str:
        return f"PersonRecord({self.external_id!r}, {self.region!r})"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that was not imported. position: its place in the stream, from 0."""

    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class ImportReport:
    """read = persons + present + refused. present: were there before. refusals: the first thousand of `refused`."""

    read: int = 0
    persons: int = 0
    faces: int = 0
    present: int = 0
    refused: int = 0
    refusals: tuple[Refusal, ...] = ()


class Importer:
    """One import. writer: stores batches. dimension: of the embeddings. connections: batches written at once.

    large_import: asked with the faces stored so far and waiting once these are more than `large_from`, and each time they
    have doubled, until it returns something to enter; left at the end. The place to set an index aside that is cheaper
    built once than kept up row by row. People who are there already do not count: an import that is repeated leaves the
    index alone.
    """

    def __init__(
        self,
        writer: BulkWriter,
        dimension: int,
        *,
        connections: int = 2,
        large_import: Callable[[int], AbstractContextManager[None] | None] | None = None,
        large_from: int = 20_000,
    ) -> None:
        self._writer = writer
        self._dimension = dimension
        self._connections = connections
        self._large_import = large_import
        self._large_from = large_from

    @property
    def model_id(self) -> str:
        """Of the model whose embeddings it stores."""
        return self._writer.model_id

    def run(
        self,
        client_id: str,
        persons: Iterable[PersonRecord],
        progress: Callable[[ImportReport], None] | None = None,
    ) -> ImportReport:
        """The stream is read and checked in the caller's thread, while other threads write the batches before.

        What the report counts outlasts a crash of the database's server. Where the import is cut short, all but its last
        second does.
        """
        tally = _Tally()
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(self._connections, thread_name_prefix="faceward-write"))
            writing: deque[_Writing] = deque()

            def finish(left: int) -> None:
                while len(writing) > left:
                    first = writing[0]
                    tally.stored(first.persons, *first.stored.result())
                    writing.popleft()
                    if progress is not None:
                        progress(tally.report(first.seen))

            ask, ask_from = self._large_import, self._large_from
            try:
                for batch in self._batches(persons, tally):
                    finish(self._connections - 1)
                    faces = sum(len(person.embeddings) for person in batch)
                    coming = tally.faces + faces
                    if ask is not None and coming <= ask_from < coming + sum(each.faces for each in writing):
                        finish(0)  # those of them who are there already do not count
                        coming = tally.faces + faces
                    if ask is not None and coming > ask_from:
                        ask_from = 2 * coming
                        aside = ask(coming)
                        if aside is not None:
                            stack.enter_context(aside)
                            ask = None
                    # Its own copy for each: the thread that writes is still the caller's doing, as the audit log has it.
                    stored = pool.submit(copy_context().run, self._writer.write, client_id, batch)
                    writing.append(_Writing(stored, len(batch), faces, tally.seen()))
                finish(0)
            except BaseException:
                wait(each.stored for each in writing)
                raise
        self._writer.settle()
        return tally.report()

    def _batches(self, persons: Iterable[PersonRecord], tally: _Tally) -> Iterator[list[NewPerson]]:
        batch: dict[tuple[str, str], NewPerson] = {}
        block: list[_Checked] = []
        faces = in_block = images = 0
        for position, record in enumerate(persons):
            tally.read += 1
            checked = self._checked(position, record)
            block.append(checked)
            in_block += len(checked.rows)
            images += _image_bytes(checked.rows)
            if in_block < _BLOCK_FACES and len(block) < _BLOCK_FACES and images < _BATCH_IMAGES:
                continue
            faces += self._admit(block, batch, tally)
            block, in_block = [], 0
            if faces >= _BATCH_FACES or images >= _BATCH_IMAGES:
                if batch:
                    yield list(batch.values())
                batch, faces, images = {}, 0, 0
        self._admit(block, batch, tally)
        if batch:
            yield list(batch.values())

    def _checked(self, position: int, record: PersonRecord) -> _Checked:
        """The record, but for the numbers of its embeddings, which are checked many at once."""
        try:
            given = record.embeddings
            if not isinstance(given, Iterable) or getattr(given, "ndim", 2) == 0:
                raise InvalidValueError("embeddings", given, "one or more embeddings")
            rows = [given] if getattr(given, "ndim", 2) == 1 else list(given)
            if not 1 <= len(rows) <= _MOST_FACES:
                raise InvalidValueError("the number of embeddings", len(rows), f"from 1 to {_MOST_FACES}")
            person = (
                check_text("external_id", record.external_id, MAX_EXTERNAL_ID),
                check_region(record.region),
                check_name(record.name),
                check_description(record.description),
            )
        except InputError as exc:
            return _Checked(position, [], exc)
        return _Checked(position, rows, person)

    def _admit(self, block: list[_Checked], batch: dict[tuple[str, str], NewPerson], tally: _Tally) -> int:
        """Put the persons of the block that can be imported into the batch; returns how many faces these are."""
        given = [row.embedding if isinstance(row, NewFace) else row for checked in block for row in checked.rows]
        units = _units(given, self._dimension)
        faces = end = 0
        for checked in block:
            start, end = end, end + len(checked.rows)
            own = units[start:end]
            wrong = [each for each in (checked.person, *own) if isinstance(each, InputError)]
            if wrong:
                tally.refuse(checked.position, str(wrong[0]))
                continue
            assert not isinstance(checked.person, InputError)
            external_id, region, name, description = checked.person
            if (region, external_id) in batch:
                twice = InvalidValueError("external_id", external_id, "given once for each person of a region")
                tally.refuse(checked.position, str(twice))
                continue
            embeddings = tuple(map(_with_unit, checked.rows, own))
            batch[region, external_id] = NewPerson(external_id, region, name, embeddings, description)
            faces += len(own)
        return faces


@dataclass(slots=True)
class _Checked:
    """A record on its way. rows: its embeddings as they were given. person: external id, region, name and description,
    or why it is refused.
    """

    position: int
    rows: list[Any]
    person: tuple[str, str, str, str | None] | InputError


@dataclass(frozen=True, slots=True)
class _Writing:
    """A batch that is being written. seen: of the stream, when it was handed on."""

    stored: Future[tuple[int, int]]
    persons: int
    faces: int
    seen: _Seen


def _image_bytes(rows: list[Any]) -> int:
    return sum([len(row.image_data or b"") for row in rows if isinstance(row, NewFace)])


def _units(values: Sequence[object], dimension: int) -> list[Embedding | InputError]:
    """Each as unit_embedding returns it, or what it raises; plain arrays all at once."""
    plain = [
        place
        for place, value in enumerate(values)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.shape == (dimension,)
    ]
    units: list[Embedding | InputError | None] = [None] * len(values)
    if plain:
        rows = np.array([values[place] for place in plain], dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.einsum("ij,ij->i", rows, rows)
        usable = (squares > _SQUARES[0]) & (squares < _SQUARES[1])
        rows[~usable], squares[~usable] = 0, 1
        rows /= np.sqrt(squares)[:, np.newaxis]
        for place, unit, good in zip(plain, rows.astype(np.float32), usable.tolist(), strict=True):
            if good:
                units[place] = unit
    return [_unit(values[place], dimension) if unit is None else unit for place, unit in enumerate(units)]


def _unit(value: object, dimension: int) -> Embedding | InputError:
    try:
        return unit_embedding(value, dimension)
    except InputError as exc:
        return exc


def _with_unit(given: object, unit: Any) -> Embedding | NewFace:
    return replace(given, embedding=unit) if isinstance(given, NewFace) else unit


class _Seen(NamedTuple):
    read: int
    refused: int


@dataclass(slots=True)
class _Tally:
    read: int = 0
    persons: int = 0
    faces: int = 0
    present: int = 0
    refused: int = 0
    refusals: list[Refusal] = field(default_factory=list)

    def refuse(self, position: int, reason: str) -> None:
        self.refused += 1
        if len(self.refusals) < _MOST_REFUSALS:
            self.refusals.append(Refusal(position, reason))

    def stored(self, offered: int, persons: int, faces: int) -> None:
        self.persons += persons
        self.faces += faces
        self.present += offered - persons

    def seen(self) -> _Seen:
        return _Seen(self.read, self.refused)

    def report(self, seen: _Seen | None = None) -> ImportReport:
        """seen: how far the stream had come, where it was read on meanwhile."""
        read, refused = seen or self.seen()
        refusals = tuple(self.refusals[:refused])
        return ImportReport(read, self.persons, self.faces, self.present, refused, refusals)
