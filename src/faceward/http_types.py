"""What travels over HTTP: the bodies of requests and answers, shared by the server and `faceward.Client`.

Times are RFC 3339 in UTC. A similarity is the cosine of two embeddings, 0..1 (what lies below 0 is 0), and match_score the
same in percent. Boxes are in pixels of the image as it was sent, after its EXIF orientation was applied.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from faceward.types import MAX_CLIENT_ID, MAX_DESCRIPTION, MAX_EXTERNAL_ID, MAX_NAME, MAX_REGION

MAX_IMAGES = 20
MAX_REGIONS = 100
MAX_DIMENSION = 4096

RoleName = Literal["admin", "manager", "enroller", "recognizer"]
StrategyName = Literal["auto", "exact", "sketch", "hnsw"]


def _image_bytes(value: Any) -> Any:
    """The bytes of a form's file, or base64 text of JSON (a data URL's prefix is dropped)."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("an image is a file of a form, or base64 text in JSON")
    if value.startswith("data:"):
        value = value.partition(",")[2]
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise ValueError("not base64") from exc


def _some_bytes(value: bytes) -> bytes:
    if not value:
        raise ValueError("the image is empty")
    return value


def _listed(value: Any) -> Any:
    """One region may be sent as it is."""
    return [value] if isinstance(value, str) else value


def _utc(value: dt.datetime) -> dt.datetime:
    return value.astimezone(dt.UTC)


def _not_null(value: Any) -> Any:
    if value is None:
        raise ValueError("it can't be cleared; leave it out to keep what it is")
    return value


LINE = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$"
"""For readers of the document: no control characters, no white space at the ends. The service itself says which it is."""

Image = Annotated[
    bytes,
    BeforeValidator(_image_bytes),
    AfterValidator(_some_bytes),
    WithJsonSchema(
        {"type": "string", "format": "byte", "description": "The image file: base64 in JSON, a file in a form."}
    ),
]
Region = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_REGION,
        description="A site of the client.",
        examples=["A"],
        json_schema_extra={"pattern": LINE},
    ),
]
_REGION: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": MAX_REGION, "pattern": LINE}
Regions = Annotated[
    list[Region],
    BeforeValidator(_listed),
    Field(min_length=1, max_length=MAX_REGIONS),
    WithJsonSchema(
        {
            "anyOf": [_REGION, {"type": "array", "items": _REGION, "minItems": 1, "maxItems": MAX_REGIONS}],
            "description": "The region, or several, that are searched. In a form the field may come several times.",
            "examples": ["A"],
        }
    ),
]
Similarity = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME, examples=["Alice"], json_schema_extra={"pattern": LINE})]
ClientId = Annotated[
    str,
    Field(min_length=1, max_length=MAX_CLIENT_ID, examples=["client_123"], json_schema_extra={"pattern": LINE}),
]
Description = Annotated[
    str, Field(max_length=MAX_DESCRIPTION, json_schema_extra={"pattern": r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"})
]
ExternalId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_EXTERNAL_ID,
        description="Your own number of the person.",
        examples=["E-1042"],
        json_schema_extra={"pattern": LINE},
    ),
]
RowId = Annotated[int, Field(ge=1, le=2**63 - 1)]
Time = Annotated[dt.datetime, AfterValidator(_utc)]

# Of a change: left out, it stays; null is refused.
NewName = Annotated[
    str | None,
    BeforeValidator(_not_null),
    Field(min_length=1, max_length=MAX_NAME),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": LINE}),
]
NewRegion = Annotated[
    str | None, BeforeValidator(_not_null), Field(min_length=1, max_length=MAX_REGION), WithJsonSchema(_REGION)
]


class Sent(BaseModel):
    """A request's body. A field that the route does not know is refused: a misspelt threshold must not pass unseen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answered(BaseModel):
    """An answer's body. A client ignores fields that it does not know, so that the server may be the newer one."""

    model_config = ConfigDict(extra="ignore", frozen=True)


# Requests


class PersonCreate(Sent):
    """A person with one or more photos: all of them are stored, or none."""

    name: Name
    region: Region
    images: Annotated[list[Image], Field(min_length=1, max_length=MAX_IMAGES)]
    description: Description | None = None
    external_id: ExternalId | None = None
    several_faces: Literal["error", "largest"] = "error"


