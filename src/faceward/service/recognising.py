"""Who is in an image: recognition, search by embedding, verification, detection."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import chain

from faceward.checks import (
    check_client_id,
    check_count,
    check_id,
    check_region,
    check_regions,
    check_share,
    check_threshold,
    unit_embedding,
)
from faceward.enrolment import named, placed
from faceward.errors import InvalidValueError, NoFaceError, NotFoundError, PersonSuspendedError
from faceward.retrieval import Retriever
from faceward.service.decisions import decide
from faceward.service.following import OfModel, by_model
from faceward.service.recorded import of_recognition, of_search, of_verification
from faceward.service.thresholds import Thresholds
from faceward.store.decision_writer import DecisionWriter
from faceward.store.gallery import Gallery
from faceward.store.search import FaceSearch
from faceward.types import (
    Candidate,
    Embedding,
    Face,
    ImageSource,
    Recognition,
    Strategy,
    Threshold,
    Verification,
)
from faceward.vision import FaceAnalyzer

StageTimer = Callable[[str, float], None]
MAX_TOP_K = 100


class Recognising(OfModel):
    """The part of FaceService that answers who somebody is."""

    def __init__(
        self,
        analyzer: FaceAnalyzer,
        gallery: Gallery,
        search: FaceSearch,
        retriever: Retriever,
        thresholds: Thresholds,
        margin: float,
        decisions: DecisionWriter | None,
    ) -> None:
        self._analyzer = analyzer
        self._gallery = gallery
        self._search = search
        self._retriever = retriever
        self._thresholds = thresholds
        self._margin = margin
        self._decisions = decisions

    @by_model
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

        An image without a face gives an empty answer. threshold: the similarity from which on a face is a match; left out,
        that of the candidate's region, else of the client, else of the model pack. top_k: candidates for each face.
        min_quality: faces below it are left out. stages: told the seconds of each stage.

        Raises ImageError, UnknownRegionError, InvalidValueError, StoreError.
        """
        client_id, limits = self._scope(region, client_id, threshold)
        check_count("top_k", top_k, MAX_TOP_K)
        check_strategy(strategy)
        check_share("min_quality", min_quality)
        faces = [
            face
            for face in self._analyzer.analyze(image, max_faces=max_faces, stages=stages)
            if face.quality.score >= min_quality
        ]
        # One person more than regions: of one who is enrolled in all of them, the next person is still seen.
        look = max(top_k, min(len(limits) + 1, MAX_TOP_K))
        with _Stage("search", stages):
            limits, found = self._decided_by(
                client_id, limits, threshold, [face.embedding for face in faces], look, strategy
            )
        recognition = Recognition(
            faces=tuple(
                decide(face, candidates, limits, margin=self._margin, top_k=top_k)
                for face, candidates in zip(faces, found, strict=True)
            ),
            regions=tuple(limits),
            client_id=client_id,
            threshold=_lowest(limits),
        )
        if self._decisions is not None:
            self._decisions.add(of_recognition(recognition))
        return recognition

    @by_model
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
        """The persons of the region (or regions) at or above the threshold, nearest first. threshold: as in `recognize`.

        embedding: as many finite numbers as the pack's dimension; brought to unit length. Raises InvalidEmbeddingError,
        UnknownRegionError, InvalidValueError, StoreError.
        """
        client_id, limits = self._scope(region, client_id, threshold)
        check_count("top_k", top_k, MAX_TOP_K)
        check_strategy(strategy)
        probe = unit_embedding(embedding, self._analyzer.dimension)
        limits, (candidates,) = self._decided_by(client_id, limits, threshold, [probe], top_k, strategy)
        found = tuple(each for each in candidates if each.similarity >= limits[each.region].value)[:top_k]
        if self._decisions is not None:
            self._decisions.add([of_search(client_id, limits, candidates, found)])
        return found

    @by_model
    def verify(
        self,
        image: ImageSource,
        other: ImageSource | None = None,
        *,
        person_id: int | None = None,
        regions: Sequence[str] | None = None,
        client_id: str | None = None,
        threshold: float | None = None,
    ) -> Verification:
        """Whether a photo shows the same person as another photo, or as the enrolled person `person_id`.

        The largest face of each photo counts. regions: only a person of these. threshold: left out, that of the person's
        region, else of the client, else of the model pack.
        Raises NoFaceError, UnknownPersonError, PersonSuspendedError, ImageError, InvalidValueError.
        """
        client_id = check_client_id(client_id)
        if threshold is not None:
            check_threshold(threshold)
        if (other is None) == (person_id is None):
            raise InvalidValueError("other", other, "a second photo or a person_id, one of the two")
        photos = [image] if other is None else [image, other]
        probe, *second = [self._largest_face(photo, place) for photo, place in placed(photos)]
        if second:
            similarity = min(1.0, max(-1.0, float(probe.embedding @ second[0].embedding)))
            return self._kept(client_id, _verified(similarity, self._thresholds.of_client(client_id, threshold)))
        person_id = check_id("person_id", person_id)
        person = self._gallery.get_person(
            client_id, person_id, regions=None if regions is None else check_regions(regions)
        )
        stored = self._search.similarities_of_person(
            client_id, person_id, probe.embedding, model_id=self._analyzer.model_id
        )
        if not stored:
            self._search.require_model(self._analyzer.model_id)
            suspended = person.state == "suspended"
            if person.face_count and (suspended or person.expires_at):  # the database's clock has told which, as ever
                raise PersonSuspendedError(person_id, client_id, expired=not suspended)
            raise NotFoundError(f"Person {person_id} has no stored face to compare with. Add a photo first.")
        nearest = stored[0]
        told = {nearest.region: nearest.threshold}
        limit = self._thresholds.of_regions(client_id, [nearest.region], threshold, told)[nearest.region]
        return self._kept(client_id, _verified(nearest.similarity, limit, nearest.face_id), nearest.region, person_id)

    @by_model
    def detect(self, image: ImageSource, *, max_faces: int = 100) -> tuple[Face, ...]:
        """The faces in an image, the largest first; empty where there is none. Raises ImageError, InvalidValueError."""
        return tuple(self._analyzer.analyze(image, max_faces=max_faces))

    @by_model
    def warm(self, region: str, *, client_id: str | None = None) -> bool:
        """Load a region's sketch into memory now, instead of with its first searches.

        False where it is larger than the memory for sketches, or being loaded: searches go by SQL then.
        """
        return self._retriever.warm(check_client_id(client_id), check_region(region))

    @by_model
    def _drop_from_memory(self, client_id: str, face_ids: Sequence[int]) -> None:
        self._retriever.forget(client_id, face_ids)

    def _kept(
        self, client_id: str, verification: Verification, region: str | None = None, person_id: int | None = None
    ) -> Verification:
        if self._decisions is not None:
            self._decisions.add([of_verification(client_id, verification, region, person_id)])
        return verification

    def _scope(
        self, region: str | Sequence[str], client_id: str | None, threshold: float | None
    ) -> tuple[str, dict[str, Threshold]]:
        """The client, and the regions with their thresholds."""
        if isinstance(region, str):
            regions: tuple[str, ...] = (check_region(region),)
        elif isinstance(region, Sequence) and region:
            regions = check_regions(region)
        else:
            raise InvalidValueError("region", region, "the name of a region, or a list of names")
        if threshold is not None:
            check_threshold(threshold)
        client_id = check_client_id(client_id)
        return client_id, self._thresholds.of_regions(client_id, regions, threshold)

    def _decided_by(
        self,
        client_id: str,
        limits: dict[str, Threshold],
        given: float | None,
        probes: list[Embedding],
        top_k: int,
        strategy: Strategy | None,
    ) -> tuple[dict[str, Threshold], list[tuple[Candidate, ...]]]:
        """As `_candidates`, with the thresholds of their regions as the search itself read them: those that were remembered
        may be of another region, which had that name a moment ago. given: the request's threshold.
        """
        found, told = self._candidates(client_id, limits, probes, top_k, strategy)
        decisive = self._thresholds.corrected(client_id, limits, given, told)
        if decisive != limits:
            found, told = self._candidates(client_id, decisive, probes, top_k, strategy)
            decisive = self._thresholds.corrected(client_id, decisive, given, told)
        return decisive, found

    def _candidates(
        self,
        client_id: str,
        limits: dict[str, Threshold],
        probes: list[Embedding],
        top_k: int,
        strategy: Strategy | None,
    ) -> tuple[list[tuple[Candidate, ...]], dict[str, float | None]]:
        """The persons of each face, nearest first: `top_k` of the regions of each threshold, so that those whom a high one
        shuts out leave the others their places. With the thresholds that are set for regions of these persons.
        """
        alike: dict[float, list[str]] = {}
        for region, limit in limits.items():
            alike.setdefault(limit.value, []).append(region)
        answers = []
        for regions in alike.values():
            answers += self._retriever.find(
                client_id, regions, probes, top_k=top_k, floor=_lowest(limits), strategy=strategy
            )
        if not all(answer.reranked for answer in answers):
            # Nobody is there, or all of them are of another model by now: only now is it asked.
            self._search.require_model(self._analyzer.model_id)
        seen = {candidate.region for answer in answers for candidate in answer.candidates}
        if not seen.issuperset(limits):
            # Nobody of a region is near: the only case in which it may not exist, so only now is it asked for.
            self._gallery.require_regions(client_id, tuple(limits))
        of_each = [[answer.candidates for answer in answers[i :: len(probes)]] for i in range(len(probes))]
        found = [tuple(sorted(chain(*parts), key=lambda each: (-each.similarity, each.face_id))) for parts in of_each]
        return found, {region: own for answer in answers for region, own in answer.thresholds.items()}

    def _largest_face(self, source: ImageSource, place: int | None) -> Face:
        with named(source, place) as name:
            faces = self._analyzer.analyze(source, max_faces=1)
            if not faces:
                raise NoFaceError(f"No face was found in {name}. Send a photo in which one face is plain to see.")
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


def _lowest(limits: dict[str, Threshold]) -> float:
    return min(limit.value for limit in limits.values())


def _verified(similarity: float, limit: Threshold, face_id: int | None = None) -> Verification:
    return Verification(similarity >= limit.value, similarity, limit.value, limit, face_id)


def check_strategy(strategy: object) -> None:
    if strategy not in (None, "auto", "exact", "sketch", "hnsw"):
        raise InvalidValueError("strategy", strategy, "auto, exact, sketch or hnsw")
