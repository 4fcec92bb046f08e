"""Imports a stream of persons: checks each record, writes in batches, and accounts for all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from faceward.checks import (
    check_description,
    check_external_id,
    check_name,
    check_region,
    unit_embedding,
)
from faceward.errors import IndexMissingError, InputError, InvalidValueError
from faceward.store.bulk import BulkWriter, NewPerson, Written
from faceward.types import Embedding, NewFace

_BATCH_FACES = 2_000
_WORTH_HALVING = 1_000  # persons of the last batch
_BLOCK_FACES = 100  # checked at once: their numbers fit a processor's cache
_SQUARES = 1e-100, 1e100  # sums of squares that are exact enough: others take more care
_BATCH_IMAGES = 32 * 1024 * 1024  # bytes
_MOST_REFUSALS = 1_000
_MOST_FACES = 1_000


class PersonRecord(NamedTuple):
    """A person to import. embeddings: one or more, each as many finite numbers as the model's dimension, or a NewFace
    with such an embedding, which keeps what else is known of the face.

    external_id: names the person within the region for good, so that a repeated import stores nobody twice. row: what names
    the record where it is from; a refusal says it.
    """

    external_id: str
    region: str
    name: str
    embeddings: Any
    description: str | None = None
    row: object = None

    def __repr__(self) -> str:
        return f"PersonRecord({self.external_id!r}, {self.region!r})"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that was not imported. position: its place in the stream, from 0. row: as in the record."""

    position: int
    reason: str
    row: object = None


@dataclass(frozen=True, slots=True)
class ImportReport:
    """read = persons + present + refused + moved. present: were there before. refused_faces: of refused persons whose other
    values could be used. refusals: the first thousand of `refused`.

    others: those of `present` whose external id is that of a person who never had their name in the gallery: somebody else, it
    seems. other_faces: the embeddings of these. other_persons: the first thousand, with the reason as a refusal has it.
    taken_faces: photos with which somebody else was enrolled meanwhile; who has no other is refused. taken_persons: as above.
    index_missing: what is to be done where the index that was set aside could not be built again; empty otherwise.
    missing_faces: of the others who were there before, embeddings beyond the faces that they have. short_persons: as above.
    moved: who was moved out of that region, and is not made there anew. moved_faces, moved_persons: as above.
    """

    read: int = 0
    persons: int = 0
    faces: int = 0
    present: int = 0
    refused: int = 0
    refusals: tuple[Refusal, ...] = ()
    refused_faces: int = 0
    others: int = 0
    other_faces: int = 0
    other_persons: tuple[Refusal, ...] = ()
    missing_faces: int = 0
    short_persons: tuple[Refusal, ...] = ()
    moved: int = 0
    moved_faces: int = 0
    moved_persons: tuple[Refusal, ...] = ()
    taken_faces: int = 0
    taken_persons: tuple[Refusal, ...] = ()
    index_missing: str = ""


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
        index_missing = ""
        try:
            self._run(client_id, persons, progress, tally)
        except IndexMissingError as exc:  # all is stored by then
            index_missing = str(exc)
        self._writer.settle()
        return replace(tally.report(), index_missing=index_missing)

    def _run(
        self,
        client_id: str,
        persons: Iterable[PersonRecord],
        progress: Callable[[ImportReport], None] | None,
        tally: _Tally,
    ) -> None:
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(self._connections, thread_name_prefix="faceward-write"))
            writing: deque[_Writing] = deque()

            def finish(left: int) -> None:
                while len(writing) > left:
                    first = writing[0]
                    tally.stored(first.persons, first.stored.result())
                    writing.popleft()
                    if progress is not None:
                        progress(tally.report(first.seen))

            ask, ask_from = self._large_import, self._large_from
            try:
                for batch in self._batches(persons, tally):
                    finish(self._connections - 1)
                    faces = sum(len(person.embeddings) for person in batch)
                    coming = tally.faces + faces
                    if ask is not None and ask_from < coming + sum(each.faces for each in writing):
                        # Those of them who are there already do not count, and what is being written holds the index.
                        finish(0)
                        coming = tally.faces + faces
                    if ask is not None and coming > ask_from:
                        ask_from = 2 * coming
                        aside = ask(coming)
                        if aside is not None:
                            stack.enter_context(aside)
                            ask = None
                    # One that is run again meets somebody in its first batches.
                    write = partial(self._writer.write, client_id, batch, all_new=not tally.present)
                    # Its own copy for each: the thread that writes is still the caller's doing, as the audit log has it.
                    stored = pool.submit(copy_context().run, write)
                    writing.append(_Writing(stored, batch, faces, tally.seen()))
                finish(0)
            except BaseException:
                wait(each.stored for each in writing)
                raise

    def _batches(self, persons: Iterable[PersonRecord], tally: _Tally) -> Iterator[list[NewPerson]]:
        batch: dict[tuple[str, str], NewPerson] = {}
        block: list[_Checked] = []
        faces = in_block = images = 0
        for position, record in enumerate(persons):
            tally.read += 1
            checked = self._checked(position, record)
            block.append(checked)
            rows = checked[2]
            in_block += len(rows)
            for row in rows:
                if isinstance(row, NewFace) and row.image_data is not None:
                    images += len(row.image_data)
            if in_block < _BLOCK_FACES and len(block) < _BLOCK_FACES and images < _BATCH_IMAGES:
                continue
            faces += self._admit(block, batch, tally)
            block, in_block = [], 0
            if faces >= _BATCH_FACES or images >= _BATCH_IMAGES:
                if batch:
                    yield list(batch.values())
                batch, faces, images = {}, 0, 0
        self._admit(block, batch, tally)
        rest = list(batch.values())
        half = len(rest) // 2 if len(rest) >= _WORTH_HALVING else len(rest)
        yield from filter(None, (rest[:half], rest[half:]))  # nothing comes after it: two connections are done sooner

    def _checked(self, position: int, record: PersonRecord) -> _Checked:
        """The record, but for the numbers of its embeddings, which are checked many at once."""
        external_id, region, name, given, description, row = record
        try:
            rows = given if type(given) is list else _rows_of(given)
            if not 1 <= len(rows) <= _MOST_FACES:
                raise InvalidValueError("the number of embeddings", len(rows), f"from 1 to {_MOST_FACES}")
            person = (
                check_external_id(external_id),
                check_region(region),
                check_name(name),
                check_description(description),
            )
            return position, row, rows, person
        except InputError as exc:
            return position, row, [], exc

    def _admit(self, block: list[_Checked], batch: dict[tuple[str, str], NewPerson], tally: _Tally) -> int:
        """Put the persons of the block that can be imported into the batch; returns how many faces these are."""
        units = _units([row for _, _, rows, _ in block for row in rows], self._dimension)
        faces = end = 0
        for position, row, rows, person in block:
            start, end = end, end + len(rows)
            own = units[start:end]
            if isinstance(person, InputError):
                tally.refuse(Refusal(position, str(person), row))
                continue
            if (wrong := _first_error(own)) is not None:
                tally.refuse(Refusal(position, str(wrong), row), len(rows))
                continue
            external_id, region, name, description = person
            if (region, external_id) in batch:
                twice = InvalidValueError("external_id", external_id, "given once for each person of a region")
                tally.refuse(Refusal(position, str(twice), row), len(rows))
                continue
            batch[region, external_id] = NewPerson(external_id, region, name, tuple(own), description, position, row)
            faces += len(rows)
        return faces


