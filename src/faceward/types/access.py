"""Clients, their keys, and what a key asks for."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from faceward.types.gallery import RetentionEffect

Role: TypeAlias = Literal["admin", "manager", "enroller", "recognizer"]
"""What a key may do; each role may do what those after it may."""

ROLES: tuple[Role, ...] = ("admin", "manager", "enroller", "recognizer")


@dataclass(frozen=True, slots=True)
class Client:
    """A tenant. threshold: its own similarity from which on a face is a match; None takes the next in line.

    retention_days: after which new people expire, where their region has none of its own; None: never.
    """

    client_id: str
    name: str
    threshold: float | None
    retention_days: int | None
    created_at: dt.datetime
    updated_at: dt.datetime

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> Client:
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True, slots=True)
class ClientChange(Client):
    """A client after a change. existing: where its retention was applied to people who were there."""

    existing: RetentionEffect | None = None


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
