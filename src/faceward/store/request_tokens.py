"""Requests that were answered before, so that one that is sent again does nothing twice.

A token is written in the transaction of what it stands for: a crash leaves both or neither. A twin that comes meanwhile
waits on the primary key, and then reads what the first one made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from psycopg.types.json import Jsonb

from faceward.errors import RequestReusedError
from faceward.types import RequestToken

ENROLL = "enroll"
ADD_FACE = "add_face"
MERGE = "merge"
ERASE = "erase"
OF_PERSONS = (ENROLL, ADD_FACE, MERGE)
"""Operations whose resource is a person."""

_KEPT = "7 days"
_FORGOTTEN_AT_ONCE = 20
_GONE_FACE = (
    "NOT EXISTS (SELECT 1 FROM face_encodings f WHERE f.client_id = %(client_id)s AND f.id = (near ->> 0)::bigint)"
)
# Of a person who was deleted only the answer tells; there is no index on it.
_OF_DELETED = "(resource_id IS NULL AND detail ->> 'person_id' = ANY(%(numbers)s::bigint[]::text[]))"
_NEAR = "SELECT 1 FROM jsonb_array_elements(detail -> 'near') AS near"


@dataclass(frozen=True, slots=True)
class AnsweredRequest:
    """resource_id: what the request made; None once that was deleted. detail: what else its answer needs."""

    resource_id: int | None
    detail: Mapping[str, Any]


def claim(tx: sa.Connection, client_id: str, request: RequestToken, operation: str) -> AnsweredRequest | None:
    """Take the token for this transaction: None where it is new, else what it stands for.

    To be the first statement of the transaction, so that a twin waits here and not inside its work. Raises
    RequestReusedError where the token was used for something else. An erasure's is kept as a digest from the first.
    """
    erased = _erased(request.token)
    taken = tx.exec_driver_sql(
        "INSERT INTO request_tokens (client_id, key_id, token, fingerprint, operation) "
        "SELECT %(client_id)s::varchar, %(key_id)s::bigint, %(kept)s::varchar, %(fingerprint)s::bytea, %(operation)s "
        "WHERE NOT EXISTS ("
        "SELECT 1 FROM request_tokens WHERE client_id = %(client_id)s::varchar AND key_id = %(key_id)s::bigint "
        "AND token IN (%(token)s, %(erased)s)) "
        "ON CONFLICT DO NOTHING",
        {
            "client_id": client_id,
            "key_id": request.key_id,
            "token": request.token,
            "erased": erased,
            "kept": erased if operation == ERASE else request.token,
            "fingerprint": request.fingerprint,
            "operation": operation,
        },
    ).rowcount
    if not taken:
        return recorded(tx, client_id, request, operation)
    # Tokens grow old a few at a time, with the new ones that take their place.
    expire_tokens(tx, client_id, _FORGOTTEN_AT_ONCE)
    return None


def expire_tokens(tx: sa.Connection, client_id: str, most: int) -> int:
    """Delete the oldest tokens whose time is over; returns how many there were."""
    return tx.exec_driver_sql(
        "DELETE FROM request_tokens WHERE client_id = %(client_id)s AND (key_id, token) IN ("
        "SELECT key_id, token FROM request_tokens WHERE client_id = %(client_id)s "
        "AND created_at < now() - %(kept)s::interval ORDER BY created_at LIMIT %(most)s FOR UPDATE SKIP LOCKED)",
        {"client_id": client_id, "kept": _KEPT, "most": most},
    ).rowcount


def recorded(tx: sa.Connection, client_id: str, request: RequestToken, operation: str) -> AnsweredRequest | None:
    """What the token stands for, or None where it is new. Raises RequestReusedError as `claim` does."""
    row = tx.exec_driver_sql(
        "SELECT fingerprint, operation, resource_id, detail FROM request_tokens "
        "WHERE client_id = %s AND key_id = %s AND token IN (%s, %s)",
        (client_id, request.key_id, request.token, _erased(request.token)),
    ).first()
    if row is None:
        return None
    if (bytes(row.fingerprint), row.operation) != (request.fingerprint, operation):
        raise RequestReusedError(
            f"The idempotency key {request.token!r} was used for another request before. Send a new one with each new "
            "request, and the same one only to repeat a request as it was."
        )
    return AnsweredRequest(row.resource_id, row.detail)


def complete(
    tx: sa.Connection,
    client_id: str,
    request: RequestToken,
    resource_id: int | None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Record what the request made, in the transaction that claimed its token."""
    tx.exec_driver_sql(
        "UPDATE request_tokens SET resource_id = %s, detail = %s "
        "WHERE client_id = %s AND key_id = %s AND token IN (%s, %s)",
        (resource_id, Jsonb(dict(detail or {})), client_id, request.key_id, request.token, _erased(request.token)),
    )


