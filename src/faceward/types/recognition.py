"""What a search, a recognition and a comparison answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from faceward.types.images import Face

Strategy: TypeAlias = Literal["auto", "exact", "sketch", "hnsw"]
ThresholdSource: TypeAlias = Literal["request", "region", "client", "pack"]
Decision: TypeAlias = Literal["match", "ambiguous", "unknown"]


@dataclass(frozen=True, slots=True)
class Threshold:
    """A similarity from which on a face is a match, -1..1, and what set it ("pack": the pack or the settings)."""

    value: float
    source: ThresholdSource


@dataclass(frozen=True, slots=True)
class Candidate:
    """A person that a search proposes, with the best of that person's faces.

    similarity: cosine, -1..1, computed by PostgreSQL over the full float32 vectors.
    """

    person_id: int
    face_id: int
    name: str
    region: str
    similarity: float
    external_id: str | None = None
    description: str | None = None

    @property
    def match_score(self) -> float:
        """The similarity in percent."""
        return 100.0 * self.similarity


@dataclass(frozen=True, slots=True, eq=False)
class FaceMatch:
    """A face of a probe image and who it is.

    match: the best candidate at or above the threshold, or None. candidates: the nearest persons, best first, also
    below the threshold. decision: "ambiguous" where there is a match and another person, `rival`, is nearly as near, so
    that a careful caller takes it for nobody's. reason: says in words what led there. threshold: the one that decided.
    """

    face: Face
    match: Candidate | None
    candidates: tuple[Candidate, ...]
    decision: Decision
    reason: str
    threshold: Threshold
    rival: Candidate | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Recognition:
    """The answer to one probe image: one entry for each face found in it, largest first.

    threshold: the lowest of those of the regions, where they differ; each face says which one decided.
    """

    faces: tuple[FaceMatch, ...]
    regions: tuple[str, ...]
    client_id: str
    threshold: float


@dataclass(frozen=True, slots=True)
class Verification:
    """The answer of a 1:1 comparison.

    decided_by: the threshold with what set it. face_id: the stored face that was nearest, or None for photo against photo.
    """

    verified: bool
    similarity: float
    threshold: float
    decided_by: Threshold
    face_id: int | None = None
