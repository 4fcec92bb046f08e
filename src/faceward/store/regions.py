"""The regions of a client: made, renamed, deleted, with settings of their own. Each call is one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from faceward.errors import (
    DuplicateRegionError,
    RegionNotEmptyError,
    TooManyRegionsError,
    UnknownRegionError,
)
from faceward.store.audit_log import record
from faceward.store.clients import ensure_client
from faceward.store.database import Database
from faceward.store.request_tokens import claim
from faceward.store.retention import apply_to_existing, count_existing
from faceward.types import UNCHANGED, RegionChange, RegionSummary, RequestToken, RetentionEffect, Unchanged

MOST_REGIONS = 10_000
"""Of one client, where nobody says how many."""

COUNT_REGIONS = "SELECT count(*) FROM regions WHERE client_id = %(client_id)s"
_CREATE = "create_region"
_MOVED_AT_ONCE = 1_000
"""Persons of a region that one statement of a rename takes along: none may take longer than its timeout."""

_SUMMARY = """
SELECT r.name, r.created_at, r.threshold, r.retention_days,
       (SELECT count(*) FROM persons p WHERE p.client_id = %(client_id)s AND p.region = r.name) AS persons,
       (SELECT count(*) FROM face_encodings f WHERE f.client_id = %(client_id)s AND f.region = r.name) AS faces
