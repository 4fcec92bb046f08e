"""Enrolls a stream of photos: several threads analyse them, while the batches before are written with binary COPY.

Bounded however long the stream is: at most three batches are under way, each of at most 128 photos or 32 MB of files.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from faceward.bulk_import import moved_away
from faceward.checks import check_description, check_external_id, check_name, check_region, composed
from faceward.enrolment import EnrolmentGate
from faceward.errors import (
    BusyError,
    ConflictError,
    ConstraintViolatedError,
    DuplicateFaceError,
    FacewardError,
    InputError,
    InvalidValueError,
)
from faceward.store.bulk import BulkWriter, NewPhoto, PhotoKey, PhotoOwner
from faceward.types import NewFace
from faceward.vision import read_image_file

# The first batches are small, so that a short import, too, is seen to go on and loses little when it is stopped.
_FIRST_BATCH, _LARGEST_BATCH = 8, 128
_BATCH_BYTES = 32 * 1024 * 1024
_ATTEMPTS = 3

SeveralFaces: TypeAlias = Literal["error", "largest"]


@dataclass(frozen=True, slots=True)
class PhotoRecord:
    """A photo of the person that `external_id` names within the region. photo: a path, or the bytes of an image file.

    name: of the person, who must have been called so in the gallery once where there is one. description: of one who is not
    there yet.
    """

    region: str
    external_id: str
    name: str
    photo: str | os.PathLike[str] | bytes = field(repr=False)
    description: str | None = None


@dataclass(frozen=True, slots=True)
class PhotoResult:
    """What became of a photo, once it is sure to last.

    enrolled: person_id and face_id say as what. skipped: it was enrolled for this person already. refused: code and
    reason say why; where it is another person's photo or external id, person_id says whose. new_person: the import made the
    person of an enrolled photo.
    """

    record: PhotoRecord
    status: Literal["enrolled", "skipped", "refused"]
    person_id: int | None = None
    face_id: int | None = None
    code: str = ""
    reason: str = ""
    new_person: bool = False


@dataclass(frozen=True, slots=True)
class PhotoReport:
    """read = enrolled + skipped + refused."""

    read: int = 0
    enrolled: int = 0
    skipped: int = 0
    refused: int = 0


class PhotoImporter:
    """Photos from a stream into the gallery. max_bytes: of a photo's file. large_import, large_from: as of an Importer.

    `run` may be stopped at any moment, and run again with the same photos: what is enrolled is skipped then. Stopped is
    it by what the stream or `on_result` raises, or by the stream's end.
    """

    def __init__(
        self,
        gate: EnrolmentGate,
        writer: BulkWriter,
        *,
        max_bytes: int,
        large_import: Callable[[int], AbstractContextManager[None] | None] | None = None,
        large_from: int = 20_000,
    ) -> None:
        self._gate = gate
        self._writer = writer
        self._max_bytes = max_bytes
        self._large_import = large_import
        self._large_from = large_from

    def run(
        self,
        client_id: str,
        photos: Iterable[PhotoRecord],
        *,
        workers: int = 1,
        several_faces: SeveralFaces = "error",
        on_result: Callable[[PhotoResult], None] | None = None,
    ) -> PhotoReport:
        """Enroll the photos. workers: photos analysed at once. on_result: told of each photo, in the stream's order.

        The stream is read, `on_result` called and the database written in the caller's thread. Keep no result of a long
        stream whose photos are bytes: each holds its photo. Raises what is no fault of a photo: StoreError, ModelError.
        """
        if several_faces not in ("error", "largest"):
            raise InvalidValueError("several_faces", several_faces, "'error' or 'largest'")
        counts: Counter[str] = Counter()
        with ExitStack() as stack:
            ask, ask_from = self._large_import, self._large_from
            pool = stack.enter_context(_pool(workers))
            for batch in self._analysed(client_id, photos, pool, several_faces):
                coming = counts["enrolled"] + sum(photo.result is None for photo in batch)
                if ask is not None and coming > ask_from:
                    ask_from = 2 * coming
                    aside = ask(coming)
                    if aside is not None:
                        stack.enter_context(aside)
                        ask = None
                self._store(client_id, [photo for photo in batch if photo.result is None])
                for photo in batch:
                    assert photo.result is not None
                    counts[photo.result.status] += 1
                    if on_result is not None:
                        on_result(photo.result)
        return PhotoReport(counts.total(), counts["enrolled"], counts["skipped"], counts["refused"])

    def _analysed(
        self, client_id: str, photos: Iterable[PhotoRecord], pool: ThreadPoolExecutor, several_faces: SeveralFaces
    ) -> Iterator[list[_Photo]]:
        """Batches of photos, each with its face or its result. While one is written the next two are worked on."""
        under_way: deque[list[_Photo]] = deque()
        read: list[_Photo] = []

        def analyse(batch: list[_Photo]) -> None:
            if not batch:
                return
            self._look_up(client_id, batch)
            for photo in batch:
                if photo.result is None:
                    photo.analysis = pool.submit(self._analyse, photo.record, several_faces)
            under_way.append(batch)

        for records in _batches(photos):
            reading = [_Photo(record, pool.submit(self._read, record)) for record in map(_composed, records)]
            analyse(read)
            read = reading
            if len(under_way) > 1:
                yield _finished(under_way.popleft())
        analyse(read)
        while under_way:
            yield _finished(under_way.popleft())

    def _read(self, record: PhotoRecord) -> bytes:
        """The photo's SHA-256. Raises InputError where the record can't be used."""
        check_region(record.region)
        check_external_id(record.external_id)
        check_name(record.name)
        check_description(record.description)
        data = record.photo if isinstance(record.photo, bytes) else read_image_file(record.photo, self._max_bytes)
        return hashlib.sha256(data).digest()

    def _analyse(self, record: PhotoRecord, several_faces: SeveralFaces) -> NewFace:
        (face,), _ = self._gate.admit(record.photo, several_faces)
        return face

    def _look_up(self, client_id: str, batch: Sequence[_Photo]) -> None:
        """Settle the photos that can't be read, and those that are enrolled already."""
        for photo in batch:
            try:
                photo.digest = photo.reading.result()
            except InputError as exc:
                photo.refuse(exc)
        self._settle(client_id, [photo for photo in batch if photo.result is None])

    def _settle(self, client_id: str, batch: Sequence[_Photo]) -> None:
        """Give the photos that are in the gallery their result."""
        if not batch:
            return
        owners = self._writer.owners_of(client_id, [photo.key for photo in batch])
        for photo in batch:
            if photo.key in owners:
                photo.found(owners[photo.key])

    def _store(self, client_id: str, batch: Sequence[_Photo]) -> None:
        """Write the photos, and give each its result. What another process is in the way of is settled in small steps."""
        left = list(batch)
        for _ in range(_ATTEMPTS):
            if not left:
                return
            self._write(client_id, list({photo.key: photo for photo in reversed(left)}.values())[::-1])
            left = [photo for photo in left if photo.result is None]
            self._settle(client_id, left)
            left = [photo for photo in left if photo.result is None]
        for photo in left:
            photo.refuse(photo.obstacle or BusyError("The photo is being enrolled elsewhere. Try again."))

    def _write(self, client_id: str, batch: Sequence[_Photo]) -> None:
        try:
            stored = self._writer.add_photos(client_id, [photo.row for photo in batch])
        except (ConstraintViolatedError, BusyError) as exc:
            if len(batch) == 1:
                batch[0].obstacle = exc
                return
            half = len(batch) // 2
            self._write(client_id, batch[:half])
            self._write(client_id, batch[half:])
            return
        for photo in batch:
            if photo.key in stored:
                photo.stored(stored[photo.key])


