"""The audit log: who did what to which person, when. Written in the transaction of what it tells of, never changed.

An entry names persons, faces, keys and jobs by their ids, regions and clients by their names, fields by their names and
never by their values. A batch of an import is one entry with counts, not one for each of a million people.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import sqlalchemy as sa
from psycopg.types.json import Jsonb

from faceward.actors import current_actor
from faceward.store.database import Database
from faceward.store.newest import newest
from faceward.store.request_tokens import expire_tokens

Action: TypeAlias = Literal[
    "person.enroll",
    "person.change",
    "person.suspend",
    "person.resume",
    "person.move",
    "person.merge",
    "person.delete",
    "person.erase",
    "person.export",
    "face.add",
    "face.delete",
    "photo.read",
    "photo.rotate",
    "photo.crop",
    "photo.drop",
    "region.create",
    "region.change",
    "region.rename",
    "region.delete",
    "client.create",
    "client.change",
    "key.create",
    "key.rotate",
    "key.revoke",
    "import.create",
    "import.batch",
    "import.cancel",
    "reembed.begin",
    "reembed.cut_over",
    "reembed.roll_back",
    "reembed.finish",
    "reembed.abandon",
]
ACTIONS: tuple[Action, ...] = get_args(Action)

RECORD = """
INSERT INTO audit_log (client_id, actor, action, person_id, other_person_id, details)
VALUES (%(client_id)s, %(actor)s, %(action)s, %(person_id)s, %(other_person_id)s, %(details)s)
"""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """actor: as faceward.actors names it. person_id: None where it concerns no person, or one who was erased.

    other_person_id: of a merge, the person that the first one became.
    """

    id: int
    client_id: str
    at: dt.datetime
    actor: str
    action: str
    person_id: int | None
    other_person_id: int | None
    details: Mapping[str, Any]

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> AuditEntry:
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True, slots=True)
class AuditPage:
    """The newest first. next_before: the `before` of the next page, or None at the end."""

    entries: tuple[AuditEntry, ...]
    next_before: int | None


@dataclass(frozen=True, slots=True)
class Expired:
    """What was deleted since it was old enough. idempotency_keys: of requests of a week ago."""

    audit_entries: int = 0
    decisions: int = 0
    idempotency_keys: int = 0

    def __add__(self, other: Expired) -> Expired:
        return Expired(
            self.audit_entries + other.audit_entries,
            self.decisions + other.decisions,
            self.idempotency_keys + other.idempotency_keys,
        )


def entry(
    client_id: str, action: Action, *, person_id: int | None = None, other_person_id: int | None = None, **details: Any
) -> dict[str, Any]:
    """The parameters of RECORD. details: small, and of no person's name or looks."""
    return {
        "client_id": client_id,
        "actor": current_actor(),
        "action": action,
        "person_id": person_id,
        "other_person_id": other_person_id,
        "details": Jsonb(details),
    }


def record(
    tx: sa.Connection,
    client_id: str,
    action: Action,
    *,
    person_id: int | None = None,
    other_person_id: int | None = None,
    **details: Any,
) -> None:
    """Write an entry as part of the transaction: neither it nor what it tells of exists without the other."""
    tx.exec_driver_sql(
        RECORD, entry(client_id, action, person_id=person_id, other_person_id=other_person_id, **details)
    )


class AuditLog:
    """Reads the entries of a tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(
        self,
        client_id: str,
        *,
        person_id: int | None = None,
        actor: str | None = None,
        action: str | None = None,
        since: dt.datetime | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> AuditPage:
        """A page of entries, those with an id below `before`. person_id: also those of persons who were merged into it."""
        given = {"person_id": person_id, "actor": actor, "action": action, "since": since, "before": before}
        with self._database.transaction(client_id) as tx:
            rows, next_before = newest(tx, client_id, "audit_log", _COLUMNS, _FILTERS, given, limit)
        return AuditPage(tuple(AuditEntry.from_row(row) for row in rows), next_before)

    def expire(
        self, client_id: str, log_days: int, decision_days: int, stop: Callable[[], bool] = lambda: False
    ) -> Expired:
        """Delete a client's older entries and decisions, and idempotency keys whose time is over, a thousand of each in a
        transaction. Entries of the last 30 days stay whatever is asked for, so that nobody can cover the tracks. stop: asked
        after each transaction.
        """
        gone = Expired()
        while True:
            with self._database.transaction(client_id) as tx:
                entries, decisions = tx.exec_driver_sql(
                    "SELECT audit_entries, old_decisions FROM faceward_expire_logs(%s, %s, %s)",
                    (log_days, decision_days, _AT_ONCE),
                ).one()
                step = Expired(entries, decisions, expire_tokens(tx, client_id, _AT_ONCE))
            gone += step
            if max(step.audit_entries, step.decisions, step.idempotency_keys) < _AT_ONCE or stop():
                return gone


_AT_ONCE = 1_000
_FILTERS = {
    "person_id": "(person_id = %(person_id)s OR other_person_id = %(person_id)s)",
    "actor": "actor = %(actor)s",
    "action": "action = %(action)s",
}
_COLUMNS = ", ".join(AuditEntry.__dataclass_fields__)