_Checked: TypeAlias = tuple[int, object, list[Any], tuple[str, str, str, str | None] | InputError]
"""A record on its way: its position and row; its embeddings as they were given; external id, region, name and description, or
why it is refused.
"""


@dataclass(frozen=True, slots=True)
class _Writing:
    """A batch that is being written. seen: of the stream, when it was handed on."""

    stored: Future[Written]
    persons: list[NewPerson]
    faces: int
    seen: _Seen


def _rows_of(embeddings: object) -> list[Any]:
    if not isinstance(embeddings, Iterable) or getattr(embeddings, "ndim", 2) == 0:
        raise InvalidValueError("embeddings", embeddings, "one or more embeddings")
    return [embeddings] if getattr(embeddings, "ndim", 2) == 1 else list(embeddings)


def _units(values: Sequence[Any], dimension: int) -> list[Any]:
    """Each with its embedding as unit_embedding returns it, or what that raises; plain arrays all at once."""
    units: list[Any] = [value.embedding if isinstance(value, NewFace) else value for value in values]
    plain = [
        place
        for place, value in enumerate(units)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.shape == (dimension,)
    ]
    careful = set(range(len(units))).difference(plain)
    if plain:
        rows = np.array([units[place] for place in plain], dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.einsum("ij,ij->i", rows, rows)
        usable = (squares > _SQUARES[0]) & (squares < _SQUARES[1])
        rows[~usable], squares[~usable] = 0, 1
        rows /= np.sqrt(squares)[:, np.newaxis]
        for place, unit, good in zip(plain, rows.astype(np.float32), usable.tolist(), strict=True):
            if good:
                units[place] = unit
            else:
                careful.add(place)
    for place in careful:
        units[place] = _unit(units[place], dimension)
    for place, value in enumerate(values):
        if isinstance(value, NewFace) and not isinstance(units[place], InputError):
            units[place] = replace(value, embedding=units[place])
    return units


def _unit(value: object, dimension: int) -> Embedding | InputError:
    try:
        return unit_embedding(value, dimension)
    except InputError as exc:
        return exc


def _first_error(values: list[Any]) -> InputError | None:
    for value in values:
        if isinstance(value, InputError):
            return value
    return None


def other_person(external_id: str, region: str, name: str, called: str) -> str:
    """Why a person is by all that is known not the one of this external id, who is called so in the gallery."""
    return (
        f"In region {region} the external id {external_id} is that of {called!r}, who was never called {name!r} in the "
        "gallery: another person, it seems."
    )


def moved_away(external_id: str, region: str) -> str:
    """Why somebody is not imported again. Not where the person is now: who imports need not be allowed to know."""
    return (
        f"The person {external_id} was moved out of region {region}, and is not imported there again. Change the region that "
        "the import has; who is to be in both is enrolled in the second one."
    )


_TAKEN = "The same photo was enrolled in this region for somebody else meanwhile."


def _short(missing: int) -> str:
    faces = "One face is" if missing == 1 else f"{missing} faces are"
    return f"{faces} not in the gallery: the person was there before, with fewer, and an import adds none to those."


def _keep(kept: list[Refusal], refusal: Refusal) -> None:
    if len(kept) < _MOST_REFUSALS:
        kept.append(refusal)


class _Seen(NamedTuple):
    read: int
    refused: int
    refused_faces: int


@dataclass(slots=True)
class _Tally:
    read: int = 0
    persons: int = 0
    faces: int = 0
    present: int = 0
    refused: int = 0
    refused_faces: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    others: int = 0
    other_faces: int = 0
    other_persons: list[Refusal] = field(default_factory=list)
    missing_faces: int = 0
    short_persons: list[Refusal] = field(default_factory=list)
    moved: int = 0
    moved_faces: int = 0
    moved_persons: list[Refusal] = field(default_factory=list)
    taken_faces: int = 0
    taken_persons: list[Refusal] = field(default_factory=list)

    def refuse(self, refusal: Refusal, faces: int = 0) -> None:
        self.refused += 1
        self.refused_faces += faces
        _keep(self.refusals, refusal)

    def stored(self, offered: Sequence[NewPerson], written: Written) -> None:
        self.persons += written.persons
        self.faces += written.faces
        self.present += len(offered) - written.persons - len(written.moved)
        if not written.others and not written.short and not written.moved and not written.taken:
            return
        for person in offered:
            key = person.region, person.external_id
            if key in written.moved:
                self.moved += 1
                self.moved_faces += len(person.embeddings)
                said = moved_away(person.external_id, person.region)
                _keep(self.moved_persons, Refusal(person.position, said, person.row))
            elif taken := written.taken.get(key, 0):
                self.taken_faces += taken
                refusal = Refusal(person.position, _TAKEN, person.row)
                _keep(self.taken_persons, refusal)
                if taken == len(person.embeddings):
                    self.present -= 1
                    self.refuse(refusal)
            if (missing := written.short.get(key, 0)) > 0:
                self.missing_faces += missing
                _keep(self.short_persons, Refusal(person.position, _short(missing), person.row))
            called = written.others.get(key)
            if called is not None:
                self.others += 1
                self.other_faces += len(person.embeddings)
                said = other_person(person.external_id, person.region, person.name, called)
                _keep(self.other_persons, Refusal(person.position, said, person.row))

    def seen(self) -> _Seen:
        return _Seen(self.read, self.refused, self.refused_faces)

    def report(self, seen: _Seen | None = None) -> ImportReport:
        """seen: how far the stream had come, where it was read on meanwhile."""
        read, refused, refused_faces = seen or self.seen()
        refusals = tuple(self.refusals[:refused])
        others = self.others, self.other_faces, tuple(self.other_persons)
        missing = self.missing_faces, tuple(self.short_persons)
        counts = read, self.persons, self.faces, self.present
        return ImportReport(
            *counts,
            refused,
            refusals,
            refused_faces,
            *others,
            *missing,
            taken_faces=self.taken_faces,
            taken_persons=tuple(self.taken_persons),
            moved=self.moved,
            moved_faces=self.moved_faces,
            moved_persons=tuple(self.moved_persons),
        )
