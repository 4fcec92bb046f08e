"""A retention for people who are there already: counted from their enrolment, as for those who come after it.

Nobody is kept longer by it: an expiry that is nearer stays, whoever gave it, and who has expired is left alone. A row does
not tell an expiry that somebody set from one that an earlier retention gave, nor who was to stay for good.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from faceward.store.database import Database
from faceward.types import RetentionEffect

_AT_ONCE = 1_000
"""Persons that one statement changes: none may take longer than its timeout."""

_THEIRS = """
client_id = %(client_id)s AND region = ANY(%(regions)s::varchar[])
AND coalesce(expires_at, 'infinity') > greatest(created_at + make_interval(days => %(days)s), now())
"""
_COUNT = f"""
SELECT count(*), count(*) FILTER (WHERE created_at + make_interval(days => %(days)s) <= now()) FROM persons WHERE {_THEIRS}
"""
# First held, then changed: the second statement's snapshot has every face that was being added.
_HOLD = f"SELECT id FROM persons WHERE {_THEIRS} AND id > %(after)s ORDER BY id LIMIT %(most)s FOR UPDATE"
# Persons and faces in one statement, as in person_states. row_version: what follows the faces by it, as another model's table
# while the model is changed, learns of it.
_APPLY = """
WITH changed AS (
    UPDATE persons SET expires_at = created_at + make_interval(days => %(days)s), updated_at = now()
    WHERE client_id = %(client_id)s AND id = ANY(%(ids)s) RETURNING id, expires_at, matchable_until
), faces AS (
    UPDATE face_encodings f SET matchable_until = c.matchable_until, row_version = pg_current_xact_id()
    FROM changed c WHERE f.client_id = %(client_id)s AND f.person_id = c.id AND f.matchable_until <> c.matchable_until
)
SELECT count(*) FROM changed WHERE expires_at <= now()
"""


def count_existing(tx: sa.Connection, client_id: str, regions: Sequence[str], days: int) -> RetentionEffect:
    """Whom `apply_to_existing` would change."""
    return RetentionEffect(
        *tx.exec_driver_sql(_COUNT, {"client_id": client_id, "regions": list(regions), "days": days}).one()
    )


def apply_to_existing(
    database: Database, tx: sa.Connection, client_id: str, regions: Sequence[str], days: int
) -> RetentionEffect:
    """Give the people of the regions the expiry that they would have by this retention, where theirs is later.

    Raises DeadlineExceededError where they are too many for the time.
    """
    of = {"client_id": client_id, "regions": list(regions), "days": days, "most": _AT_ONCE}
    people = expired = after = 0
    while True:
        database.timeout()  # one statement's own limit is not that of all of them
        ids = tx.exec_driver_sql(_HOLD, {**of, "after": after}).scalars().all()
        if ids:
            expired += tx.exec_driver_sql(_APPLY, {**of, "ids": list(ids)}).scalar_one()
            people, after = people + len(ids), ids[-1]
        if len(ids) < _AT_ONCE:
            return RetentionEffect(people, expired)
