"""What comes in from outside, checked: texts, numbers, names and embeddings, each with its limits.

A check returns the value as the layers below take it, or raises InvalidValueError, which names the field.
"""

from __future__ import annotations

import datetime as dt
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from faceward.errors import InvalidEmbeddingError, InvalidValueError
from faceward.types import Embedding, PersonState, RequestToken

DEFAULT_CLIENT = "default"
MAX_NAME = 255
MAX_REGION = 50
MAX_CLIENT_ID = 100
MAX_EXTERNAL_ID = 255
MAX_DESCRIPTION = 10_000
MAX_REQUEST_TOKEN = 255
MAX_KEY_REGIONS = 100
MAX_RETENTION_DAYS = 36_500
EARLIEST = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_VIRAMA = 9  # the canonical combining class of them all
LATEST = dt.datetime(9999, 1, 1, tzinfo=dt.UTC)


def check_text(field_name: str, value: object, longest: int) -> str:
    """Return the text, or raise InvalidValueError: it must be 1..longest characters, all of which UTF-8 has, and none
    of them a control character.

    White space at either end is refused rather than cut: "A" and "A " would be two regions that nobody can tell apart,
    and a caller that sends one has an error to find.
    """
    if isinstance(value, str) and 0 < len(value) <= longest and value.isprintable() and value[0] != " " != value[-1]:
        return value  # what follows finds nothing: most texts are told at once; of all white space a space alone is printable
    if not isinstance(value, str):
        raise InvalidValueError(field_name, value, "a text")
    if not value or value.isspace():
        raise InvalidValueError(field_name, value, "a text that is not empty")
    if len(value) > longest:
        raise InvalidValueError(field_name, value, f"at most {longest} characters long")
    if value != value.strip():
        raise InvalidValueError(field_name, value, "a text without white space at its ends")
    if any(0xD800 <= ord(char) <= 0xDFFF for char in value):
        raise InvalidValueError(field_name, value, "a text in UTF-8")
    if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in value):
        raise InvalidValueError(field_name, value, "a text without control characters")
    return value


def composed(value: Any) -> Any:
    """A text in Unicode's NFC, in which what looks the same mostly is the same; anything else as it is."""
    return unicodedata.normalize("NFC", value) if isinstance(value, str) and not value.isascii() else value


def check_identifier(field_name: str, value: object, longest: int) -> str:
    """As check_text, and in NFC: the "ü" of a Mac's file names and that of a keyboard are two texts, and would be two regions.

    Invisible format characters are refused for the same reason, but for the joiners that shape Arabic and Indic letters.
    """
    text = check_text(field_name, composed(value), longest)
    if not text.isprintable() and any(
        unicodedata.category(char) == "Cf" and not _shapes_letters(text, place) for place, char in enumerate(text)
    ):
        raise InvalidValueError(field_name, value, "a text without invisible characters")
    return text


def _shapes_letters(text: str, place: int) -> bool:
    """Whether the character is a joiner or non-joiner between Arabic letters, or behind the virama of an Indic one."""
    if text[place] not in "\u200c\u200d" or not 0 < place < len(text) - 1:
        return False
    before, after = text[place - 1], text[place + 1]
    arabic = unicodedata.bidirectional(before) == unicodedata.bidirectional(after) == "AL"
    return arabic or unicodedata.combining(before) == _VIRAMA


def _no_step(name: str, field_name: str) -> str:
    """The name, which stands in the paths of the API: there "." and ".." are steps, which every client and proxy takes."""
    if name in (".", ".."):
        raise InvalidValueError(field_name, name, "another text than . and .., the steps of a path")
    return name


def check_external_id(value: object) -> str:
    return check_identifier("external_id", value, MAX_EXTERNAL_ID)


def check_new_client_id(value: object) -> str:
    """Of a client that is made: what another could be taken for is refused. A client that is there keeps its id for good, so
    that `check_client_id` takes it as it is.
    """
    client_id = _no_step(check_identifier("client_id", value, MAX_CLIENT_ID), "client_id")
    if client_id != value:
        raise InvalidValueError("client_id", value, f"a text in Unicode's NFC: {client_id!a}")
    return client_id


def check_name(value: object) -> str:
    return check_text("name", value, MAX_NAME)


def check_region(value: object) -> str:
    return _no_step(check_identifier("region", value, MAX_REGION), "region")


def check_regions(value: Sequence[str]) -> tuple[str, ...]:
    """Names of regions, each once."""
    return tuple(dict.fromkeys(check_region(name) for name in value))


def check_client_id(value: object) -> str:
    """The tenant; None means the tenant `default`."""
    return DEFAULT_CLIENT if value is None else check_text("client_id", value, MAX_CLIENT_ID)


