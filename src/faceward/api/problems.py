"""Errors as problem details (RFC 9457): the one place where an error becomes an HTTP status."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from faceward import errors
from faceward.api.rate_limit import ExhaustedError
from faceward.errors import FacewardError

MEDIA_TYPE = "application/problem+json"

STATUS: Mapping[type[FacewardError], int] = {
    errors.FacewardError: 500,
    errors.InputError: 422,
    errors.RequestFormatError: 400,
    errors.UnsupportedMediaTypeError: 415,
    errors.RequestTooLargeError: 413,
    errors.RequestTimeoutError: 408,
    errors.ImageTooLargeError: 413,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.RequestReusedError: 422,
    errors.BusyError: 503,
    errors.UnauthenticatedError: 401,
    errors.AccessError: 403,
    errors.RateLimitedError: 429,
    errors.CapacityError: 503,
    # Its operator has to bring the key back; until then the photo is there and can't be given.
    errors.ImageKeyError: 503,
    errors.ModelError: 500,
    errors.StoreError: 500,
    errors.DatabaseUnavailableError: 503,
    errors.IndexMissingError: 409,
    errors.PoolExhaustedError: 503,
    errors.StatementTimeoutError: 503,
    errors.DatabaseFullError: 503,
}
"""By class; a class that is not here has its parent's."""

# A caller can do nothing with what the database's and the models' errors of these say, and it may name the server's insides.
# The log has it.
_GENERAL = {
    500: "The server met an error of its own. It is in the server's log under this request id.",
    503: "The service can't answer now: its database is away, full or too slow. Try again in a moment.",
}
_MAY_BE_DONE = (
    "The database went away while it confirmed this, or the service was shut down. It may have been done: look before you send "
    "it again, or send it with the idempotency key that it had."
)
_FIELDS = {
    "field": "field",
    "expected": "expected",
    "reasons": "reasons",
    "known": "known_regions",
    "person_id": "person_id",
    "key_id": "key_id",
    "image": "image",
    "likely_duplicates": "likely_duplicates",
    "problems": "problems",
}


def status_of(error: FacewardError) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(error: FacewardError, request_id: str) -> Response:
    """The answer that an error of faceward gets."""
    status = status_of(error)
    detail = str(error)
    if isinstance(error, errors.StoreError | errors.ModelError) or type(error) is FacewardError:
        detail = _MAY_BE_DONE if isinstance(error, errors.OutcomeUnknownError) else _GENERAL.get(status, detail)
    more = {shown: value for name, shown in _FIELDS.items() if (value := getattr(error, name, None)) is not None}
    headers = {}
    if isinstance(error, errors.CapacityError) or status == 503:
        headers["Retry-After"] = str(max(1, math.ceil(getattr(error, "retry_after", 1.0))))
    if isinstance(error, ExhaustedError):
        headers |= error.allowance.headers()
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (408, 413):
        headers["Connection"] = "close"  # the rest of the body is not worth reading
    return answer(status, error.code, detail, request_id, more, headers)


def answer(
    status: int,
    code: str,
    detail: str,
    request_id: str,
    more: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    body = {
        "type": f"urn:faceward:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        **(more or {}),
    }
    return Response(
        # A text that UTF-8 can't hold, a lone surrogate, is escaped; whoever sent it reads it back.
        json.dumps(body, ensure_ascii=True, allow_nan=False).encode(),
        status,
        headers=dict(headers or {}),
        media_type=MEDIA_TYPE,
    )