class PersonPatch(Sent):
    """What is given is changed; null clears a description or an external id."""

    name: NewName = None
    description: Description | None = None
    external_id: ExternalId | None = None


class PersonMove(Sent):
    region: Region


class FacesCreate(Sent):
    """More photos of a person: all of them are stored, or none."""

    images: Annotated[list[Image], Field(min_length=1, max_length=MAX_IMAGES)]
    several_faces: Literal["error", "largest"] = "error"


class RegionCreate(Sent):
    name: Region
    threshold: Similarity | None = None


class RegionPatch(Sent):
    """name: its new name. threshold: null takes the client's again."""

    name: NewRegion = None
    threshold: Similarity | None = None


class RecognizeRequest(Sent):
    """Who of the regions is in the image. min_quality: faces below it are left out."""

    image: Image
    region: Regions
    threshold: Similarity | None = None
    top_k: Annotated[int, Field(ge=1, le=100)] = 5
    max_faces: Annotated[int, Field(ge=1, le=1000)] = 100
    min_quality: Share = 0.0
    strategy: StrategyName | None = None


class SearchRequest(Sent):
    """Who of the regions is nearest to an embedding of the model pack in use."""

    embedding: Annotated[
        list[Annotated[float, Field(strict=True, allow_inf_nan=False)]], Field(min_length=1, max_length=MAX_DIMENSION)
    ]
    region: Regions
    threshold: Similarity | None = None
    top_k: Annotated[int, Field(ge=1, le=100)] = 5
    strategy: StrategyName | None = None


class VerifyRequest(Sent):
    """Whether the image shows the same person as `other`, or as the enrolled person: one of the two."""

    image: Image
    other: Image | None = None
    person_id: RowId | None = None
    threshold: Similarity | None = None


class DetectRequest(Sent):
    image: Image
    max_faces: Annotated[int, Field(ge=1, le=1000)] = 100


class ClientCreate(Sent):
    client_id: ClientId
    name: Name | None = None
    threshold: Similarity | None = None


class ClientPatch(Sent):
    """What is given is changed; a threshold of null takes the model pack's again."""

    name: NewName = None
    threshold: Similarity | None = None


class KeyCreate(Sent):
    """client_id: of another client, for admins. regions: the only ones that the key may work in; left out: all.

    rate_limit: requests a second, where not the deployment's.
    """

    role: RoleName
    client_id: ClientId | None = None
    regions: Annotated[list[Region], Field(min_length=1, max_length=MAX_REGIONS)] | None = None
    name: Name | None = None
    expires_at: Time | None = None
    rate_limit: Annotated[float, Field(ge=0.001, le=1_000_000, allow_inf_nan=False)] | None = None


# Answers


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
    id: int
    region: str
    name: str
    description: str | None
    external_id: str | None
    face_count: int
    created_at: Time
    updated_at: Time


class PersonPage(Answered):
    """next: the cursor of the page after this one; null on the last."""

    items: list[PersonOut]
    next: str | None


class EnrolledFace(Answered):
    id: int
    quality: QualityOut | None


class EnrollmentOut(Answered):
    """What was stored: the person, and the new faces in the order of the photos."""

    person: PersonOut
    faces: list[EnrolledFace]


class FaceOut(Answered):
    """A stored face, without its embedding."""

    id: int
    box: BoxOut | None
    confidence: float | None
    quality: float | None
    has_image: bool
    created_at: Time


class FaceList(Answered):
    items: list[FaceOut]


class DetectedFace(Answered):
    """landmarks: left eye, right eye, nose, left and right corner of the mouth, as [x, y] in pixels."""

    box: BoxOut
    landmarks: list[list[float]]
    confidence: float
    quality: QualityOut


class Detection(Answered):
    faces: list[DetectedFace]


class CandidateOut(Answered):
    """A person and the nearest of that person's faces."""

    person_id: int
    face_id: int
    name: str
    region: str
    external_id: str | None
    similarity: float
    match_score: float


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
    created_at: Time


class RegionList(Answered):
    items: list[RegionOut]


class ClientOut(Answered):
    client_id: str
    name: str
    threshold: float | None
    created_at: Time
    updated_at: Time


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
    """What this key is and may do."""

    client_id: str
    role: RoleName
    regions: list[str] | None
    prefix: str
    expires_at: Time | None
    may: list[str]


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


class FieldProblem(Answered):
    """field: where in the request. message: what is wrong there."""

    field: str
    message: str


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
