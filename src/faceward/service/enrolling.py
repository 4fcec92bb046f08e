"""Enrolment: photos of one person, or of many at once."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from faceward.bulk_import import Importer, ImportReport, PersonRecord
from faceward.checks import (
    check_client_id,
    check_description,
    check_expires_at,
    check_external_id,
    check_future,
    check_id,
    check_name,
    check_region,
    check_regions,
    check_request_token,
)
from faceward.enrolment import EnrolmentGate
from faceward.errors import ModelMismatchError
from faceward.photo_import import PhotoImporter, PhotoRecord, PhotoReport, PhotoResult
from faceward.service.duplicates import Duplicates
from faceward.service.following import OfModel, by_model
from faceward.store.gallery import Gallery
from faceward.store.request_tokens import ADD_FACE, ENROLL
from faceward.types import Enrollment, ImageSource, NewFace, RequestToken


class Enrolling(OfModel):
    """The part of FaceService that stores people."""

    def __init__(
        self,
        gate: EnrolmentGate,
        duplicates: Duplicates,
        gallery: Gallery,
        importer: Importer,
        photo_importer: PhotoImporter,
    ) -> None:
        self._gate = gate
        self._duplicates = duplicates
        self._gallery = gallery
        self._importer = importer
        self._photo_importer = photo_importer

    @by_model
    def enroll(
        self,
        images: ImageSource | Sequence[ImageSource],
        *,
        name: str,
        region: str,
        client_id: str | None = None,
        description: str | None = None,
        external_id: str | None = None,
        expires_at: dt.datetime | None = None,
        several_faces: Literal["error", "largest"] = "error",
        allow_duplicate: bool = False,
        request: RequestToken | None = None,
    ) -> Enrollment:
        """Store a person with one or more photos, all of them or none.

        images: a path, encoded bytes, an open binary file or a BGR uint8 array, or a list of these. several_faces: what a
        photo with more than one face gets: an error, or its largest face. The region is made on first use.
        expires_at: in the future, with its time zone, else as in `update_person`; left out, by the retention of the region,
        else of the client. Who is in the region already, it seems, is among the answer's likely duplicates, or refused where
        enroll.duplicates says so; allow_duplicate: not this time. request: names this call, so that the same call again gets
        the same answer and stores nothing.

        Raises ImageError, NoFaceError, SeveralFacesError, LowQualityError, DuplicateFaceError (the photo is enrolled in
        this region), DuplicatePersonError (the external id is), LikelyDuplicateError, InvalidValueError, StoreError; with a
        request also RequestReusedError, and UnknownPersonError where what it stored before is deleted.
        """
        client_id, region, name = check_client_id(client_id), check_region(region), check_name(name)
        description = check_description(description)
        external_id = None if external_id is None else check_external_id(external_id)
        expires_at = check_expires_at(expires_at)
        if before := self._before(client_id, request, ENROLL):
            return before
        check_future("expires_at", expires_at)  # of a request that is repeated it may be over by now
        faces, quality = self._gate.admit(images, several_faces)
        likely = self._duplicates.of_new(client_id, region, faces)
        if likely and (before := self._before(client_id, request, ENROLL)):
            return before  # a twin of this request was faster: who was found may be whom it stored
        if not allow_duplicate:
            self._duplicates.refuse(likely)
        person, face_ids = self._gallery.create_person(
            client_id,
            region,
            name,
            faces,
            description=description,
            external_id=external_id,
            expires_at=expires_at,
            request=request,
            quality=quality,
            likely_duplicates=likely,
        )
        stored = Enrollment(person, face_ids, quality, likely)
        return self._before(client_id, request, ENROLL) or stored

    @by_model
    def add_face(
        self,
        person_id: int,
        images: ImageSource | Sequence[ImageSource],
        *,
        client_id: str | None = None,
        several_faces: Literal["error", "largest"] = "error",
        allow_duplicate: bool = False,
        regions: Sequence[str] | None = None,
        request: RequestToken | None = None,
    ) -> Enrollment:
        """Store more photos of a person. Likely duplicates are other persons of the region whom a photo matches, and to whom
        it is nearer than to this one's photos. regions: only of a person of these. allow_duplicate, request: as in `enroll`.

        Raises as `enroll` does, and UnknownPersonError.
        """
        client_id, person_id = check_client_id(client_id), check_id("person_id", person_id)
        if before := self._before(client_id, request, ADD_FACE):
            return before
        regions = None if regions is None else check_regions(regions)
        person = self._gallery.get_person(client_id, person_id, regions=regions)
        faces, quality = self._gate.admit(images, several_faces)
        likely = self._duplicates.of_person(client_id, person, faces)
        if not allow_duplicate:
            self._duplicates.refuse(likely)
        person, face_ids = self._gallery.add_faces(
            client_id,
            person_id,
            faces,
            request=request,
            quality=quality,
            likely_duplicates=likely,
            regions=regions,
        )
        stored = Enrollment(person, face_ids, quality, likely)
        return self._before(client_id, request, ADD_FACE) or stored

    def enrolled_before(self, request: RequestToken, *, client_id: str | None = None) -> Enrollment | None:
        """What `enroll` answers to this request where it came before, else None. Raises RequestReusedError, and
        UnknownPersonError where what it stored is deleted.
        """
        return self._before(check_client_id(client_id), request, ENROLL)

    def _before(self, client_id: str, request: RequestToken | None, operation: str) -> Enrollment | None:
        """The answer that the request got before, so that its photos are not analysed again."""
        if request is None:
            return None
        return self._gallery.enrollment_of(client_id, check_request_token(request), operation)

    def import_embeddings(
        self,
        persons: Iterable[PersonRecord],
        *,
        client_id: str | None = None,
        model_id: str | None = None,
        progress: Callable[[ImportReport], None] | None = None,
    ) -> ImportReport:
        """Import persons with embeddings that were made before, by this service's model.

        model_id: of the model that made them, so that they are refused where the gallery is of another one by now.

        persons: read as a stream, in batches of one transaction each. A person whose external id is in its region already
        is left as it is, but for one without any face, who gets the embeddings; so an import that was interrupted is simply run
        again. The report says who is there under another name. A record that can't be used is refused and reported, and the
        others go on. progress: told after each batch.

        Raises InvalidValueError (of client_id), ModelMismatchError, StoreError; what was stored until then stays.
        """
        client_id = check_client_id(client_id)
        if self._follower is None:
            if model_id not in (None, self._importer.model_id):
                raise ModelMismatchError(
                    f"The embeddings were made by the model {model_id}; the gallery's is {self._importer.model_id}. They can't "
                    "be compared. Send the photos instead."
                )
            return self._importer.run(client_id, persons, progress)
        # Not anew where the model changes meanwhile: the embeddings are of the one before.
        report: ImportReport = self._follower.run(
            lambda service: service.import_embeddings(
                persons, client_id=client_id, model_id=model_id, progress=progress
            ),
            again=False,
        )
        return report

    def import_photos(
        self,
        photos: Iterable[PhotoRecord],
        *,
        client_id: str | None = None,
        workers: int = 1,
        several_faces: Literal["error", "largest"] = "error",
        on_result: Callable[[PhotoResult], None] | None = None,
    ) -> PhotoReport:
        """Enroll a stream of photos, in batches of one transaction each.

        A person is made with the first photo of an external id in its region; more photos are added. One that is enrolled
        for this person already is skipped, so an import that was interrupted is simply run again. One that can't be
        enrolled, that is another person's, or whose external id is that of somebody who was never called so, is refused, and
        the others go on. workers: photos analysed at once. on_result: told of each photo once it is stored, skipped or
        refused, in the stream's order.

        Raises InvalidValueError (of client_id, several_faces), ModelMismatchError, StoreError; what was stored stays.
        """
        client_id = check_client_id(client_id)
        if self._follower is None:
            return self._photo_importer.run(
                client_id, photos, workers=workers, several_faces=several_faces, on_result=on_result
            )
        stream = _PhotoStream(photos, on_result)
        self._follower.run(
            lambda service: service.import_photos(
                stream, client_id=client_id, workers=workers, several_faces=several_faces, on_result=stream.told
            )
        )
        return stream.report

    @by_model
    def faces_to_store(
        self, images: ImageSource | Sequence[ImageSource], *, several_faces: Literal["error", "largest"] = "error"
    ) -> tuple[NewFace, ...]:
        """The faces that `enroll` would store of these photos, one of each, without storing them.

        They may be the embeddings of a PersonRecord. Raises ImageError, NoFaceError, SeveralFacesError, LowQualityError.
        """
        return tuple(self._gate.admit(images, several_faces)[0])

    def person_of_photo(self, image: bytes, *, region: str, client_id: str | None = None) -> int | None:
        """The person that exactly this photo (its file's bytes) is enrolled for in the region, or None.

        Reads no image: an interrupted enrolment of many photos asks this to skip those that are done.
        """
        return self.person_of_photo_digest(hashlib.sha256(image).digest(), region=region, client_id=client_id)

    def person_of_photo_digest(self, sha256: bytes, *, region: str, client_id: str | None = None) -> int | None:
        """As `person_of_photo`, by the SHA-256 of the photo's file (32 bytes)."""
        return self._gallery.person_of_photo(check_client_id(client_id), check_region(region), sha256)


class _PhotoStream:
    """A stream of photos that goes on after a change of the model: those without a result yet come once more."""

    def __init__(self, photos: Iterable[PhotoRecord], on_result: Callable[[PhotoResult], None] | None) -> None:
        self._rest = iter(photos)
        self._out: deque[PhotoRecord] = deque()
        self._on_result = on_result
        self._counts: Counter[str] = Counter()

    def __iter__(self) -> Iterator[PhotoRecord]:
        again, self._out = self._out, deque()
        for photos in (again, self._rest):
            for photo in photos:
                self._out.append(photo)
                yield photo

    def told(self, result: PhotoResult) -> None:
        self._out.popleft()
        self._counts[result.status] += 1
        if self._on_result is not None:
            self._on_result(result)

    @property
    def report(self) -> PhotoReport:
        counts = self._counts
        return PhotoReport(counts.total(), counts["enrolled"], counts["skipped"], counts["refused"])