FROM regions r WHERE r.client_id = %(client_id)s
"""
# Persons and faces in one statement: a key that joins them names the region, and no snapshot may see them apart.
_MOVE = """
WITH moved AS (
    UPDATE persons SET region = %(new)s WHERE client_id = %(client_id)s AND id = ANY(%(ids)s)
), faces AS (
    UPDATE face_encodings SET region = %(new)s, row_version = pg_current_xact_id()
    WHERE client_id = %(client_id)s AND person_id = ANY(%(ids)s)
)
SELECT 1
"""


@dataclass(frozen=True, slots=True)
class RegionPage:
    """next_after: the `after` of the next page, or None at the end."""

    regions: tuple[RegionSummary, ...]
    next_after: str | None


@dataclass(frozen=True, slots=True)
class OwnThresholds:
    """The thresholds that a client has set: its own, and those of regions by name."""

    client: float | None
    regions: Mapping[str, float]


class RegionStore:
    """The regions of all clients. max_regions: of one client."""

    def __init__(self, database: Database, *, max_regions: int = MOST_REGIONS) -> None:
        self._database = database
        self._max_regions = max_regions

    def create(
        self,
        client_id: str,
        name: str,
        threshold: float | None = None,
        request: RequestToken | None = None,
        *,
        retention_days: int | None = None,
    ) -> RegionSummary:
        """request: where it made the region before, that region as it is now.

        Raises DuplicateRegionError, TooManyRegionsError; with a request also RequestReusedError, and UnknownRegionError
        where what it made is deleted or has another name.
        """
        with self._database.transaction(client_id) as tx:
            if request is not None and claim(tx, client_id, request, _CREATE) is not None:
                return _get(tx, client_id, name)
            if not ensure_region(tx, client_id, name, self._max_regions):
                raise DuplicateRegionError(f"Region {name!r} exists already. Use another name, or change that region.")
            _set(tx, client_id, name, {"threshold": threshold, "retention_days": retention_days})
            return _get(tx, client_id, name)

    def get(self, client_id: str, name: str) -> RegionSummary:
        """Raises UnknownRegionError."""
        with self._database.transaction(client_id) as tx:
            return _get(tx, client_id, name)

    def list(
        self, client_id: str, *, names: Sequence[str] | None = None, after: str = "", limit: int = 100
    ) -> RegionPage:
        """A page of a client's regions by name, those behind the name `after`. names: of these only."""
        among = "" if names is None else "AND r.name = ANY(%(names)s::varchar[])"
        parameters = {"client_id": client_id, "after": after, "limit": limit + 1, "names": list(names or ())}
        with self._database.transaction(client_id) as tx:
            rows = (
                tx.exec_driver_sql(
                    f"{_SUMMARY} AND r.name > %(after)s {among} ORDER BY r.name LIMIT %(limit)s", parameters
                )
                .mappings()
                .all()
            )
        regions = tuple(RegionSummary(**row) for row in rows[:limit])
        return RegionPage(regions, regions[-1].name if len(rows) > limit else None)

    def update(
        self,
        client_id: str,
        name: str,
        *,
        new_name: str | Unchanged = UNCHANGED,
        threshold: float | Unchanged | None = UNCHANGED,
        retention_days: int | Unchanged | None = UNCHANGED,
        existing: bool = False,
    ) -> RegionChange:
        """Change what is given. A new name takes along all persons and faces, and the keys that name the region.

        existing: apply a retention that is given to the people who are there. Raises UnknownRegionError,
        DuplicateRegionError, and DeadlineExceededError where they are too many for the time.
        """
        with self._database.transaction(client_id) as tx:
            _hold(tx, client_id, name)
            given = {"threshold": threshold, "retention_days": retention_days}
            changes = {column: value for column, value in given.items() if not isinstance(value, Unchanged)}
            effect = None
            if changes:
                _set(tx, client_id, name, changes)
                details: dict[str, Any] = {}
                if existing and isinstance(retention_days, int):
                    effect = apply_to_existing(self._database, tx, client_id, [name], retention_days)
                    details = {"existing": asdict(effect)}
                record(tx, client_id, "region.change", region=name, fields=sorted(changes), **details)
            if not isinstance(new_name, Unchanged) and new_name != name:
                self._rename(tx, client_id, name, new_name)
                name = new_name
            return RegionChange(**_row(tx, client_id, name), existing=effect)

    def count_existing(self, client_id: str, name: str, days: int) -> RetentionEffect:
        """Whom a retention of so many days would change, applied to who is there. Raises UnknownRegionError."""
        with self._database.transaction(client_id) as tx:
            require_regions(tx, client_id, [name])
            return count_existing(tx, client_id, [name], days)

    def delete(self, client_id: str, name: str) -> None:
        """Delete a region without persons. Raises UnknownRegionError, RegionNotEmptyError."""
        with self._database.transaction(client_id) as tx:
            _hold(tx, client_id, name)
            persons = tx.exec_driver_sql(
                "SELECT count(*) FROM persons WHERE client_id = %s AND region = %s", (client_id, name)
            ).scalar_one()
            if persons:
                raise RegionNotEmptyError(
                    f"Region {name!r} has people in it ({persons}) and can't be deleted. Move or delete them first."
                )
            tx.exec_driver_sql("DELETE FROM regions WHERE client_id = %s AND name = %s", (client_id, name))
            record(tx, client_id, "region.delete", region=name)

    def _rename(self, tx: sa.Connection, client_id: str, old: str, new: str) -> None:
        made = tx.exec_driver_sql(
            "INSERT INTO regions (client_id, name, threshold, retention_days, created_at) "
            "SELECT client_id, %s, threshold, retention_days, created_at FROM regions WHERE client_id = %s AND name = %s "
            "ON CONFLICT DO NOTHING",
            (new, client_id, old),
        ).rowcount
        if not made:
            raise DuplicateRegionError(f"Region {new!r} exists already. Use another name, or move the persons there.")
        while True:
            self._database.timeout()  # one statement's own limit is not that of all of them
            # First held, then moved: the second statement's snapshot has every face that was being added.
            ids = (
                tx.exec_driver_sql(
                    "SELECT id FROM persons WHERE client_id = %s AND region = %s ORDER BY id LIMIT %s FOR UPDATE",
                    (client_id, old, _MOVED_AT_ONCE),
                )
                .scalars()
                .all()
            )
            if not ids:
                break
            tx.exec_driver_sql(_MOVE, {"client_id": client_id, "new": new, "ids": list(ids)})
        tx.exec_driver_sql(
            "UPDATE api_keys SET regions = ARRAY(SELECT DISTINCT unnest(array_replace(regions, %(old)s, %(new)s)) ORDER BY 1) "
            "WHERE client_id = %(client_id)s AND %(old)s = ANY(regions)",
            {"client_id": client_id, "old": old, "new": new},
        )
        # Whoever sees an import by the regions of a key goes on seeing it.
        tx.exec_driver_sql(
            "UPDATE jobs SET region_limit = array_replace(region_limit, %(old)s, %(new)s) "
            "WHERE client_id = %(client_id)s AND %(old)s = ANY(region_limit)",
            {"client_id": client_id, "old": old, "new": new},
        )
        tx.exec_driver_sql("DELETE FROM regions WHERE client_id = %s AND name = %s", (client_id, old))
        record(tx, client_id, "region.rename", old=old, new=new)

    def thresholds(self, client_id: str) -> OwnThresholds:
        """Of a client that is unknown: none."""
        with self._database.transaction(client_id) as tx:
            rows = tx.exec_driver_sql(
                "SELECT NULL AS name, threshold FROM clients WHERE client_id = %(client_id)s AND threshold IS NOT NULL "
                "UNION ALL SELECT name, threshold FROM regions WHERE client_id = %(client_id)s AND threshold IS NOT NULL",
                {"client_id": client_id},
            ).all()
        by_name: dict[str | None, float] = {row.name: row.threshold for row in rows}
        own = by_name.pop(None, None)
        return OwnThresholds(own, {name: value for name, value in by_name.items() if name is not None})