def check_optional_text(field_name: str, value: object, longest: int) -> str | None:
    return None if value is None else check_text(field_name, value, longest)


def check_description(value: object) -> str | None:
    """Free text: unlike a name it may hold line breaks and tabs. White space alone is no description."""
    if value is None:
        return None
    if isinstance(value, str):
        line = value.translate({ord("\n"): " ", ord("\r"): " ", ord("\t"): " "}).strip()
        if not line:
            return None
        check_text("description", line, MAX_DESCRIPTION)
        return value
    raise InvalidValueError("description", value, "a text")


def check_threshold(value: object) -> float:
    """A similarity: a finite number in -1..1."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        raise InvalidValueError("threshold", value, "a number from -1 to 1")
    number = float(value)
    if not -1.0 <= number <= 1.0:  # NaN fails this too
        raise InvalidValueError("threshold", value, "a number from -1 to 1")
    return 0.0 if abs(number) < 1e-30 else number  # the tables hold 32 bits, which have nothing between these and 0


def check_share(field_name: str, value: object) -> float:
    """A finite number in 0..1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
        raise InvalidValueError(field_name, value, "a number from 0 to 1")
    return float(value)


def check_count(field_name: str, value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InvalidValueError(field_name, value, f"a whole number from 1 to {most}")
    return value


def check_state(value: object) -> PersonState:
    if value == "active":
        return "active"
    if value == "suspended":
        return "suspended"
    raise InvalidValueError("state", value, "active or suspended")


def check_moment(field_name: str, value: object) -> dt.datetime | None:
    """A time with its zone, or None."""
    if value is None:
        return None
    if not isinstance(value, dt.datetime) or value.tzinfo is None:
        raise InvalidValueError(field_name, value, "a time with its time zone, as 2030-01-31T12:00:00Z")
    return value


def check_future(field_name: str, value: dt.datetime | None) -> None:
    """Of what begins: it must not be over already."""
    if value is not None and value <= dt.datetime.now(dt.UTC):
        raise InvalidValueError(field_name, value.isoformat(), "in the future")


def check_expires_at(value: object) -> dt.datetime | None:
    """When a person or a key expires: a time with its zone, which may be over; None is never."""
    value = check_moment("expires_at", value)
    if value is not None and not EARLIEST <= value <= LATEST:
        raise InvalidValueError("expires_at", value.isoformat(), "from the year 1970 to the year 9998")
    return value


def check_retention(value: object) -> int | None:
    """Days after which the people of a region or client expire; None sets none."""
    return None if value is None else check_count("retention_days", value, MAX_RETENTION_DAYS)


def check_existing(apply: bool, retention_days: object) -> bool:
    """Whether a retention is to be applied to people who are there: then it must be one."""
    if apply and not isinstance(retention_days, int):
        raise InvalidValueError("apply_to_existing", apply, "given with retention_days, a number of days")
    return apply


def check_request_token(request: RequestToken) -> RequestToken:
    """Raises InvalidValueError where the token is not 1 to 255 printable characters of ASCII."""
    token = request.token
    if not (isinstance(token, str) and 0 < len(token) <= MAX_REQUEST_TOKEN and token.isascii() and token.isprintable()):
        raise InvalidValueError("idempotency key", token, f"1 to {MAX_REQUEST_TOKEN} printable characters of ASCII")
    return request


def check_id(field_name: str, value: object) -> int:
    """An id of a row: 1 to 2**63 - 1."""
    return check_count(field_name, value, 2**63 - 1)


def unit_embedding(value: object, dimension: int) -> Embedding:
    """Return the embedding as float32 of unit length.

    value: anything numpy reads as `dimension` finite numbers that are not all zero. Raises InvalidEmbeddingError, which
    never shows the numbers.
    """
    other_values = f"An embedding must be {dimension} numbers; this one holds other values."
    try:
        given = np.asarray(value)
    except (TypeError, ValueError) as exc:
        raise InvalidEmbeddingError(other_values) from exc
    if given.dtype.kind not in "iuf":  # numpy would read "0.5" as a number, and drop the imaginary part of another
        raise InvalidEmbeddingError(other_values)
    vector = given.astype(np.float64)
    if vector.shape != (dimension,):
        raise InvalidEmbeddingError(f"An embedding must be {dimension} numbers; this one has the shape {vector.shape}.")
    if not np.isfinite(vector).all():
        raise InvalidEmbeddingError("An embedding must be finite numbers; this one holds NaN or infinity.")
    largest = float(np.abs(vector).max())
    if largest == 0.0:
        raise InvalidEmbeddingError("An embedding must have a direction; this one is all zeros.")
    scaled = vector / largest
    return (scaled / np.linalg.norm(scaled)).astype(np.float32)
