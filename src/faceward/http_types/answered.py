"""Bodies of answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from faceward.http_types.fields import PersonStateName, RoleName, Time


class Answered(BaseModel):
    """An answer's body. A client ignores fields that it does not know, so that the server may be the newer one."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class BoxOut(Answered):
    """Pixels of the sent image; right and bottom are exclusive."""

    left: float
    top: float
    right: float
    bottom: float


class QualityOut(Answered):
    """score: 0..1. reasons: what lowered it."""

    score: float
    reasons: list[str]


class PersonOut(Answered):
    """state, expires_at: who is suspended, or whose time is over, is kept and not matched."""

    id: int
    region: str
    name: str
    description: str | None
    external_id: str | None
    face_count: int
    state: PersonStateName
    expires_at: Time | None
    created_at: Time
    updated_at: Time


class PersonPage(Answered):
    """next: the cursor of the page after this one; null on the last."""

    items: list[PersonOut]
    next: str | None


class EnrolledFace(Answered):
    id: int
    quality: QualityOut | None


class CandidateOut(Answered):
    """A person and the nearest of that person's faces."""

    person_id: int
    face_id: int
    name: str
    region: str
    external_id: str | None
    similarity: float
    match_score: float


class EnrollmentOut(Answered):
    """What was stored: the person, and the new faces in the order of the photos.

    likely_duplicates: other persons of the region who may be the same one, nearest first.
    """

    person: PersonOut
    faces: list[EnrolledFace]
    likely_duplicates: list[CandidateOut] = []


class MergeOut(Answered):
    """person: the one that stays. faces_moved: that came from the other one. faces_dropped: of photos that it had already.

    external_id_dropped: both had an external id; the other one's stands for nobody now.
    """

    person: PersonOut
    faces_moved: int
    faces_dropped: int
    external_id_dropped: bool


class FaceOut(Answered):
    """A stored face, without its embedding."""

    id: int
    box: BoxOut | None
    confidence: float | None
    quality: float | None
    has_image: bool
    created_at: Time


class FacePage(Answered):
    items: list[FaceOut]
    next: str | None


class DetectedFace(Answered):
    """landmarks: left eye, right eye, nose, left and right corner of the mouth, as [x, y] in pixels."""

    box: BoxOut
    landmarks: list[list[float]]
    confidence: float
    quality: QualityOut


class Detection(Answered):
    faces: list[DetectedFace]


class ThresholdOut(Answered):
    """The threshold that decided, and who set it."""

    value: float
    source: Literal["request", "region", "client", "pack"]


class RecognizedFace(Answered):
    """decision: match, ambiguous (another person stands too near to the best: both are among the candidates) or unknown.

    match: the person, where the decision is match.
    """

    box: BoxOut
    confidence: float
    quality: QualityOut
    decision: Literal["match", "ambiguous", "unknown"]
    reason: str
    threshold: ThresholdOut
    match: CandidateOut | None
    candidates: list[CandidateOut]


class RecognitionOut(Answered):
    """One entry for each face, the largest first; none where the image shows no face."""

    faces: list[RecognizedFace]
    regions: list[str]


class SearchOut(Answered):
    """The persons at or above the threshold, nearest first."""

    candidates: list[CandidateOut]
    regions: list[str]


class VerificationOut(Answered):
    verified: bool
    similarity: float
    match_score: float
    threshold: ThresholdOut
    face_id: int | None


class RegionOut(Answered):
    name: str
    persons: int
    faces: int
    threshold: float | None
    retention_days: int | None
    created_at: Time


class RetentionEffect(Answered):
    """people: who got an expiry, or a nearer one. expired: those of them whose time is over by it."""

    people: int
    expired: int


class RegionChanged(RegionOut):
    """existing: what apply_to_existing did."""

    existing: RetentionEffect | None


class RegionPage(Answered):
    items: list[RegionOut]
    next: str | None


class ClientOut(Answered):
    client_id: str
    name: str
    threshold: float | None
    retention_days: int | None
    created_at: Time
    updated_at: Time


class ClientChanged(ClientOut):
    """existing: what apply_to_existing did."""

    existing: RetentionEffect | None


class ClientPage(Answered):
    items: list[ClientOut]
    next: str | None


class KeyOut(Answered):
    """prefix: the visible part of the key."""

    id: int
    client_id: str
    prefix: str
    name: str | None
    role: RoleName
    regions: list[str] | None
    rate_limit: float | None
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None
    last_used_at: Time | None


class NewKeyOut(Answered):
    """secret: the whole key, shown this once and stored nowhere."""

    key: KeyOut
    secret: str


class KeyPage(Answered):
    items: list[KeyOut]
    next: str | None


class Me(Answered):
    """What this key is and may do. model_id, dimension: of the embeddings that the service makes and takes."""

    client_id: str
    role: RoleName
    regions: list[str] | None
    prefix: str
    expires_at: Time | None
    may: list[str]
    model_id: str
    dimension: int


class JobOut(Answered):
    """A background import. total: items, where known. refused: see the job's refusals."""

    id: int
    kind: Literal["archive", "embeddings"]
    state: Literal["receiving", "queued", "running", "succeeded", "partial", "failed", "cancelled"]
    total: int | None
    done: int
    stored_persons: int
    stored_faces: int
    skipped: int
    refused: int
    error_code: str | None
    error_message: str | None
    created_at: Time
    started_at: Time | None
    finished_at: Time | None


class JobPage(Answered):
    items: list[JobOut]
    next: str | None


class RefusalOut(Answered):
    """An item of an import that was not stored. item: its path in the archive, or its line."""

    position: int
    item: str
    code: str
    reason: str


class RefusalPage(Answered):
    items: list[RefusalOut]
    next: str | None


class ReceiptOut(Answered):
    """The proof of an erasure, signed with Ed25519 over `receipt` as JSON with sorted keys and no white space, in ASCII.

    receipt: id, client_id, erased_at, actor, how many rows were removed, the imports that were not looked into, whether
    the check afterwards finished, what it found left, and whether the erasure is known to be complete.
    """

    receipt: dict[str, Any]
    public_key: str
    signature: str


class AuditEntryOut(Answered):
    """actor: key:PREFIX, cli:USER, import:JOB, purge or python. other_person_id: whom a merge made of the person."""

    id: int
    at: Time
    actor: str
    action: str
    person_id: int | None
    other_person_id: int | None
    details: dict[str, Any]


class AuditPage(Answered):
    items: list[AuditEntryOut]
    next: str | None


class ComparedOut(Answered):
    person_id: int
    face_id: int
    similarity: float


class DecisionOut(Answered):
    """What was decided about one face. candidates: the nearest, best first, without those who were erased since."""

    id: int
    at: Time
    actor: str
    kind: Literal["recognize", "search", "verify"]
    regions: list[str]
    threshold: ThresholdOut
    decision: Literal["match", "ambiguous", "unknown", "verified", "rejected"]
    candidates: list[ComparedOut]


class DecisionPage(Answered):
    items: list[DecisionOut]
    next: str | None


class Problem(BaseModel):
    """An error (RFC 9457). code is stable and made for machines; which other fields come with it depends on the code."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


class Ready(Answered):
    """What the service needs, and whether it is there."""

    ready: bool
    checks: dict[str, str]