def ensure_region(tx: sa.Connection, client_id: str, region: str, most: int) -> bool:
    """Make the region, and its client with its first one, where it is absent; True if it was.

    Raises TooManyRegionsError where the client has `most` of them; the transaction is to end with it.
    """
    made = tx.exec_driver_sql(
        "INSERT INTO regions (client_id, name) VALUES (%s, %s) ON CONFLICT DO NOTHING", (client_id, region)
    ).rowcount
    if made:
        ensure_client(tx, client_id)
        check_region_count(tx.exec_driver_sql(COUNT_REGIONS, {"client_id": client_id}).scalar_one(), most)
        record(tx, client_id, "region.create", region=region)
    return bool(made)


def check_region_count(count: int, most: int) -> None:
    """Raises TooManyRegionsError. count: with those that are being made."""
    if count > most:
        raise TooManyRegionsError(
            f"This client has {most} regions, as many as it may have (enroll.max_regions), and this would make another. "
            "Nothing was stored. Use a region that exists, or delete those that are empty."
        )


def require_regions(tx: sa.Connection, client_id: str, names: Sequence[str]) -> None:
    """Raises UnknownRegionError for the first one that the client has not."""
    there = set(
        tx.exec_driver_sql(
            "SELECT name FROM regions WHERE client_id = %s AND name = ANY(%s::varchar[])", (client_id, list(names))
        ).scalars()
    )
    for name in names:
        if name not in there:
            raise _unknown(tx, client_id, name)


def _unknown(tx: sa.Connection, client_id: str, name: str) -> UnknownRegionError:
    # All of them: whoever asks may see the last ones only.
    others = tx.exec_driver_sql("SELECT name FROM regions WHERE client_id = %s ORDER BY name", (client_id,)).scalars()
    return UnknownRegionError(name, tuple(others))


def _get(tx: sa.Connection, client_id: str, name: str) -> RegionSummary:
    return RegionSummary(**_row(tx, client_id, name))


def _row(tx: sa.Connection, client_id: str, name: str) -> Mapping[Any, Any]:
    row = (
        tx.exec_driver_sql(f"{_SUMMARY} AND r.name = %(name)s", {"client_id": client_id, "name": name})
        .mappings()
        .first()
    )
    if row is None:
        raise _unknown(tx, client_id, name)
    return row


def _hold(tx: sa.Connection, client_id: str, name: str) -> None:
    """Nobody comes into the region, or leaves it for another, until the transaction ends. Raises UnknownRegionError."""
    held = tx.exec_driver_sql(
        "SELECT 1 FROM regions WHERE client_id = %s AND name = %s FOR UPDATE", (client_id, name)
    ).scalar()
    if held is None:
        raise _unknown(tx, client_id, name)


def _set(tx: sa.Connection, client_id: str, name: str, changes: Mapping[str, float | None]) -> None:
    assignments = ", ".join(f"{column} = %({column})s" for column in changes)
    tx.exec_driver_sql(
        f"UPDATE regions SET {assignments}, updated_at = now() WHERE client_id = %(client_id)s AND name = %(name)s",
        {**changes, "client_id": client_id, "name": name},
    )
