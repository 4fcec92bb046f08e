"""Imports the gallery of an older system: as its embeddings are, or made anew from its images."""

from __future__ import annotations

import gc
import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from faceward.bulk_import import ImportReport, PersonRecord
from faceward.checks import check_client_id
from faceward.errors import InputError, ModelMismatchError
from faceward.importers.accounts import NOT_ADDED, ImportAccount
from faceward.importers.join import Candidate, Join, SourceImport, stored_path
from faceward.importers.model_check import Photos, SampleCheck, require_folder, require_model
from faceward.importers.rows import FaceRow, Source
from faceward.service import FaceService
from faceward.types import NewFace, Person
from faceward.vision import read_image_file

Progress = Callable[[int], None]
_UNDER_WAY = 10_000  # photos: more than the importer has in its batches
_COLLECT_AFTER = 100_000  # new objects
_LARGEST_FILE = 64 * 1024 * 1024  # bytes


def plan_import(given: SourceImport, source: Source, dimension: int, progress: Progress | None = None) -> ImportAccount:
    """What `run_import` would do, with no database: every row is read, no image is. dimension: of the model in use.

    progress: told how many rows of faces were read.
    """
    check_client_id(given.client_id)
    require_folder(given.images)
    join = Join(replace(given, store_images=False), source, dimension, progress)
    faces = persons = 0
    with _fewer_collections():
        for record in join.records():
            persons += 1
            faces += len(record.embeddings)
    source.check_unchanged()
    return join.account(ImportReport(read=persons, persons=persons, faces=faces), dry_run=True)


def run_import(
    given: SourceImport,
    source: Source,
    service: FaceService,
    progress: Progress | None = None,
    *,
    written: Callable[[ImportReport], None] | None = None,
) -> ImportAccount:
    """Import. progress: as of plan_import. written: told what is stored, after each batch.

    Persons that an earlier run imported are left as they are. Raises ModelMismatchError, ImportSourceError, StoreError;
    what was stored until then stays, and the next run goes on from there.
    """
    check_client_id(given.client_id)
    require_folder(given.images)
    photos = Photos(source, given.images)
    join = Join(given, source, service.dimension, progress)
    if given.reembed:
        anew = _Anew(given, join, photos, service).records()
        report = service.import_embeddings(anew, client_id=given.client_id, progress=written)
        source.check_unchanged()
        return join.account(report, dry_run=False)
    if not given.same_model:
        raise ModelMismatchError(
            "Which model made the embeddings can't be seen from their numbers, and those of two models can't be "
            f"compared, even where both are {service.dimension} long: everybody would be a stranger. If they were "
            f"made by {service.model_id}, say --same-model; if the photos are there, --re-embed makes them anew."
        )
    # One for the whole run: after a change of the model meanwhile the rest is refused.
    model_id = service.model_id if given.model_id is None else given.model_id
    require_model(model_id, service.model_id)
    sample = SampleCheck(source, service, photos)
    sample.require()
    with _fewer_collections():
        report = service.import_embeddings(
            join.records(), client_id=given.client_id, model_id=model_id, progress=written
        )
    source.check_unchanged()
    return join.account(report, dry_run=False, sample=sample)


