"""FaceService: enroll, recognize, verify and keep the people of each region of each client."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Literal, Self

from faceward.bulk_import import Importer, ImportReport, PersonRecord
from faceward.enrolment import EnrolmentGate, named
from faceward.errors import (
    InvalidValueError,
    NoFaceError,
    NotFoundError,
    UnknownRegionError,
)
from faceward.photo_import import PhotoImporter, PhotoRecord, PhotoReport, PhotoResult
from faceward.retrieval import Retriever
from faceward.store.gallery import Gallery, PersonPage
from faceward.store.request_tokens import ADD_FACE, ENROLL
from faceward.store.search import FaceSearch
from faceward.types import (
    MAX_EXTERNAL_ID,
    MAX_NAME,
    UNCHANGED,
    Candidate,
    Embedding,
    Enrollment,
    Face,
    FaceMatch,
    ImageSource,
    NewFace,
    Person,
    Recognition,
    RegionSummary,
    RequestToken,
    StoredFace,
    Strategy,
    Unchanged,
    Verification,
    check_client_id,
    check_count,
    check_description,
    check_id,
    check_name,
    check_optional_text,
    check_region,
    check_request_token,
    check_share,
    check_threshold,
    unit_embedding,
)
from faceward.vision import FaceAnalyzer

StageTimer = Callable[[str, float], None]
MAX_IMAGE_PATH = 500
MAX_TOP_K = 100


class FaceService:
    """The one entry object. Safe to share between threads; every call is synchronous.

    A client is a tenant: each method works inside one, `default` where `client_id` is left out, and can't reach another.
    analyzer, gate, gallery, search, retriever, importer, photo_importer: the parts. threshold: the similarity
    from which on a face is a match, where a call names none. on_close: called by close(), the last acquired first.
    """

    def __init__(
        self,
        analyzer: FaceAnalyzer,
        gate: EnrolmentGate,
        gallery: Gallery,
        search: FaceSearch,
        retriever: Retriever,
        importer: Importer,
        photo_importer: PhotoImporter,
        *,
        threshold: float,
        on_close: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._analyzer = analyzer
        self._gate = gate
        self._gallery = gallery
        self._search = search
        self._retriever = retriever
        self._importer = importer
        self._photo_importer = photo_importer
        self._threshold = threshold
        self._on_close = list(on_close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        while self._on_close:
            self._on_close.pop()()

    @property
    def dimension(self) -> int:
        """Length of the embeddings of the pack in use."""
        return self._analyzer.dimension

    @property
    def model_id(self) -> str:
        """Names the embedding model, as the gallery records it."""
        return self._analyzer.model_id

    # Enrolment

    def enroll(
        self,
        images: ImageSource | Sequence[ImageSource],
        *,
        name: str,
        region: str,
        client_id: str | None = None,
        description: str | None = None,
        external_id: str | None = None,
        several_faces: Literal["error", "largest"] = "error",
        request: RequestToken | None = None,
    ) -> Enrollment:
        """Store a person with one or more photos, all of them or none.

        images: a path, encoded bytes, an open binary file or a BGR uint8 array, or a list of these. several_faces: what a
        photo with more than one face gets: an error, or its largest face. The region is made on first use. request: names
        this call, so that the same call again gets the same answer and stores nothing.

        Raises ImageError, NoFaceError, SeveralFacesError, LowQualityError, DuplicateFaceError (the photo is enrolled in
        this region), DuplicatePersonError (the external id is), InvalidValueError, StoreError; with a request also
        RequestReusedError, and UnknownPersonError where what it stored before is deleted.
        """
        client_id, region, name = check_client_id(client_id), check_region(region), check_name(name)
        description = check_description(description)
        external_id = check_optional_text("external_id", external_id, MAX_EXTERNAL_ID)
        if before := self._before(client_id, request, ENROLL):
            return before
        faces, quality = self._gate.admit(images, several_faces)
        person, face_ids = self._gallery.create_person(
            client_id,
            region,
            name,
            faces,
            description=description,
            external_id=external_id,
            request=request,
            quality=quality,
        )
        return Enrollment(person, face_ids, quality)

    def add_face(
        self,
        person_id: int,
        images: ImageSource | Sequence[ImageSource],
        *,
        client_id: str | None = None,
        several_faces: Literal["error", "largest"] = "error",
        request: RequestToken | None = None,
    ) -> Enrollment:
        """Store more photos of a person. request: as in `enroll`. Raises as `enroll` does, and UnknownPersonError."""
        client_id, person_id = check_client_id(client_id), check_id("person_id", person_id)
        if before := self._before(client_id, request, ADD_FACE):
            return before
        self._gallery.get_person(client_id, person_id)
        faces, quality = self._gate.admit(images, several_faces)
        person, face_ids = self._gallery.add_faces(client_id, person_id, faces, request=request, quality=quality)
        return Enrollment(person, face_ids, quality)

    def _before(self, client_id: str, request: RequestToken | None, operation: str) -> Enrollment | None:
        """The answer that the request got before, so that its photos are not analysed again."""
        if request is None:
            return None
        return self._gallery.enrollment_of(client_id, check_request_token(request), operation)

    # Recognition

    def recognize(
        self,
        image: ImageSource,
        *,
        region: str | Sequence[str],
        client_id: str | None = None,
        threshold: float | None = None,
        top_k: int = 5,
        max_faces: int = 100,
        min_quality: float = 0.0,
        strategy: Strategy | None = None,
        stages: StageTimer | None = None,
    ) -> Recognition:
        """Who of the region (or regions) of the client is in the image: one entry for each face, the largest first.

        An image without a face gives an empty answer. top_k: candidates for each face. min_quality: faces below it are
        left out. stages: told the seconds of each stage.

        Raises ImageError, UnknownRegionError, InvalidValueError, StoreError.
        """
        client_id, regions, limit = self._scope(region, client_id, threshold)
        check_count("top_k", top_k, MAX_TOP_K)
        check_strategy(strategy)
        check_share("min_quality", min_quality)
        faces = [
            face
            for face in self._analyzer.analyze(image, max_faces=max_faces, stages=stages)
            if face.quality.score >= min_quality
        ]
        with _Stage("search", stages):
            found = self._candidates(client_id, regions, [face.embedding for face in faces], top_k, limit, strategy)
        return Recognition(
            faces=tuple(
                FaceMatch(face, _match(candidates, limit), candidates)
                for face, candidates in zip(faces, found, strict=True)
            ),
            regions=regions,
            client_id=client_id,
            threshold=limit,
        )

    def search(
        self,
        embedding: object,
        *,
        region: str | Sequence[str],
        client_id: str | None = None,
        threshold: float | None = None,
        top_k: int = 5,
        strategy: Strategy | None = None,
    ) -> tuple[Candidate, ...]:
        """The persons of the region at or above the threshold, nearest first.

        embedding: as many finite numbers as the pack's dimension; brought to unit length. Raises InvalidEmbeddingError,
        UnknownRegionError, InvalidValueError, StoreError.
        """
        client_id, regions, limit = self._scope(region, client_id, threshold)
        check_count("top_k", top_k, MAX_TOP_K)
        check_strategy(strategy)
        probe = unit_embedding(embedding, self._analyzer.dimension)
        (candidates,) = self._candidates(client_id, regions, [probe], top_k, limit, strategy)
        return tuple(candidate for candidate in candidates if candidate.similarity >= limit)

    def verify(
        self,
        image: ImageSource,
        other: ImageSource | None = None,
        *,
        person_id: int | None = None,
        client_id: str | None = None,
        threshold: float | None = None,
    ) -> Verification:
        """Whether a photo shows the same person as another photo, or as the enrolled person `person_id`.

        The largest face of each photo counts. Raises NoFaceError, UnknownPersonError, ImageError, InvalidValueError.
        """
        client_id = check_client_id(client_id)
        limit = self._threshold if threshold is None else check_threshold(threshold)
        if (other is None) == (person_id is None):
            raise InvalidValueError("other", other, "a second photo or a person_id, one of the two")
        probe = self._largest_face(image)
        if other is not None:
            second = self._largest_face(other)
            similarity = min(1.0, max(-1.0, float(probe.embedding @ second.embedding)))
            return Verification(similarity >= limit, similarity, limit)
        person_id = check_id("person_id", person_id)
        self._gallery.get_person(client_id, person_id)
        stored = self._search.similarities_of_person(
            client_id, person_id, probe.embedding, model_id=self._analyzer.model_id
        )
        if not stored:
            raise NotFoundError(f"Person {person_id} has no stored face to compare with. Add a photo first.")
        face_id, similarity = stored[0]
        return Verification(similarity >= limit, similarity, limit, face_id)

    def warm(self, region: str, *, client_id: str | None = None) -> bool:
        """Load a region's sketch into memory now, instead of with its first searches.

        False where it is larger than the memory for sketches, or being loaded: searches go by SQL then.
        """
        return self._retriever.warm(check_client_id(client_id), check_region(region))

    # Many persons at once

    def import_embeddings(
        self,
        persons: Iterable[PersonRecord],
        *,
        client_id: str | None = None,
        progress: Callable[[ImportReport], None] | None = None,
    ) -> ImportReport:
        """Import persons with embeddings that were made before, by this service's model.

        persons: read as a stream, in batches of one transaction each. A person whose external id is in its region already
        is left as it is, so an import that was interrupted is simply run again. A record that can't be used is refused and
        reported, and the others go on. progress: told after each batch.

        Raises InvalidValueError (of client_id), ModelMismatchError, StoreError; what was stored until then stays.
        """
        return self._importer.run(check_client_id(client_id), persons, progress)

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
        enrolled, or is another person's, is refused, and the others go on. workers: photos analysed at once. on_result:
        told of each photo once it is stored, skipped or refused, in the stream's order.

        Raises InvalidValueError (of client_id, several_faces), ModelMismatchError, StoreError; what was stored stays.
        """
        return self._photo_importer.run(
            check_client_id(client_id), photos, workers=workers, several_faces=several_faces, on_result=on_result
        )

    def faces_to_store(
        self, images: ImageSource | Sequence[ImageSource], *, several_faces: Literal["error", "largest"] = "error"
    ) -> tuple[NewFace, ...]:
        """The faces that `enroll` would store of these photos, one of each, without storing them.

        They may be the embeddings of a PersonRecord. Raises ImageError, NoFaceError, SeveralFacesError, LowQualityError.
        """
        return tuple(self._gate.admit(images, several_faces)[0])

    # Persons and regions

    def get_person(self, person_id: int, *, client_id: str | None = None) -> Person:
        """Raises UnknownPersonError."""
        return self._gallery.get_person(check_client_id(client_id), check_id("person_id", person_id))

    def list_persons(
        self,
        *,
        region: str | None = None,
        name_prefix: str | None = None,
        external_id: str | None = None,
        client_id: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> PersonPage:
        """A page of persons by ascending id. after: the `next_after` of the page before. limit: 1..1000."""
        check_count("limit", limit, 1000)
        if after != 0:
            check_id("after", after)
        return self._gallery.list_persons(
            check_client_id(client_id),
            region=None if region is None else check_region(region),
            name_prefix=check_optional_text("name_prefix", name_prefix, MAX_NAME),
            external_id=check_optional_text("external_id", external_id, MAX_EXTERNAL_ID),
            after=after,
            limit=limit,
        )

    def update_person(
        self,
        person_id: int,
        *,
        name: str | Unchanged = UNCHANGED,
        description: str | Unchanged | None = UNCHANGED,
        external_id: str | Unchanged | None = UNCHANGED,
        client_id: str | None = None,
    ) -> Person:
        """Change what is given and leave the rest; None clears a description or an external id."""
        return self._gallery.update_person(
            check_client_id(client_id),
            check_id("person_id", person_id),
            name=name if isinstance(name, Unchanged) else check_name(name),
            description=description if isinstance(description, Unchanged) else check_description(description),
            external_id=external_id
            if isinstance(external_id, Unchanged)
            else check_optional_text("external_id", external_id, MAX_EXTERNAL_ID),
        )

    def move_region(self, person_id: int, region: str, *, client_id: str | None = None) -> Person:
        """Move a person with all faces to another region of the same client; seen by the next search."""
        return self._gallery.move_person(
            check_client_id(client_id), check_id("person_id", person_id), check_region(region)
        )

    def delete_person(self, person_id: int, *, client_id: str | None = None) -> int:
        """Delete a person and all faces; returns how many faces there were. Raises UnknownPersonError."""
        return self._gallery.delete_person(check_client_id(client_id), check_id("person_id", person_id))

    def list_faces(self, person_id: int, *, client_id: str | None = None) -> tuple[StoredFace, ...]:
        """The stored faces of a person, the oldest first. Raises UnknownPersonError."""
        return self._gallery.list_faces(check_client_id(client_id), check_id("person_id", person_id))

    def delete_face(self, person_id: int, face_id: int, *, client_id: str | None = None) -> None:
        """Delete one face of a person. Raises UnknownPersonError, NotFoundError."""
        client_id, person_id = check_client_id(client_id), check_id("person_id", person_id)
        if not self._gallery.delete_face(client_id, person_id, check_id("face_id", face_id)):
            raise NotFoundError(f"Person {person_id} has no face {face_id}. `faceward people show` lists the faces.")

    def list_regions(self, *, client_id: str | None = None) -> tuple[RegionSummary, ...]:
        """The regions of a client with their counts, by name."""
        return self._gallery.list_regions(check_client_id(client_id))

    def person_of_photo(self, image: bytes, *, region: str, client_id: str | None = None) -> int | None:
        """The person that exactly this photo (its file's bytes) is enrolled for in the region, or None.

        Reads no image: an interrupted enrolment of many photos asks this to skip those that are done.
        """
        return self.person_of_photo_digest(hashlib.sha256(image).digest(), region=region, client_id=client_id)

    def person_of_photo_digest(self, sha256: bytes, *, region: str, client_id: str | None = None) -> int | None:
        """As `person_of_photo`, by the SHA-256 of the photo's file (32 bytes)."""
        return self._gallery.person_of_photo(check_client_id(client_id), check_region(region), sha256)

    # Parts

    def _scope(
        self, region: str | Sequence[str], client_id: str | None, threshold: float | None
    ) -> tuple[str, tuple[str, ...], float]:
        names = (region,) if isinstance(region, str) else region
        if not (isinstance(names, Sequence) and names):
            raise InvalidValueError("region", region, "the name of a region, or a list of names")
        regions = tuple(dict.fromkeys(check_region(name) for name in names))
        limit = self._threshold if threshold is None else check_threshold(threshold)
        return check_client_id(client_id), regions, limit

    def _candidates(
        self,
        client_id: str,
        regions: tuple[str, ...],
        probes: list[Embedding],
        top_k: int,
        threshold: float,
        strategy: Strategy | None,
    ) -> list[tuple[Candidate, ...]]:
        answers = self._retriever.find(client_id, regions, probes, top_k=top_k, floor=threshold, strategy=strategy)
        seen = {candidate.region for answer in answers for candidate in answer.candidates}
        if not seen.issuperset(regions):
            # Nobody of a region is near: the only case in which it may not exist, so only now is it asked for.
            known = self._gallery.region_names(client_id)
            for region in regions:
                if region not in known:
                    raise UnknownRegionError(region, known)
        return [answer.candidates for answer in answers]

    def _largest_face(self, source: ImageSource) -> Face:
        faces = self._analyzer.analyze(source, max_faces=1)
        if not faces:
            raise NoFaceError(f"No face was found in {named(source)}. Send a photo in which one face is plain to see.")
        return faces[0]


class _Stage:
    """Tells a timer how long a block took."""

    def __init__(self, name: str, timer: StageTimer | None) -> None:
        self._name = name
        self._timer = timer

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self._timer:
            self._timer(self._name, time.perf_counter() - self._start)


def _match(candidates: tuple[Candidate, ...], threshold: float) -> Candidate | None:
    return candidates[0] if candidates and candidates[0].similarity >= threshold else None


def check_strategy(strategy: object) -> None:
    if strategy not in (None, "auto", "exact", "sketch", "hnsw"):
        raise InvalidValueError("strategy", strategy, "auto, exact, sketch or hnsw")
