"""The values that pass between the layers: frozen, typed, and free of any database or model.

Boxes and landmarks are in pixels of the image as the caller sent it, after its EXIF orientation was applied; x runs
right and y runs down. Similarity is the cosine of two unit embeddings, -1..1. Embeddings are float32 of unit length.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Embedding: TypeAlias = NDArray[np.float32]
"""Shape (dimension,), float32, unit length."""

BGRImage: TypeAlias = NDArray[np.uint8]
"""Shape (height, width, 3), uint8, blue-green-red as OpenCV reads it."""

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | NDArray[Any]"
"""A path, encoded image bytes, an open binary file, or an array in OpenCV's BGR convention."""

Strategy: TypeAlias = Literal["auto", "exact", "sketch", "hnsw"]

Role: TypeAlias = Literal["admin", "manager", "enroller", "recognizer"]
"""What a key may do; each role may do what those after it may."""

ThresholdSource: TypeAlias = Literal["request", "region", "client", "pack"]
Decision: TypeAlias = Literal["match", "ambiguous", "unknown"]

JobKind: TypeAlias = Literal["archive", "embeddings"]
"""Of an import: photos in a zip or a tar, or embeddings in lines of JSON."""

JobState: TypeAlias = Literal["receiving", "queued", "running", "succeeded", "partial", "failed", "cancelled"]
"""partial: all was done, and something was refused. failed: nothing could be done."""

FINISHED: tuple[JobState, ...] = ("succeeded", "partial", "failed", "cancelled")
ROLES: tuple[Role, ...] = ("admin", "manager", "enroller", "recognizer")


class Unchanged:
    """The type of UNCHANGED: a field that an update leaves alone (None would clear it)."""


UNCHANGED = Unchanged()


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the original image; right and bottom are exclusive."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def area(self) -> float:
        return max(0.0, self.width) * max(0.0, self.height)

    def as_tuple(self) -> tuple[float, float, float, float]:
        return (self.left, self.top, self.right, self.bottom)


@dataclass(frozen=True, slots=True)
class Quality:
    """How fit a face is for recognition.

    score: 0 (useless) to 1 (a good portrait). reasons: what lowered it, of "small", "blurred", "turned", "dark",
    "bright", "low_contrast" and "clipped"; empty where nothing did.
    """

    score: float
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face found in an image.

    box: pixels of the original image. landmarks: shape (5, 2) float32, x and y in pixels of the original image: left
    eye, right eye, nose tip, left and right mouth corner as the viewer sees them. confidence: of the detector, 0..1.
    embedding: shape (dimension,) float32, unit length.
    """

    box: Box
    landmarks: NDArray[np.float32]
    confidence: float
    quality: Quality
    embedding: Embedding = field(repr=False)


@dataclass(frozen=True, slots=True)
class Person:
    """A person of one region of one client."""

    id: int
    client_id: str
    region: str
    name: str
    description: str | None
    external_id: str | None
    face_count: int
    created_at: dt.datetime
    updated_at: dt.datetime

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> Person:
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True, slots=True)
class StoredFace:
    """An enrolled face of a person, without its embedding."""

    id: int
    person_id: int
    box: Box | None
    confidence: float | None
    quality: float | None
    image_path: str | None
    has_image: bool
    created_at: dt.datetime

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> StoredFace:
        box = row["face_bbox"]
        return cls(
            id=row["id"],
            person_id=row["person_id"],
            box=Box(*(float(part) for part in box.split(","))) if box else None,
            confidence=row["confidence"],
            quality=row["quality_score"],
            image_path=row["image_path"],
            has_image=row["has_image"],
            created_at=row["created_at"],
        )


@dataclass(frozen=True, slots=True)
class NewFace:
    """A face about to be stored. embedding: float32, unit length, of the gallery's model."""

    embedding: Embedding = field(repr=False)
    box: Box | None = None
    confidence: float | None = None
    quality: float | None = None
    image_path: str | None = None
    image_data: bytes | None = field(default=None, repr=False)
    image_sha256: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Enrollment:
    """What an enrolment stored: the person and the ids of the new faces, in the order of the photos."""

    person: Person
    face_ids: tuple[int, ...]
    quality: tuple[Quality, ...]


@dataclass(frozen=True, slots=True)
class RegionSummary:
    """A region of a client with its counts."""

    name: str
    persons: int
    faces: int
    created_at: dt.datetime
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """A tenant. threshold: its own similarity from which on a face is a match; None takes the next in line."""

    client_id: str
    name: str
    threshold: float | None
    created_at: dt.datetime
    updated_at: dt.datetime

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> Client:
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of a client, without its secret.

    prefix: the part of the key's text by which it is found and shown. regions: those it may work in; None is all of them.
    rate_limit: requests a second; None takes the service's.
    """

    id: int
    client_id: str
    prefix: str
    role: Role
    regions: tuple[str, ...] | None
    name: str | None
    rate_limit: float | None
    created_at: dt.datetime
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None
    last_used_at: dt.datetime | None

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> ApiKey:
        values = {name: row[name] for name in cls.__dataclass_fields__}
        return cls(**{**values, "regions": None if row["regions"] is None else tuple(row["regions"])})

    def may(self, role: Role) -> bool:
        """Whether this key's role includes that one."""
        return ROLES.index(self.role) <= ROLES.index(role)

    def may_enter(self, region: str) -> bool:
        return self.regions is None or region in self.regions

    def valid_at(self, moment: dt.datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or moment < self.expires_at)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key and its whole text, which is stored nowhere: this is the only time that it can be shown."""

    key: ApiKey
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RequestToken:
    """Names a request that may be sent again after a broken connection, and must then do nothing twice.

    key_id: of the key that sent it. token: the caller's own name for it, at most 255 characters. fingerprint: a digest of
    what was asked for: the same token with another is a mistake.
    """

    key_id: int
    token: str
    fingerprint: bytes


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


@dataclass(frozen=True, slots=True)
class Job:
    """An import that runs in the background.

    region_limit: the regions that it may write to; None is all of them. options: of its kind. total: how many items the
    upload holds; None until a worker has looked. done: items dealt with, each of which was stored, skipped (it was there
    already) or refused. stored_persons, stored_faces: what is new. error_code, error_message: why it failed. bytes: of the
    upload. attempt: how many times a worker has taken it up.
    """

    id: int
    client_id: str
    kind: JobKind
    state: JobState
    region_limit: tuple[str, ...] | None
    options: Mapping[str, Any]
    total: int | None
    done: int
    stored_persons: int
    stored_faces: int
    skipped: int
    refused: int
    error_code: str | None
    error_message: str | None
    key_id: int | None
    bytes: int
    attempt: int
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> Job:
        values = {name: row[name] for name in cls.__dataclass_fields__}
        return cls(**{**values, "region_limit": None if row["region_limit"] is None else tuple(row["region_limit"])})

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    def may_enter(self, region: str) -> bool:
        return self.region_limit is None or region in self.region_limit


@dataclass(frozen=True, slots=True)
class JobRefusal:
    """An item of an import that was not stored. position: its place in the upload, from 0. item: its name there."""

    position: int
    item: str
    code: str
    reason: str

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> JobRefusal:
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})