@contextmanager
def _fewer_collections() -> Iterator[None]:
    """Reading makes millions of objects and hardly a cycle among them: looking for some took a fifth of its time."""
    before = gc.get_threshold()
    gc.set_threshold(_COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@dataclass(frozen=True, slots=True)
class _Pending:
    candidate: Candidate
    faces: list[tuple[FaceRow, Future[NewFace]]]


class _Anew:
    """The persons of a source with embeddings that are made of their images."""

    def __init__(self, given: SourceImport, join: Join, photos: Photos, service: FaceService) -> None:
        self._given = given
        self._join = join
        self._photos = photos
        self._service = service
        self._seen: deque[tuple[str, bytes]] = deque(
            maxlen=_UNDER_WAY
        )  # those before are stored: the gallery knows them

    def records(self) -> Iterator[PersonRecord]:
        with ThreadPoolExecutor(self._given.workers, thread_name_prefix="faceward-import") as pool:
            waiting: deque[_Pending] = deque()
            try:
                for pending in self._begun(pool):
                    waiting.append(pending)
                    while sum(len(each.faces) for each in waiting) > 4 * self._given.workers:
                        yield from self._finished(waiting.popleft())
                while waiting:
                    yield from self._finished(waiting.popleft())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _begun(self, pool: ThreadPoolExecutor) -> Iterator[_Pending]:
        """The persons who are not there yet, or without a face, their images being worked on."""
        most = 4 * self._given.workers
        for candidate in self._join.candidates():
            there = self._there(candidate)
            if there is not None and not self._is(there, candidate):
                self._join.refuse_other(candidate, there.name)
                continue
            if there is not None and there.face_count:
                self._join.present(candidate, self._faces_there(there, candidate.faces))
                continue
            begun: list[tuple[FaceRow, Future[NewFace]]] = []
            for face in candidate.faces:
                image = self._photos.of(face) if face.has_image else None
                if image is None:
                    self._refuse_imageless(face)
                    continue
                if len(begun) >= most:
                    wait([begun[-most][1]])  # a person with many photos has only some of them in memory
                begun.append((face, pool.submit(partial(self._embed, image, stored_path(face)))))
            yield _Pending(candidate, begun)

    def _there(self, candidate: Candidate) -> Person | None:
        """Whoever has the external id in the region."""
        page = self._service.list_persons(
            region=candidate.region, external_id=candidate.external_id, client_id=self._given.client_id, limit=1
        )
        return page.persons[0] if page.persons else None

    def _faces_there(self, person: Person, faces: list[FaceRow]) -> int:
        """How many of the faces the person has; the others are refused. Images are looked at only where some are missing."""
        if person.face_count >= len(faces):
            return len(faces)
        found: set[bytes] = set()
        unknown: list[FaceRow] = []
        for face in faces:
            image = self._photos.of(face) if face.has_image else None
            if image is None:
                self._refuse_imageless(face)
                continue
            try:
                data = image if isinstance(image, bytes) else read_image_file(image, _LARGEST_FILE)
            except InputError as exc:
                self._join.refuse_face(face, exc.code, str(exc))
                continue
            digest = hashlib.sha256(data).digest()
            owner = self._owner((person.region, digest))
            if owner is None:
                unknown.append(face)
            elif owner != person.id or digest in found:
                self._refuse_known(face)
            else:
                found.add(digest)
        # What is not known by its photo may be a face that was imported as an embedding.
        there = min(len(unknown), max(0, person.face_count - len(found)))
        for face in unknown[there:]:
            self._join.refuse_face(
                face, NOT_ADDED, "The person was there before, without this face, and an import adds none to those."
            )
        return len(found) + there

    def _refuse_imageless(self, face: FaceRow) -> None:
        said = "There is no image to make an embedding of, or one larger than images.max_bytes."
        self._join.refuse_face(face, "no_image", said)

    def _refuse_known(self, face: FaceRow) -> None:
        self._join.refuse_face(face, "duplicate", "The same photo is enrolled in this region already.")

    def _is(self, person: Person, candidate: Candidate) -> bool:
        return person.name == candidate.name or self._service.was_called(
            person.id, candidate.name, client_id=self._given.client_id
        )

    def _embed(self, image: bytes | Path, path: str | None) -> NewFace:
        (face,) = self._service.faces_to_store(image, several_faces=self._given.several_faces)
        return replace(face, image_path=path)

    def _finished(self, pending: _Pending) -> Iterator[PersonRecord]:
        candidate = pending.candidate
        faces: list[NewFace] = []
        for row, future in pending.faces:
            try:
                face = future.result()
            except InputError as exc:
                self._join.refuse_face(row, exc.code, str(exc))
                continue
            photo = (candidate.region, face.image_sha256 or b"")
            if photo in self._seen or self._owner(photo) is not None:
                self._refuse_known(row)
                continue
            self._seen.append(photo)
            faces.append(face)
        if not faces:
            self._join.refuse_person(candidate.row, "no_face", "No face of this person can be used.", [])
            return
        yield self._join.offered(candidate, faces)

    def _owner(self, photo: tuple[str, bytes]) -> int | None:
        """The person that a photo, by the SHA-256 of its file, is enrolled for in a region."""
        region, digest = photo
        return self._service.person_of_photo_digest(digest, region=region, client_id=self._given.client_id)
