"""The keys of clients, with the hashes of their secrets. Each call is one transaction."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from faceward.errors import SecretShownError, UnknownClientError, UnknownKeyError
from faceward.store.audit_log import record
from faceward.store.clients import ensure_client
from faceward.store.database import ADMIN_KEYS, KEY_OF_PREFIX, SET_TIMEOUT, Database
from faceward.store.jobs import cancel_of_key
from faceward.store.request_tokens import claim, complete
from faceward.types import ApiKey, RequestToken, Role

_COLUMNS = "client_id, id, prefix, role, regions, name, rate_limit, created_at, expires_at, revoked_at, last_used_at"
_FIND = (
    "SELECT revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) AS valid, secret_hash, "
    f"{_COLUMNS} FROM api_keys WHERE prefix = %s LIMIT 1"
)
_FIRST_KEY_LOCK = 0x6B657973  # "keys"
_CREATE = "create_key"


@dataclass(frozen=True, slots=True)
class FoundKey:
    """secret_hash: the SHA-256 of the key's text. valid: neither revoked nor expired, by the database's clock."""

    key: ApiKey
    secret_hash: bytes
    valid: bool


@dataclass(frozen=True, slots=True)
class KeyPage:
    """next_after: the `after` of the next page, or None at the end."""

    keys: tuple[ApiKey, ...]
    next_after: int | None


class KeyStore:
    """Keys are never deleted: a revoked one stays, to be seen."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, prefix: str) -> FoundKey | None:
        """The key of a prefix, of whatever client; revoked and expired ones too."""
        # Every request asks this: one round trip, in which the settings are made for the implicit transaction only.
        self._database.timeout()
        with self._database.driver_connection() as connection:
            timeout = self._database.timeout()
            with connection.pipeline():
                if timeout is not None:
                    connection.execute(SET_TIMEOUT, (timeout,))
                connection.execute(KEY_OF_PREFIX, (prefix,))
                cursor = connection.cursor()
                cursor.execute(_FIND, (prefix,))
            row = cursor.fetchone()
            if row is None:
                return None
            assert cursor.description is not None
            named = {column.name: value for column, value in zip(cursor.description, row, strict=True)}
        return FoundKey(ApiKey.from_row(named), bytes(named["secret_hash"]), named["valid"])

    def create(
        self,
        client_id: str,
        role: Role,
        *,
        prefix: str,
        secret_hash: bytes,
        regions: Sequence[str] | None = None,
        name: str | None = None,
        expires_at: dt.datetime | None = None,
        rate_limit: float | None = None,
        request: RequestToken | None = None,
    ) -> ApiKey:
        """Raises UnknownClientError; SecretShownError where the request made its key before, RequestReusedError where it was
        another one.
        """
        with self._database.transaction(client_id) as tx:
            if request is not None:
                before = claim(tx, client_id, request, _CREATE)
                if before is not None:
                    assert before.resource_id is not None  # keys are kept
                    raise SecretShownError(before.resource_id)
            known = tx.exec_driver_sql("SELECT 1 FROM clients WHERE client_id = %s", (client_id,)).scalar()
            if known is None:
                raise UnknownClientError(client_id)
            values = {
                "role": role,
                "prefix": prefix,
                "secret_hash": secret_hash,
                "regions": None if regions is None else list(regions),
                "name": name,
                "expires_at": expires_at,
                "rate_limit": rate_limit,
            }
            key = _insert(tx, client_id, values)
            if request is not None:
                complete(tx, client_id, request, key.id)
            return key

    def create_first(self, client_id: str, *, prefix: str, secret_hash: bytes, name: str) -> ApiKey | None:
        """An admin key, where there is none in the whole database, and its client; None where there is one.

        One that was revoked counts: a secret that was withdrawn must not come back with the next start.
        """
        with self._database.transaction(client_id) as tx:
            # Several processes start at once.
            tx.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_FIRST_KEY_LOCK,))
            tx.exec_driver_sql(ADMIN_KEYS)
            if tx.exec_driver_sql("SELECT EXISTS (SELECT 1 FROM api_keys WHERE role = 'admin')").scalar():
                return None
            ensure_client(tx, client_id)
            return _insert(tx, client_id, {"role": "admin", "prefix": prefix, "secret_hash": secret_hash, "name": name})

    def is_last_admin(self, client_id: str, key_id: int) -> bool:
        """Whether this is the only key of the role admin, of all clients', that is neither revoked nor expired."""
        with self._database.unscoped() as tx:
            tx.exec_driver_sql(ADMIN_KEYS)
            valid = tx.exec_driver_sql(
                "SELECT client_id, id FROM api_keys "
                "WHERE role = 'admin' AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) LIMIT 2"
            ).all()
        return [tuple(row) for row in valid] == [(client_id, key_id)]

    def list(self, client_id: str, after: int = 0, limit: int = 100) -> KeyPage:
        """A page of a client's keys by ascending id, those with an id above `after`."""
        with self._database.transaction(client_id) as tx:
            rows = (
                tx.exec_driver_sql(
                    f"SELECT {_COLUMNS} FROM api_keys WHERE client_id = %s AND id > %s ORDER BY id LIMIT %s",
                    (client_id, after, limit + 1),
                )
                .mappings()
                .all()
            )
        keys = tuple(ApiKey.from_row(row) for row in rows[:limit])
        return KeyPage(keys, keys[-1].id if len(rows) > limit else None)

    def get(self, client_id: str, key_id: int) -> ApiKey:
        """Raises UnknownKeyError."""
        with self._database.transaction(client_id) as tx:
            return _get(tx, client_id, key_id)

    def revoke(self, client_id: str, key_id: int) -> ApiKey:
        """Refuse the key from now on, and cancel its imports that are not finished; one that was revoked keeps its moment.

        Raises UnknownKeyError.
        """
        with self._database.transaction(client_id) as tx:
            revoked = tx.exec_driver_sql(
                "UPDATE api_keys SET revoked_at = now() WHERE client_id = %s AND id = %s AND revoked_at IS NULL",
                (client_id, key_id),
            ).rowcount
            if revoked:
                record(tx, client_id, "key.revoke", key=key_id)
            cancel_of_key(tx, client_id, key_id)
            return _get(tx, client_id, key_id)

    def replace_secret(self, client_id: str, key_id: int, *, prefix: str, secret_hash: bytes) -> ApiKey | None:
        """Give the key a new text; the old one is refused from now on. None for a revoked key.

        Raises UnknownKeyError.
        """
        with self._database.transaction(client_id) as tx:
            row = (
                tx.exec_driver_sql(
                    "UPDATE api_keys SET prefix = %s, secret_hash = %s, last_used_at = NULL "
                    f"WHERE client_id = %s AND id = %s AND revoked_at IS NULL RETURNING {_COLUMNS}",
                    (prefix, secret_hash, client_id, key_id),
                )
                .mappings()
                .first()
            )
            if row is not None:
                record(tx, client_id, "key.rotate", key=key_id, prefix=prefix)
        if row is None:
            self.get(client_id, key_id)
            return None
        return ApiKey.from_row(row)

    def touch(self, client_id: str, key_id: int) -> None:
        """Record that the key was used; written at most once a minute, however many requests it sends."""
        with self._database.transaction(client_id) as tx:
            tx.exec_driver_sql(
                "UPDATE api_keys SET last_used_at = now() WHERE client_id = %s AND id = %s "
                "AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')",
                (client_id, key_id),
            )


def _get(tx: sa.Connection, client_id: str, key_id: int) -> ApiKey:
    row = (
        tx.exec_driver_sql(f"SELECT {_COLUMNS} FROM api_keys WHERE client_id = %s AND id = %s", (client_id, key_id))
        .mappings()
        .first()
    )
    if row is None:
        raise UnknownKeyError(key_id)
    return ApiKey.from_row(row)


def _insert(tx: sa.Connection, client_id: str, values: dict[str, Any]) -> ApiKey:
    columns = ", ".join(values)
    places = ", ".join(f"%({column})s" for column in values)
    row = (
        tx.exec_driver_sql(
            f"INSERT INTO api_keys (client_id, {columns}) VALUES (%(client_id)s, {places}) RETURNING {_COLUMNS}",
            {**values, "client_id": client_id},
        )
        .mappings()
        .one()
    )
    key = ApiKey.from_row(row)
    record(tx, client_id, "key.create", key=key.id, prefix=key.prefix, role=key.role)
    return key
