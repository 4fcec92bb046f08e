"""The clients (tenants) of a database. Each call is one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from faceward.checks import check_new_client_id
from faceward.errors import DuplicateClientError, UnknownClientError
from faceward.store.audit_log import record
from faceward.store.database import EVERY_CLIENT, Database
from faceward.store.decision_log import hold_erasures
from faceward.store.request_tokens import claim
from faceward.store.retention import apply_to_existing, count_existing
from faceward.types import UNCHANGED, Client, ClientChange, RequestToken, RetentionEffect, Unchanged

ENSURE_CLIENT = "INSERT INTO clients (client_id, name) VALUES (%(client_id)s, %(client_id)s) ON CONFLICT DO NOTHING"
"""A client comes with its first region, named as its id."""

_CREATE = "create_client"
_COLUMNS = "client_id, name, threshold, retention_days, created_at, updated_at"


@dataclass(frozen=True, slots=True)
class ClientPage:
    """next_after: the `after` of the next page, or None at the end."""

    clients: tuple[Client, ...]
    next_after: str | None


class ClientStore:
    """Clients: made by hand, or with their first region."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        client_id: str,
        name: str,
        threshold: float | None = None,
        request: RequestToken | None = None,
        *,
        retention_days: int | None = None,
    ) -> Client:
        """request: where it made the client before, that client as it is now. It is known within this client only.

        Raises DuplicateClientError, RequestReusedError.
        """
        with self._database.transaction(client_id) as tx:
            if request is not None and claim(tx, client_id, request, _CREATE) is not None:
                return _get(tx, client_id)
            row = (
                tx.exec_driver_sql(
                    f"INSERT INTO clients (client_id, name, threshold, retention_days) VALUES (%s, %s, %s, %s) "
                    f"ON CONFLICT DO NOTHING RETURNING {_COLUMNS}",
                    (client_id, name, threshold, retention_days),
                )
                .mappings()
                .first()
            )
            if row is None:  # raised in here, so that the request's token is given back
                raise DuplicateClientError(
                    f"Client {client_id!r} exists already. Use another id, or change that client."
                )
            record(tx, client_id, "client.create")
        return Client.from_row(row)

    def list(self, after: str = "", limit: int = 100) -> ClientPage:
        """A page of all clients by ascending id, those after the id `after`."""
        with self._database.unscoped() as tx:
            tx.exec_driver_sql(EVERY_CLIENT)
            rows = (
                tx.exec_driver_sql(
                    f"SELECT {_COLUMNS} FROM clients WHERE client_id > %s ORDER BY client_id LIMIT %s",
                    (after, limit + 1),
                )
                .mappings()
                .all()
            )
        clients = tuple(Client.from_row(row) for row in rows[:limit])
        return ClientPage(clients, clients[-1].client_id if len(rows) > limit else None)

    def ids(self) -> Iterator[str]:
        """Of all clients, ascending."""
        after: str | None = ""
        while after is not None:
            page = self.list(after, 1000)
            yield from (client.client_id for client in page.clients)
            after = page.next_after

    def get(self, client_id: str) -> Client:
        """Raises UnknownClientError."""
        with self._database.transaction(client_id) as tx:
            return _get(tx, client_id)

    def update(
        self,
        client_id: str,
        *,
        name: str | Unchanged = UNCHANGED,
        threshold: float | Unchanged | None = UNCHANGED,
        retention_days: int | Unchanged | None = UNCHANGED,
        existing: bool = False,
    ) -> ClientChange:
        """Change what is given; None clears the threshold or the retention. existing: apply a retention that is given to the
        people who are there, in regions without one of their own.

        Raises UnknownClientError, and DeadlineExceededError where they are too many for the time.
        """
        given = {"name": name, "threshold": threshold, "retention_days": retention_days}
        changes = {column: value for column, value in given.items() if not isinstance(value, Unchanged)}
        with self._database.transaction(client_id) as tx:
            if not changes:
                return ClientChange(**_row(tx, client_id))
            if existing:
                hold_erasures(tx, client_id)  # each holds a person when it comes to the client's row
                _hold_regions(tx, client_id)
                tx.exec_driver_sql("SELECT 1 FROM clients WHERE client_id = %s FOR UPDATE", (client_id,))
            assignments = ", ".join(f"{column} = %({column})s" for column in changes)
            row = (
                tx.exec_driver_sql(
                    f"UPDATE clients SET {assignments}, updated_at = now() WHERE client_id = %(client_id)s "
                    f"RETURNING {_COLUMNS}",
                    {**changes, "client_id": client_id},
                )
                .mappings()
                .first()
            )
            if row is None:
                raise UnknownClientError(client_id)
            effect = None
            details: dict[str, Any] = {}
            if existing and isinstance(retention_days, int):
                regions = _without_retention(tx, client_id)
                effect = apply_to_existing(self._database, tx, client_id, regions, retention_days)
                details = {"existing": asdict(effect)}
            record(tx, client_id, "client.change", fields=sorted(changes), **details)
        return ClientChange(**row, existing=effect)

    def count_existing(self, client_id: str, days: int) -> RetentionEffect:
        """Whom a retention of so many days would change, applied to who is there. Raises UnknownClientError."""
        with self._database.transaction(client_id) as tx:
            _row(tx, client_id)
            return count_existing(tx, client_id, _without_retention(tx, client_id), days)


def _get(tx: sa.Connection, client_id: str) -> Client:
    return Client.from_row(_row(tx, client_id))


def _row(tx: sa.Connection, client_id: str) -> Mapping[Any, Any]:
    row = tx.exec_driver_sql(f"SELECT {_COLUMNS} FROM clients WHERE client_id = %s", (client_id,)).mappings().first()
    if row is None:
        raise UnknownClientError(client_id)
    return row


def _hold_regions(tx: sa.Connection, client_id: str) -> None:
    """Whoever renames one of them, or gives it a retention, ends first or waits; enrolments go on."""
    names, held = {""}, set[str]()
    while not names <= held:  # one that was renamed meanwhile is not held by its new name yet
        held = set(
            tx.exec_driver_sql(
                "SELECT name FROM regions WHERE client_id = %s ORDER BY name FOR NO KEY UPDATE", (client_id,)
            ).scalars()
        )
        names = set(tx.exec_driver_sql("SELECT name FROM regions WHERE client_id = %s", (client_id,)).scalars())


def _without_retention(tx: sa.Connection, client_id: str) -> list[str]:
    """The regions in which the client's retention holds."""
    return list(
        tx.exec_driver_sql(
            "SELECT name FROM regions WHERE client_id = %s AND retention_days IS NULL", (client_id,)
        ).scalars()
    )


def ensure_client(tx: sa.Connection, client_id: str) -> None:
    """Make the client, named as its id, where it is absent. Raises InvalidValueError where no client may be named so."""
    if tx.exec_driver_sql(ENSURE_CLIENT, {"client_id": client_id}).rowcount:
        check_new_client_id(client_id)
        record(tx, client_id, "client.create")
