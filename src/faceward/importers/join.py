"""Joins the persons and the faces of a source as they stream by, and accounts for every row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from faceward.bulk_import import ImportReport, PersonRecord, other_person
from faceward.checks import check_description, check_external_id, check_name, check_region, check_text
from faceward.errors import ImageError, InputError, InvalidEmbeddingError, InvalidValueError
from faceward.importers.accounts import NOT_ADDED, Account, ImportAccount, RowProblem, Tally
from faceward.importers.assignment import RegionAssignment
from faceward.importers.decoding import Decoded, EmbeddingDecoder
from faceward.importers.model_check import SampleCheck
from faceward.importers.rows import FaceRow, PersonRow, Source
from faceward.types import NewFace
from faceward.vision.image_headers import read_header

MOST_FACES = 1_000
MAX_IMAGE_PATH = 500
_MOST_LISTED = 1_000
_LONGEST_PATH = 4_096  # of any file
_MOST_SHOWN = 100  # characters of a key
_MOST_SOURCE = 50
_OTHER = "other_person"
_MOVED = "moved"
_BLOCK_FACES = 50  # decoded at once: their texts and numbers fit a processor's cache

GivenFace: TypeAlias = "NewFace | NDArray[Any]"
"""An embedding, of any length above 0, with what else is known of the face."""


@dataclass(frozen=True, slots=True)
class SourceImport:
    """What an import is to do.

    regions: who goes where, but for those of whom the source says it. images: the folder that relative paths of images begin
    at. same_model: the caller's word that the embeddings are of the model in use. model_id: of which by name, so that they are
    refused where another is in use. reembed: make them anew from the images. several_faces: what an image with several gets.
    store_images: keep the images that lie in the source. person_images: bytes of one person's that are kept, for a person is
    written at once. workers: images worked on at once. source_name: tells the source from others that give the same ids to
    other people; it goes into the external ids.
    """

    regions: RegionAssignment
    client_id: str | None = None
    images: Path | None = None
    same_model: bool = False
    model_id: str | None = None
    reembed: bool = False
    several_faces: Literal["error", "largest"] = "error"
    store_images: bool = False
    person_images: int = 128 * 1024 * 1024
    workers: int = 1
    source_name: str | None = None


class Candidate(NamedTuple):
    """A person who may be imported, with the rows of faces."""

    row: PersonRow
    external_id: str
    region: str
    name: str
    description: str | None
    faces: list[FaceRow]

    def record(self, embeddings: object) -> PersonRecord:
        return PersonRecord(self.external_id, self.region, self.name, embeddings, self.description, self.row.row)


class Join:
    """One pass over the persons and the faces, both by ascending key of the person.

    dimension: of the model in use. progress: told how many rows of faces were read.
    """

    def __init__(
        self, given: SourceImport, source: Source, dimension: int, progress: Callable[[int], None] | None = None
    ) -> None:
        source.assign_regions(given.regions)
        self._given = given
        self._source = source
        self._dimension = dimension
        self._progress = progress
        self._decoder = EmbeddingDecoder(dimension)
        self._prefix = (
            source.prefix if given.source_name is None else f"{source.prefix}{check_source(given.source_name)}:"
        )
        self._tally = Tally()
        self._same_names: Mapping[str, int] = {}
        self._offered_faces = 0  # of the persons handed on
        self._present = self._present_faces = 0
        self._image_bytes = 0  # of the person at hand

    def records(self) -> Iterator[PersonRecord]:
        """The persons with their embeddings as they are stored; in a plan of re-embedding, those whose faces have an image."""
        for block in self._blocks():
            rows = [face for candidate in block for face in candidate.faces]
            decoded = self._decoder.decode_many([row.embedding for row in rows])
            end = 0
            for candidate in block:
                start, end = end, end + len(candidate.faces)
                faces = self._usable(candidate.faces, decoded[start:end])
                if not faces:
                    self.refuse_person(candidate.row, "no_face", "No face of this person can be used.", [])
                    continue
                yield self.offered(candidate, faces)

    def offered(self, candidate: Candidate, faces: list[Any]) -> PersonRecord:
        """The person with these faces, about to be imported."""
        self._tally.regions[candidate.region] += 1
        self._offered_faces += len(faces)
        return candidate.record(faces)

    def present(self, candidate: Candidate, faces: int) -> None:
        """Nothing is done with the person, who was imported before, with so many of the faces."""
        self._present += 1
        self._present_faces += faces
        self._tally.regions[candidate.region] += 1

    def refuse_other(self, candidate: Candidate, called: str) -> None:
        """Who is in the gallery by this external id is somebody else, called so."""
        reason = other_person(candidate.external_id, candidate.region, candidate.name, called)
        self.refuse_person(candidate.row, _OTHER, reason, candidate.faces)

    def account(self, report: ImportReport, *, dry_run: bool, sample: SampleCheck | None = None) -> ImportAccount:
        tally = self._tally
        warning = None if sample is None else sample.warning(tally.images)
        # Everything was checked before: these are what an importer of its own rules refuses, and whose id is somebody else's.
        left_out = (
            ("refused", report.refused, report.refused_faces, report.refusals),
            (_OTHER, report.others, report.other_faces, report.other_persons),
            (_MOVED, report.moved, report.moved_faces, report.moved_persons),
        )
        for code, persons_out, faces_out, rows in left_out:
            if persons_out:
                problems = [RowProblem(self._source.persons_table, each.row, code, each.reason) for each in rows]
                tally.refuse_offered(code, persons_out, faces_out, problems)
        if report.missing_faces:
            table = self._source.persons_table
            short = [RowProblem(table, each.row, NOT_ADDED, each.reason) for each in report.short_persons]
            tally.not_added(report.missing_faces, short)
        if report.taken_faces:
            table = self._source.persons_table
            tally.taken(
                report.taken_faces,
                [RowProblem(table, each.row, "duplicate", each.reason) for each in report.taken_persons],
            )
        present = report.present - report.others + self._present
        elsewhere = report.faces + report.missing_faces + report.taken_faces + sum(each[2] for each in left_out)
        present_faces = 0 if dry_run else self._offered_faces - elsewhere
        persons, faces = dict(tally.persons_refused), dict(tally.faces_refused)
        return ImportAccount(
            layout=dict(self._source.layout),
            dry_run=dry_run,
            persons=Account(tally.persons_read, report.persons, present, persons),
            faces=Account(tally.faces_read, report.faces, present_faces + self._present_faces, faces),
            dimensions=tally.dimensions(),
            encodings=tally.encodings(),
            regions=dict(tally.regions),
            unmapped=tuple(tally.unmapped),
            same_name=dict(self._same_names),
            images=tally.images,
            compared=0 if sample is None else sample.compared,
            agreed=0 if sample is None else sample.agreed,
            problems=(*(() if sample is None else sample.disagreeing), *tally.problems),
            images_left_out=dict(tally.images_left_out),
            warnings=tuple(filter(None, (warning, report.index_missing))),
        )

    def candidates(self) -> Iterator[Candidate]:
        """Every person who may be imported; all other rows are refused."""
        faces = self._faces()
        face = next(faces, None)
        last: str | None = None
        persons = self._source.persons()
        following = next(persons, None)
        while following is not None:
            row, following = following, next(persons, None)
            self._tally.persons_read += 1
            key = row.key
            while face is not None and face.key != key and (face.key is None or _before(face.key, key)):
                self._orphan(face)
                face = next(faces, None)
            own: list[FaceRow] = []
            while face is not None and key is not None and face.key == key:
                if len(own) < MOST_FACES:
                    own.append(face)
                else:
                    self.refuse_face(face, "too_many", f"A person has at most {MOST_FACES} faces.")
                face = next(faces, None)
            if key is not None and (key == last or (following is not None and key == following.key)):
                last = key
                reason = f"The id {row.id} is another person's too: whose its faces are can't be told."
                self.refuse_person(row, "duplicate_id", reason, own)
                continue
            candidate = self._candidate(row, own)
            if candidate is not None:
                yield candidate
        while face is not None:
            self._orphan(face)
            face = next(faces, None)
        self._same_names = self._source.same_names()  # here, where the last batches are still being written

    def _blocks(self) -> Iterator[list[Candidate]]:
        block: list[Candidate] = []
        faces = 0
        for candidate in self.candidates():
            block.append(candidate)
            faces += len(candidate.faces)
            if faces >= _BLOCK_FACES or len(block) >= _BLOCK_FACES:
                yield block
                block, faces = [], 0
        yield block

    def _candidate(self, row: PersonRow, own: list[FaceRow]) -> Candidate | None:
        if row.id is None:
            self.refuse_person(row, "no_id", "The person has no id.", own)
            return None
        if row.differing:
            self.refuse_person(row, "names_differ", f"The id {row.id} has several names: one person has one.", own)
            return None
        if row.regions_differ:
            self.refuse_person(
                row, "regions_differ", f"The id {row.id} has several regions, or none in some of its rows.", own
            )
            return None
        try:
            given = "" if row.name is None else row.name  # an empty field of a CSV, or NULL
            name = check_name(given.strip() if isinstance(given, str) else given)
            external_id = check_external_id(self._prefix + row.id)
            description = check_description(row.description)
            region = self._given.regions.region_of(row.id, name) if row.region is None else check_region(row.region)
        except InputError as exc:
            self.refuse_person(row, "invalid", str(exc), own)
            return None
        if region is None:
            if len(self._tally.unmapped) < _MOST_LISTED:
                self._tally.unmapped.append(f"{row.id}: {name}")
            self.refuse_person(row, "no_region", f"{name} (id {row.id}) has no region.", own)
            return None
        return Candidate(row, external_id, region, name, description, own)

    def _faces(self) -> Iterator[FaceRow]:
        tally, progress = self._tally, self._progress
        read = 0
        for read, face in enumerate(self._source.faces(), start=1):
            if face.has_image:
                tally.images += 1
            if progress is not None and read % 1000 == 0:
                progress(read)
            yield face
        tally.faces_read = read
        if progress is not None:
            progress(read)

    def _usable(self, rows: list[FaceRow], decoded: list[Decoded | InvalidEmbeddingError]) -> list[GivenFace]:
        self._image_bytes = 0
        if len(rows) == 1:
            face = self._face(rows[0], decoded[0])
            return [] if face is None else [face]
        faces: list[GivenFace] = []
        seen: set[bytes | str] = set()
        for row, found in zip(rows, decoded, strict=True):
            if row.embedding is not None and not self._given.reembed and _comparable(row.embedding) in seen:
                self.refuse_face(row, "duplicate", "The person has this embedding already.")
                continue
            face = self._face(row, found)
            if face is not None:
                faces.append(face)
                seen.add(_comparable(row.embedding))
        return faces

    def _face(self, row: FaceRow, found: Decoded | InvalidEmbeddingError) -> GivenFace | None:
        reembed = self._given.reembed
        if row.problem is not None and not reembed:
            self.refuse_face(row, *row.problem)
            return None
        if isinstance(found, Decoded):
            self._tally.read[found.encoding, found.numbers.size] += 1
        if reembed:
            if row.has_image:
                return NewFace(np.ones(1, np.float32))  # stands for the one that will be made
            self.refuse_face(row, "no_image", "There is no image to make an embedding of.")
            return None
        if not isinstance(found, Decoded):
            self.refuse_face(row, "unreadable", str(found))
            return None
        numbers = found.numbers
        if numbers.size != self._dimension:
            self.refuse_face(
                row,
                "other_length",
                f"The embedding has {numbers.size} numbers, the model in use makes {self._dimension}. Use --re-embed.",
            )
            return None
        if not row.has_image:
            return numbers
        data = self._image(row) if self._given.store_images else None
        digest = None if data is None else sha256(data).digest()
        # Of unit length once it is imported.
        return NewFace(numbers, image_path=stored_path(row), image_data=data, image_sha256=digest)

    def _image(self, row: FaceRow) -> bytes | None:
        """The image that lies in the source. What can't be kept is told, and the face is imported without it."""
        data = self._source.image(row)
        if data is None:
            if row.image_path is None:
                self._leave_image_out(row, "image_too_large", "it is empty, or larger than images.max_bytes.")
            return None
        try:
            read_header(data)
        except ImageError as exc:
            self._leave_image_out(row, exc.code, str(exc))
            return None
        most = self._given.person_images
        if self._image_bytes + len(data) > most:
            self._leave_image_out(
                row, "too_many_images", f"with it the person's images would take more than {most:,} bytes."
            )
            return None
        self._image_bytes += len(data)
        return data

    def _leave_image_out(self, row: FaceRow, code: str, reason: str) -> None:
        told = f"The face is imported without its image: {reason}"
        self._tally.leave_image_out(RowProblem(self._source.faces_table, row.row, code, told))

    def _orphan(self, face: FaceRow) -> None:
        if face.problem is not None and face.key is None:
            self.refuse_face(face, *face.problem)
            return
        whose = (
            "names no person"
            if face.key is None
            else f"belongs to the person {face.key[:_MOST_SHOWN]}, who does not exist"
        )
        self.refuse_face(face, "orphan", f"The face {whose}.")

    def refuse_face(self, face: FaceRow, code: str, reason: str) -> None:
        self._tally.refuse_face(RowProblem(self._source.faces_table, face.row, code, reason))

    def refuse_person(self, row: PersonRow, code: str, reason: str, faces: list[FaceRow]) -> None:
        self._tally.refuse_person(RowProblem(self._source.persons_table, row.row, code, reason))
        for face in faces:
            self.refuse_face(face, "person_refused", f"The person is refused: {reason}")


def check_source(name: str) -> str:
    """What --source gives, which begins external ids. Raises InvalidValueError."""
    if ":" in check_text("--source", name, _MOST_SOURCE):
        raise InvalidValueError("--source", name, "a name without a colon: one ends it in the external ids")
    return name


def stored_path(face: FaceRow) -> str | None:
    """The path of the face's image as the gallery keeps it."""
    path = face.image_path
    if not isinstance(path, str) or not path.strip() or "\x00" in path:
        return None
    if len(path) > _LONGEST_PATH or path.startswith("data:"):  # the image itself, as a text
        return None
    text = path.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= MAX_IMAGE_PATH else Path(text).name[:MAX_IMAGE_PATH]


def _before(key: str, other: str | None) -> bool:
    """Sources order texts by their UTF-8 bytes, those without a key first."""
    return other is not None and key.encode("utf-8", "surrogateescape") < other.encode("utf-8", "surrogateescape")


def _comparable(value: object) -> bytes | str:
    """Texts and bytes as they are: these know their hash once they were asked for it."""
    if isinstance(value, (bytes, str)):
        return value
    return value.tobytes() if isinstance(value, np.ndarray) else str(value)