def forget_person(tx: sa.Connection, client_id: str, person_id: int) -> None:
    """The person is deleted: a request that made it, sent again, must not bring it back, nor find another."""
    tx.exec_driver_sql(
        "UPDATE request_tokens SET resource_id = NULL "
        "WHERE client_id = %s AND resource_id = %s AND operation = ANY(%s)",
        (client_id, person_id, list(OF_PERSONS)),
    )


def hand_over(tx: sa.Connection, client_id: str, person_id: int, into_id: int) -> None:
    """The person is merged into another: a request that made it, sent again, is answered with that one."""
    tx.exec_driver_sql(
        "UPDATE request_tokens SET resource_id = %(into_id)s, "
        "detail = jsonb_set(detail, '{person_id}', to_jsonb(%(into_id)s::bigint)) "
        "WHERE client_id = %(client_id)s AND resource_id = %(person_id)s AND operation = ANY(%(operations)s)",
        {"client_id": client_id, "person_id": person_id, "into_id": into_id, "operations": list(OF_PERSONS)},
    )


def erase_person(tx: sa.Connection, client_id: str, numbers: Sequence[int], *, deleted: bool) -> int:
    """The person is erased: of each request that stored the person a digest remains, so that one that is sent again still
    does not bring the person back. numbers: all that the person had. deleted: the person was deleted before. Returns how many
    there were.
    """
    whose = _OF_DELETED if deleted else "resource_id = ANY(%(numbers)s::bigint[])"
    tokens = tx.exec_driver_sql(
        f"SELECT key_id, token FROM request_tokens WHERE client_id = %(client_id)s AND {whose} AND operation = ANY(%(of)s)",
        {"client_id": client_id, "numbers": list(numbers), "of": list(OF_PERSONS)},
    ).all()
    for key_id, token in tokens:
        tx.exec_driver_sql(
            "UPDATE request_tokens SET token = %s, resource_id = NULL, detail = '{}' "
            "WHERE client_id = %s AND key_id = %s AND token = %s",
            (_erased(token), client_id, key_id, token),
        )
    return len(tokens)


def stored_deleted(tx: sa.Connection, client_id: str, numbers: Sequence[int]) -> bool:
    """Whether any request stored a person who was deleted since, and was not erased. numbers: all that the person had."""
    stored: bool = tx.exec_driver_sql(
        f"SELECT EXISTS (SELECT 1 FROM request_tokens WHERE client_id = %(client_id)s AND {_OF_DELETED} "
        "AND operation = ANY(%(of)s))",
        {"client_id": client_id, "numbers": list(numbers), "of": list(OF_PERSONS)},
    ).scalar_one()
    return stored


def forget_gone_faces(tx: sa.Connection, client_id: str) -> None:
    """Answers to others' enrolments keep which faces were near, and how near: of faces that are gone nothing stays.

    Whose the gone ones were is not asked: also those of a person who was deleted before.
    """
    tx.exec_driver_sql(
        f"UPDATE request_tokens SET detail = jsonb_set(detail, '{{near}}', coalesce(("
        f"SELECT jsonb_agg(near) FROM jsonb_array_elements(detail -> 'near') AS near WHERE NOT ({_GONE_FACE})), '[]')) "
        f"WHERE client_id = %(client_id)s AND operation = ANY(%(of)s) AND EXISTS ({_NEAR} WHERE {_GONE_FACE})",
        {"client_id": client_id, "of": list(OF_PERSONS)},
    )


def count_near(tx: sa.Connection, client_id: str, face_ids: Sequence[int]) -> int:
    """How many answers to enrolments keep that any of these faces was near."""
    count: int = tx.exec_driver_sql(
        f"SELECT count(*) FROM request_tokens WHERE client_id = %(client_id)s AND operation = ANY(%(of)s) "
        f"AND EXISTS ({_NEAR} WHERE (near ->> 0)::bigint = ANY(%(faces)s))",
        {"client_id": client_id, "of": list(OF_PERSONS), "faces": list(face_ids)},
    ).scalar_one()
    return count


def _erased(token: str) -> str:
    """What remains of a token: it is the caller's own text, and may name somebody."""
    return "erased:" + hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
