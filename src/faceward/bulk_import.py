"""Imports a stream of persons: checks each record, writes in batches, and accounts for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from faceward.errors import InputError, InvalidValueError
from faceward.store.bulk import BulkWriter, NewPerson
from faceward.types import (
    MAX_EXTERNAL_ID,
    Embedding,
    NewFace,
    check_description,
    check_name,
    check_region,
    check_text,
    unit_embedding,
)

_BATCH_FACES = 5_000
_BATCH_IMAGES = 32 * 1024 * 1024  # bytes
_MOST_REFUSALS = 1_000
_MOST_FACES = 1_000


@dataclass(frozen=True, slots=True)
class PersonRecord:
    """A person to import. embeddings: one or more, each as many finite numbers as the model's dimension, or a NewFace
    with such an embedding, which keeps what else is known of the face.

    external_id: names the person within the region for good, so that a repeated import stores nobody twice.
    """

    external_id: str
    region: str
    name: str
    embeddings: Any = field(repr=False)
    description: str | None = None


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
    """One import. writer: stores batches. dimension: of the embeddings.

    large_import: asked with the faces stored so far and waiting once these are more than `large_from`, until it returns
    something to enter; left at the end. The place to set an index aside that is cheaper built once than kept up row by
    row. People who are there already do not count: an import that is repeated leaves the index alone.
    """

    def __init__(
        self,
        writer: BulkWriter,
        dimension: int,
        *,
        large_import: Callable[[int], AbstractContextManager[None] | None] | None = None,
        large_from: int = 20_000,
    ) -> None:
        self._writer = writer
        self._dimension = dimension
        self._large_import = large_import
        self._large_from = large_from

    def run(
        self,
        client_id: str,
        persons: Iterable[PersonRecord],
        progress: Callable[[ImportReport], None] | None = None,
    ) -> ImportReport:
        with ExitStack() as stack:
            tally = _Tally()
            ask = self._large_import
            for batch in self._batches(persons, tally):
                coming = tally.faces + sum(len(person.embeddings) for person in batch)
                if ask is not None and coming > self._large_from:
                    aside = ask(coming)
                    if aside is not None:
                        stack.enter_context(aside)
                        ask = None
                stored, faces = self._writer.write(client_id, batch)
                tally.stored(len(batch), stored, faces)
                if progress is not None:
                    progress(tally.report())
        return tally.report()

    def _batches(self, persons: Iterable[PersonRecord], tally: _Tally) -> Iterator[list[NewPerson]]:
        batch: dict[tuple[str, str], NewPerson] = {}
        faces = images = 0
        for position, record in enumerate(persons):
            tally.read += 1
            try:
                person = self._checked(record)
                key = (person.region, person.external_id)
                if key in batch:
                    raise InvalidValueError("external_id", person.external_id, "given once for each person of a region")
            except InputError as exc:
                tally.refuse(position, str(exc))
                continue
            batch[key] = person
            faces += len(person.embeddings)
            images += _image_bytes(person)
            if faces >= _BATCH_FACES or images >= _BATCH_IMAGES:
                yield list(batch.values())
                batch, faces, images = {}, 0, 0
        if batch:
            yield list(batch.values())

    def _checked(self, record: PersonRecord) -> NewPerson:
        given = record.embeddings
        if not isinstance(given, Iterable) or getattr(given, "ndim", 2) == 0:
            raise InvalidValueError("embeddings", given, "one or more embeddings")
        rows = [given] if getattr(given, "ndim", 2) == 1 else list(given)
        if not 1 <= len(rows) <= _MOST_FACES:
            raise InvalidValueError("the number of embeddings", len(rows), f"from 1 to {_MOST_FACES}")
        return NewPerson(
            external_id=check_text("external_id", record.external_id, MAX_EXTERNAL_ID),
            region=check_region(record.region),
            name=check_name(record.name),
            embeddings=tuple(self._face(row) for row in rows),
            description=check_description(record.description),
        )

    def _face(self, given: Any) -> Embedding | NewFace:
        if isinstance(given, NewFace):
            return replace(given, embedding=unit_embedding(given.embedding, self._dimension))
        return unit_embedding(given, self._dimension)


def _image_bytes(person: NewPerson) -> int:
    return sum(len(face.image_data or b"") for face in person.embeddings if isinstance(face, NewFace))


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

    def report(self) -> ImportReport:
        return ImportReport(self.read, self.persons, self.faces, self.present, self.refused, tuple(self.refusals))