@dataclass(slots=True, eq=False)
class _Photo:
    """A photo on its way."""

    record: PhotoRecord
    reading: Future[bytes]
    digest: bytes = b""
    analysis: Future[NewFace] | None = None
    face: NewFace | None = None
    result: PhotoResult | None = None
    obstacle: FacewardError | None = None

    @property
    def key(self) -> PhotoKey:
        return self.record.region, self.digest

    @property
    def row(self) -> NewPhoto:
        assert self.face is not None
        record = self.record
        return NewPhoto(
            record.external_id, record.region, record.name, self.face, check_description(record.description)
        )

    def refuse(self, error: FacewardError, person_id: int | None = None) -> None:
        self.result = PhotoResult(self.record, "refused", person_id, None, error.code, str(error))

    def stored(self, owner: PhotoOwner) -> None:
        record = self.record
        if owner.face_id is not None:
            self.result = PhotoResult(record, "enrolled", owner.person_id, owner.face_id, new_person=owner.new)
            return
        if owner.moved:
            reason = moved_away(record.external_id, record.region)
            self.result = PhotoResult(record, "refused", code="moved", reason=reason)
            return
        # Without the other's name: who sends photos need not be allowed to read.
        reason = (
            f"In region {record.region} the external id {record.external_id} is that of person {owner.person_id}, who was "
            f"never called {record.name!r} in the gallery: another person, it seems."
        )
        self.result = PhotoResult(record, "refused", owner.person_id, None, "other_person", reason)

    def found(self, owners: Sequence[PhotoOwner]) -> None:
        own = next((owner for owner in owners if owner.external_id == self.record.external_id), None)
        if own is not None:
            self.result = PhotoResult(self.record, "skipped", own.person_id)
            return
        other = owners[0].person_id
        said = (
            f"This photo is enrolled in region {self.record.region!r} already, for person {other}. Nothing was stored."
        )
        self.refuse(DuplicateFaceError(said, person_id=other), other)


def _batches(photos: Iterable[PhotoRecord]) -> Iterator[list[PhotoRecord]]:
    batch: list[PhotoRecord] = []
    most, size = _FIRST_BATCH, 0
    for record in photos:
        batch.append(record)
        size += _size(record)
        if len(batch) >= most or size >= _BATCH_BYTES:
            yield batch
            batch, size, most = [], 0, min(2 * most, _LARGEST_BATCH)
    if batch:
        yield batch


def _composed(record: PhotoRecord) -> PhotoRecord:
    """With the names as `_read` takes them, whatever it then says of them."""
    region, external_id = composed(record.region), composed(record.external_id)
    if (region, external_id) == (record.region, record.external_id):
        return record
    return replace(record, region=region, external_id=external_id)


def _size(record: PhotoRecord) -> int:
    if isinstance(record.photo, bytes):
        return len(record.photo)
    try:
        return Path(record.photo).stat().st_size
    except (OSError, ValueError):  # told when it is read
        return 0


def _finished(batch: list[_Photo]) -> list[_Photo]:
    """The batch, once the last of its photos is analysed."""
    for photo in batch:
        if photo.analysis is not None:
            try:
                photo.face = photo.analysis.result()
                # The file may have been replaced since it was looked up: what was analysed is what counts.
                photo.digest = photo.face.image_sha256 or photo.digest
            except (InputError, ConflictError) as exc:
                photo.refuse(exc)
    return batch


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that end with the photos they are at, however the block ends."""
    with ThreadPoolExecutor(workers, thread_name_prefix="faceward-photos") as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
