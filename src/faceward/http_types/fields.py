"""The fields of bodies: texts, numbers, images and times with their limits, as OpenAPI tells them."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, WithJsonSchema

from faceward.checks import (
    EARLIEST,
    LATEST,
    MAX_CLIENT_ID,
    MAX_DESCRIPTION,
    MAX_EXTERNAL_ID,
    MAX_NAME,
    MAX_REGION,
    MAX_RETENTION_DAYS,
    composed,
)

MAX_IMAGES = 20
MAX_REGIONS = 100
MAX_DIMENSION = 4096

RoleName = Literal["admin", "manager", "enroller", "recognizer"]
PersonStateName = Literal["active", "suspended"]
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
    try:
        return value.astimezone(dt.UTC)
    except OverflowError as exc:
        raise ValueError("a time that no calendar has in UTC") from exc


def _moment(value: Any) -> dt.datetime:
    """A time of RFC 3339. Pydantic alone takes any digits, also those of a date, for seconds or milliseconds since 1970."""
    text = value.upper() if isinstance(value, str) else ""
    if _RFC_3339.fullmatch(text):
        try:
            return dt.datetime.fromisoformat(text)
        except ValueError:  # the 30th of February, or the 25th hour
            pass
    raise ValueError("it must be a time of RFC 3339 with its offset, as 2099-12-31T00:00:00Z")


def _expiry(value: dt.datetime) -> dt.datetime:
    if not EARLIEST <= value <= LATEST:
        raise ValueError("it must be from the year 1970 to the year 9998")
    return value.astimezone(dt.UTC)


def _not_null(value: Any) -> Any:
    if value is None:
        raise ValueError("it can't be cleared; leave it out to keep what it is")
    return value


_RFC_3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})")
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
    BeforeValidator(composed),
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
RetentionDays = Annotated[
    int, Field(ge=1, le=MAX_RETENTION_DAYS, description="Days after which people enrolled from now on expire.")
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
    BeforeValidator(composed),
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
"""As it is answered."""

Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]
"""A time as it is sent."""

KeyExpiry = Annotated[Moment, AfterValidator(_expiry)]

ExpiresAt = Annotated[
    Moment,
    AfterValidator(_expiry),
    Field(
        description="From then on the person is not matched, until it is erased; null: for good.",
        examples=["2030-01-31T17:00:00Z"],
    ),
]

# Of a change: left out, it stays; null is refused.
NewName = Annotated[
    str | None,
    BeforeValidator(_not_null),
    Field(min_length=1, max_length=MAX_NAME),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": LINE}),
]
NewState = Annotated[
    PersonStateName | None,
    BeforeValidator(_not_null),
    WithJsonSchema(
        {
            "type": "string",
            "enum": ["active", "suspended"],
            "description": "suspended: kept with all faces, and matched by no search.",
        }
    ),
]
NewRegion = Annotated[
    str | None,
    BeforeValidator(_not_null),
    BeforeValidator(composed),
    Field(min_length=1, max_length=MAX_REGION),
    WithJsonSchema(_REGION),
]
