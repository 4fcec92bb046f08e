"""Who is enrolled: persons, their faces, and the regions they are in."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from faceward.types.images import Box, Crop, Embedding, Quality
from faceward.types.recognition import Candidate

PersonState: TypeAlias = Literal["active", "suspended"]
"""suspended: kept, and not matched."""


class Unchanged:
    """The type of UNCHANGED: a field that an update leaves alone (None would clear it)."""


UNCHANGED = Unchanged()


@dataclass(frozen=True, slots=True)
class Person:
    """A person of one region of one client.

    state, expires_at: who is suspended, or whose time is over, is kept and not matched; None: for good.
    """

    id: int
    client_id: str
    region: str
    name: str
    description: str | None
    external_id: str | None
    face_count: int
    created_at: dt.datetime
    updated_at: dt.datetime
    state: PersonState
    expires_at: dt.datetime | None

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
    """A face about to be stored. embedding: float32, unit length, of the gallery's model.

    image_data: what is to be kept of the photo. image_crop: the part of it that this is; None: all of it. image_sha256: of
    the photo as it was sent.
    """

    embedding: Embedding = field(repr=False)
    box: Box | None = None
    confidence: float | None = None
    quality: float | None = None
    image_path: str | None = None
    image_data: bytes | None = field(default=None, repr=False)
    image_sha256: bytes | None = field(default=None, repr=False)
    image_crop: Crop | None = None


@dataclass(frozen=True, slots=True)
class Enrollment:
    """What an enrolment stored: the person and the ids of the new faces, in the order of the photos.

    likely_duplicates: other persons of the region who may be the same one, nearest first.
    """

    person: Person
    face_ids: tuple[int, ...]
    quality: tuple[Quality, ...]
    likely_duplicates: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class Merge:
    """What became of two records of one person. person: the one that stays.

    faces_moved: that came from the other one. faces_dropped: of photos that this person had already. external_id_dropped:
    both had an external id, and the other one's stands for nobody now.
    """

    person: Person
    faces_moved: int
    faces_dropped: int
    external_id_dropped: bool


@dataclass(frozen=True, slots=True)
class RegionSummary:
    """A region of a client with its counts. retention_days: after which its new people expire; None takes the client's."""

    name: str
    persons: int
    faces: int
    created_at: dt.datetime
    threshold: float | None = None
    retention_days: int | None = None


@dataclass(frozen=True, slots=True)
class RetentionEffect:
    """Of a retention on people who were there before it.

    people: who got an expiry, or a nearer one than they had. expired: those of them whose time is over by it.
    """

    people: int
    expired: int


@dataclass(frozen=True, slots=True)
class RegionChange(RegionSummary):
    """A region after a change. existing: where its retention was applied to people who were there."""

    existing: RetentionEffect | None = None
