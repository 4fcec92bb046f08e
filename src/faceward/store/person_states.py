"""Whether a person is matched: their state, when they expire, and the rule that their faces repeat.

`persons.matchable_until` is generated from state and expiry: '-infinity' is suspended, 'infinity' is for good. Each face
repeats it, so that a search needs no look at the person; the foreign key refuses a face that says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

MATCHABLE = "f.matchable_until > now()"
"""Of a face `f`: whether searches may find it. Every statement that proposes or ranks faces says it."""

EXPIRY_OF_NEW = """
now() + make_interval(days => coalesce(
    (SELECT retention_days FROM regions WHERE client_id = %(client_id)s::varchar AND name = %(region)s::varchar FOR KEY SHARE),
    (SELECT retention_days FROM clients WHERE client_id = %(client_id)s::varchar FOR KEY SHARE)))
"""
"""When a new person of %(region)s expires where nobody says it: by the retention of the region, else of the client.

Locked: where a retention is being applied to all who are there, this waits for it, and takes the new one.
"""

# One statement, so that no snapshot sees a person and a face of theirs differ. row_version: the faces come back to searches
# whose sketch was loaded without them.
_CHANGE = """
WITH changed AS (
    UPDATE persons SET {assignments}, updated_at = now()
    WHERE client_id = %(client_id)s AND id = %(person_id)s RETURNING id, matchable_until
), faces AS (
    UPDATE face_encodings f SET matchable_until = c.matchable_until, row_version = pg_current_xact_id()
    FROM changed c WHERE f.client_id = %(client_id)s AND f.person_id = c.id AND f.matchable_until <> c.matchable_until
)
SELECT count(*) FROM changed
"""


def change_state(tx: sa.Connection, client_id: str, person_id: int, changes: Mapping[str, Any]) -> None:
    """Set columns of a person, `state` or `expires_at` among them, and take the faces along.

    The caller holds the person FOR UPDATE: that has waited for a face that was being added, which the snapshot has to see.
    """
    assignments = ", ".join(f"{column} = %({column})s" for column in changes)
    tx.exec_driver_sql(
        _CHANGE.format(assignments=assignments), {**changes, "client_id": client_id, "person_id": person_id}
    )
