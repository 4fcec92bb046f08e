"""Imports an SQLite file: joins its persons and faces as they stream by, and accounts for every row."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from faceward.bulk_import import ImportReport, PersonRecord
from faceward.checks import MAX_EXTERNAL_ID, check_client_id, check_description, check_name, check_text
from faceward.errors import InputError, InvalidEmbeddingError, ModelMismatchError
from faceward.importers.accounts import Account, ImportAccount, RowProblem, Tally
from faceward.importers.assignment import RegionAssignment
from faceward.importers.decoding import EmbeddingDecoder
from faceward.importers.model_check import Photos, SampleCheck
from faceward.importers.sqlite_source import FaceRow, PersonRow, SqliteSource
from faceward.service import FaceService
from faceward.types import NewFace

MOST_FACES = 1_000
MAX_IMAGE_PATH = 500
_MOST_LISTED = 1_000
PREFIX = "sqlite:"

GivenFace: TypeAlias = "NewFace | NDArray[Any]"
"""An embedding, of any length above 0, with what else is known of the face."""


@dataclass(frozen=True, slots=True)
class SqliteImport:
    """What an import is to do.

    regions: who goes where. images: the folder that relative paths of images begin at. same_model: the caller's word that
    the embeddings are of the model in use. reembed: make them anew from the images. largest: of an image with several
    faces take the largest. store_images: keep the images that lie in the file. workers: images worked on at once.
    """

    regions: RegionAssignment
    client_id: str | None = None
    images: Path | None = None
    same_model: bool = False
    reembed: bool = False
    several_faces: Literal["error", "largest"] = "error"
    store_images: bool = False
    workers: int = 1

    def plan(
        self, source: SqliteSource, dimension: int, progress: Callable[[int], None] | None = None
    ) -> ImportAccount:
        """What `run` would do, with no database: every row is read, no image is. dimension: of the model in use."""
        check_client_id(self.client_id)
        join = _Join(self, source, dimension, None, progress)
        faces = persons = 0
        for record in join.records():
            persons += 1
            faces += len(record.embeddings)
        source.check_unchanged()
        return join.account(ImportReport(read=persons, persons=persons, faces=faces), None)

    def run(
        self, source: SqliteSource, service: FaceService, progress: Callable[[int], None] | None = None
    ) -> ImportAccount:
        """Import. progress: told how many rows of faces were read.

        Persons that an earlier run imported are left as they are. Raises ModelMismatchError, ImportSourceError, StoreError;
        what was stored until then stays, and the next run goes on from there.
        """
        check_client_id(self.client_id)
        sample = None
        if not self.reembed:
            if not self.same_model:
                raise ModelMismatchError(
                    "Which model made the embeddings can't be seen from their numbers, and those of two models can't be "
                    f"compared, even where both are {service.dimension} long: everybody would be a stranger. If they were "
                    f"made by {service.model_id}, say --same-model; if the photos are there, --re-embed makes them anew."
                )
            sample = SampleCheck(source, service, Photos(source, self.images))
            sample.require()
        join = _Join(self, source, service.dimension, service, progress)
        report = service.import_embeddings(join.records(), client_id=self.client_id)
        source.check_unchanged()
        return join.account(report, sample)


class _Join:
    """One pass over the persons and the faces, both by ascending id of the person."""

    def __init__(
        self,
        given: SqliteImport,
        source: SqliteSource,
        dimension: int,
        service: FaceService | None,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._given = given
        self._source = source
        self._dimension = dimension
        self._service = service
        self._progress = progress
        self._photos = Photos(source, given.images)
        self._decoder = EmbeddingDecoder(dimension)
        self._tally = Tally()
        self._same_names: dict[str, int] = source.same_names()
        self._offered = array("L")  # faces of each person handed on, by position
        self._present_faces = 0
        self._present = 0
        self._photos_seen: set[tuple[str, bytes]] = set()

    def records(self) -> Iterator[PersonRecord]:
        if not (self._given.reembed and self._service):
            for record in self._checked(self._direct):
                self._offered.append(len(record.embeddings))
                yield record
            return
        with ThreadPoolExecutor(self._given.workers, thread_name_prefix="faceward-import") as pool:
            waiting: deque[_Pending] = deque()
            try:
                for pending in self._pending(pool):
                    waiting.append(pending)
                    while sum(len(each.faces) for each in waiting) > 4 * self._given.workers:
                        yield from self._finished(waiting.popleft())
                while waiting:
                    yield from self._finished(waiting.popleft())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def account(self, report: ImportReport, sample: SampleCheck | None) -> ImportAccount:
        tally = self._tally
        for refusal in report.refusals:  # everything was checked before: only what an importer of its own rules refuses
            tally.persons_refused["refused"] += 1
            tally.faces_refused["person_refused"] += self._offered[refusal.position]
        refused_faces = sum(self._offered[refusal.position] for refusal in report.refusals)
        present_faces = sum(self._offered) - report.faces - refused_faces if self._service else 0
        return ImportAccount(
            layout=self._source.layout.described(),
            dry_run=self._service is None,
            persons=Account(
                tally.persons_read, report.persons, report.present + self._present, dict(tally.persons_refused)
            ),
            faces=Account(
                tally.faces_read, report.faces, present_faces + self._present_faces, dict(tally.faces_refused)
            ),
            dimensions=dict(tally.dimensions),
            encodings=dict(tally.encodings),
            regions=dict(tally.regions),
            unmapped=tuple(tally.unmapped),
            same_name=self._same_names,
            images=tally.images,
            compared=sample.compared if sample else 0,
            agreed=sample.agreed if sample else 0,
            problems=tuple(tally.problems),
        )

    def _checked(self, faces_of: Callable[[list[FaceRow]], list[GivenFace]]) -> Iterator[PersonRecord]:
        for row, record, face_rows in self._persons():
            faces = faces_of(face_rows)
            if not faces:
                self._refuse_person(row, "no_face", "No face of this person can be used.", [])
                continue
            self._tally.regions[record.region] += 1
            yield PersonRecord(record.external_id, record.region, record.name, faces, record.description)

    def _persons(self) -> Iterator[tuple[PersonRow, PersonRecord, list[FaceRow]]]:
        """Every person who may be imported, with the rows of faces; all other rows are refused."""
        faces = ((face, _order(face.key)) for face in self._faces())
        nothing: tuple[FaceRow | None, bytes] = (None, b"")
        face, order = next(faces, nothing)
        last: bytes | None = None
        for row in self._source.persons():
            self._tally.persons_read += 1
            key = _order(row.key)
            while face is not None and (order < key or face.key is None):
                self._orphan(face)
                face, order = next(faces, nothing)
            own: list[FaceRow] = []
            surplus = 0
            while face is not None and row.key is not None and order == key:
                if len(own) < MOST_FACES:
                    own.append(face)
                else:
                    surplus += 1
                    self._refuse_face(face, "too_many", f"A person has at most {MOST_FACES} faces.")
                face, order = next(faces, nothing)
            if row.key is not None and key == last:
                self._refuse_person(row, "duplicate_id", f"The id {row.key} is another person's too.", own)
                continue
            last = key
            record = self._record(row, own)
            if record is not None:
                yield row, record, own
        while face is not None:
            self._orphan(face)
            face, order = next(faces, nothing)

    def _record(self, row: PersonRow, own: list[FaceRow]) -> PersonRecord | None:
        if row.key is None:
            self._refuse_person(row, "no_id", "The person has no id.", own)
            return None
        try:
            name = check_name(row.name.strip() if isinstance(row.name, str) else row.name)
            external_id = check_text("external_id", PREFIX + row.key, MAX_EXTERNAL_ID)
            description = check_description(row.description)
        except InputError as exc:
            self._refuse_person(row, "invalid", str(exc), own)
            return None
        region = self._given.regions.region_of(row.key, name)
        if region is None:
            if len(self._tally.unmapped) < _MOST_LISTED:
                self._tally.unmapped.append(f"{row.key}: {name}")
            self._refuse_person(row, "no_region", f"{name} (id {row.key}) has no region.", own)
            return None
        return PersonRecord(external_id, region, name, (), description)

    def _faces(self) -> Iterator[FaceRow]:
        read = 0
        for face in self._source.faces():
            read += 1
            self._tally.faces_read = read
            self._tally.images += face.has_image
            if self._progress and read % 1000 == 0:
                self._progress(read)
            yield face
        if self._progress:
            self._progress(read)

    def _direct(self, rows: list[FaceRow]) -> list[GivenFace]:
        """The faces with their embeddings as they are stored; in a plan of re-embedding, those that have an image."""
        faces: list[GivenFace] = []
        seen: set[bytes] = set()
        for row in rows:
            given = row.embedding
            same = given if isinstance(given, bytes) else str(given).encode("utf-8", "surrogateescape")
            if given is not None and same in seen and not self._given.reembed:
                self._refuse_face(row, "duplicate", "The person has this embedding already.")
                continue
            face = self._face(row)
            if face is not None:
                seen.add(same)
                faces.append(face)
        return faces

    def _face(self, row: FaceRow) -> GivenFace | None:
        try:
            encoding, numbers = self._decoder.decode(row.embedding)
            self._tally.encodings[encoding] += 1
            self._tally.dimensions[str(numbers.size)] += 1
        except InvalidEmbeddingError as exc:
            if not self._given.reembed:
                self._refuse_face(row, "unreadable", str(exc))
                return None
        if self._given.reembed:
            if row.has_image:
                return NewFace(np.ones(1, np.float32))  # stands for the one that will be made
            self._refuse_face(row, "no_image", "There is no image to make an embedding of.")
            return None
        if numbers.size != self._dimension:
            self._refuse_face(
                row,
                "other_length",
                f"The embedding has {numbers.size} numbers, the model in use makes {self._dimension}. Use --re-embed.",
            )
            return None
        data = self._source.image(row) if self._given.store_images and row.has_image else None
        path = _path(row)
        if path is None and data is None:
            return numbers
        return NewFace(numbers, image_path=path, image_data=data)  # of unit length once it is imported

    def _pending(self, pool: ThreadPoolExecutor) -> Iterator[_Pending]:
        """The persons who are not there yet, their images being worked on."""
        assert self._service is not None
        for row, record, rows in self._persons():
            page = self._service.list_persons(
                region=record.region, external_id=record.external_id, client_id=self._given.client_id, limit=1
            )
            if page.persons:
                self._present += 1
                self._present_faces += len(rows)
                self._tally.regions[record.region] += 1
                continue
            begun: list[tuple[FaceRow, Future[NewFace]]] = []
            for face in rows:
                image = self._photos.of(face) if face.has_image else None
                if image is None:
                    self._refuse_face(face, "no_image", "There is no image to make an embedding of.")
                    continue
                begun.append((face, pool.submit(partial(self._embed, image, _path(face)))))
            yield _Pending(row, record, begun)

    def _embed(self, image: bytes | Path, path: str | None) -> NewFace:
        assert self._service is not None
        (face,) = self._service.faces_to_store(image, several_faces=self._given.several_faces)
        return replace(face, image_path=path)

    def _finished(self, pending: _Pending) -> Iterator[PersonRecord]:
        faces: list[NewFace] = []
        for row, future in pending.faces:
            try:
                face = future.result()
            except InputError as exc:
                self._refuse_face(row, exc.code, str(exc))
                continue
            photo = (pending.record.region, face.image_sha256 or b"")
            if photo in self._photos_seen or self._stored(photo):
                self._refuse_face(row, "duplicate", "The same photo is enrolled in this region already.")
                continue
            self._photos_seen.add(photo)
            faces.append(face)
        if not faces:
            self._refuse_person(pending.row, "no_face", "No face of this person can be used.", [])
            return
        self._tally.regions[pending.record.region] += 1
        self._offered.append(len(faces))
        yield replace(pending.record, embeddings=faces)

    def _stored(self, photo: tuple[str, bytes]) -> bool:
        assert self._service is not None
        region, digest = photo
        return self._service.person_of_photo_digest(digest, region=region, client_id=self._given.client_id) is not None

    def _orphan(self, face: FaceRow) -> None:
        whose = "names no person" if face.key is None else f"belongs to the person {face.key}, who does not exist"
        self._refuse_face(face, "orphan", f"The face {whose}.")

    def _refuse_face(self, face: FaceRow, code: str, reason: str) -> None:
        self._tally.refuse_face(RowProblem(self._source.layout.faces, face.row, code, reason))

    def _refuse_person(self, row: PersonRow, code: str, reason: str, faces: list[FaceRow]) -> None:
        self._tally.refuse_person(RowProblem(self._source.layout.persons, row.row, code, reason))
        for face in faces:
            self._refuse_face(face, "person_refused", f"The person is refused: {reason}")


@dataclass(frozen=True, slots=True)
class _Pending:
    row: PersonRow
    record: PersonRecord
    faces: list[tuple[FaceRow, Future[NewFace]]]


def _order(key: str | None) -> bytes:
    """SQLite orders texts by their UTF-8 bytes."""
    return b"" if key is None else key.encode("utf-8", "surrogateescape")


def _path(face: FaceRow) -> str | None:
    path = face.image_path
    if not isinstance(path, str) or not path.strip() or "\x00" in path:
        return None
    text = path.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= MAX_IMAGE_PATH else Path(text).name[:MAX_IMAGE_PATH]
