"""What persons were called before, by a name that was changed or by a record that was merged: whoever looks for all that
names a person needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

# A name is kept once, however often it comes and goes. The person is held: of two changes at once the second keeps what the
# first one wrote.
_RENAMED = """
INSERT INTO former_names (client_id, person_id, name, external_id)
SELECT p.client_id, p.id, p.name, p.external_id FROM persons p
WHERE p.client_id = %(client_id)s AND p.id = %(person_id)s
AND (p.name <> coalesce(%(name)s::varchar, p.name)
     OR (%(new_external_id)s::boolean AND p.external_id IS DISTINCT FROM %(external_id)s::varchar))
AND NOT EXISTS (SELECT 1 FROM former_names f WHERE f.client_id = p.client_id AND f.person_id = p.id AND f.name = p.name
                AND f.external_id IS NOT DISTINCT FROM p.external_id)
FOR NO KEY UPDATE OF p
"""
_MERGED = """
INSERT INTO former_names (client_id, person_id, person_number, name, external_id)
SELECT client_id, %(into_id)s, id, name, external_id FROM persons
WHERE client_id = %(client_id)s AND id = %(person_id)s
"""
_HANDED_ON = """
UPDATE former_names SET person_id = %(into_id)s WHERE client_id = %(client_id)s AND person_id = %(person_id)s
"""
# Whom a person was merged into, and that one in turn, by the audit log. Who was deleted did not become another, whatever an
# entry says.
_LATER = """
    SELECT %(person_id)s::bigint AS id
    UNION
    SELECT a.other_person_id FROM later JOIN audit_log a ON a.client_id = %(client_id)s AND a.person_id = later.id
    WHERE a.client_id = %(client_id)s AND a.action = 'person.merge' AND a.other_person_id IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM audit_log d WHERE d.client_id = %(client_id)s AND d.person_id = later.id
                    AND d.action = 'person.delete')
"""
# Merges of before this table was there are in the audit log, for as long as it keeps them. Who is enrolled was merged into
# nobody, whatever an entry says, and who was merged into somebody enrolled into nobody else. Who was merged into somebody who
# is gone too was that one, and whoever else was.
_NUMBERS = f"""
WITH RECURSIVE later AS (
    {_LATER}
    AND NOT EXISTS (SELECT 1 FROM persons p WHERE p.client_id = %(client_id)s AND p.id IN (later.id, a.other_person_id))
    AND NOT EXISTS (SELECT 1 FROM former_names f WHERE f.client_id = %(client_id)s
                    AND f.person_number IN (later.id, a.other_person_id))
), same AS (
    SELECT first.id FROM (
        SELECT id FROM later UNION SELECT person_number FROM former_names
        WHERE client_id = %(client_id)s AND person_id = %(person_id)s AND person_number IS NOT NULL
    ) first (id)
    UNION
    SELECT a.person_id FROM same JOIN audit_log a ON a.client_id = %(client_id)s AND a.other_person_id = same.id
    WHERE a.client_id = %(client_id)s AND a.action = 'person.merge' AND a.person_id IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM persons p WHERE p.client_id = %(client_id)s AND p.id = a.person_id)
    AND NOT EXISTS (SELECT 1 FROM former_names f WHERE f.client_id = %(client_id)s AND f.person_number = a.person_id
                    AND f.person_id <> %(person_id)s)
)
SELECT id FROM same ORDER BY id
"""
_BECAME = f"""
WITH RECURSIVE later AS (
    {_LATER}
)
SELECT f.person_id AS id FROM later JOIN former_names f ON f.client_id = %(client_id)s AND f.person_number = later.id
UNION SELECT p.id FROM later JOIN persons p ON p.client_id = %(client_id)s AND p.id = later.id ORDER BY id LIMIT 1
"""
_CALLED = """
SELECT name, external_id FROM persons WHERE client_id = %(client_id)s AND id = %(person_id)s
UNION SELECT name, external_id FROM former_names WHERE client_id = %(client_id)s AND person_id = %(person_id)s ORDER BY 1, 2
"""
_CALLED_SO = f"SELECT 1 FROM ({_CALLED}) AS called WHERE name = %(name)s"


@dataclass(frozen=True, slots=True)
class Identity:
    """All that a person is or was called. numbers: the person's own, and those of whoever was merged into the person; of one
    who was merged into somebody who is not enrolled any more, also that one's.
    """

    numbers: tuple[int, ...]
    names: tuple[str, ...]
    external_ids: tuple[str, ...]


def identity_of(tx: sa.Connection, client_id: str, person_id: int) -> Identity:
    """Of a person who may be deleted already: then the number, and what the audit log knows."""
    of = {"client_id": client_id, "person_id": person_id}
    numbers = tuple(tx.exec_driver_sql(_NUMBERS, of).scalars())
    called = tx.exec_driver_sql(_CALLED, of).all()
    names = tuple(dict.fromkeys(row.name for row in called))
    return Identity(
        numbers, names, tuple(dict.fromkeys(row.external_id for row in called if row.external_id is not None))
    )


def merged_into(tx: sa.Connection, client_id: str, person_id: int) -> int | None:
    """Whom somebody who is not enrolled any more became by merges; None: nobody who is enrolled."""
    became: int | None = tx.exec_driver_sql(_BECAME, {"client_id": client_id, "person_id": person_id}).scalar()
    return became


def was_called(tx: sa.Connection, client_id: str, person_id: int, name: str) -> bool:
    """Whether it is a name of the person, or was one, or of a record that was merged into the person's."""
    of = {"client_id": client_id, "person_id": person_id, "name": name}
    return tx.exec_driver_sql(_CALLED_SO, of).first() is not None


def keep_renamed(tx: sa.Connection, client_id: str, person_id: int, changes: Mapping[str, Any]) -> None:
    """Before the person gets another name or external id."""
    of = {"client_id": client_id, "person_id": person_id, "name": changes.get("name")}
    renumbered = {"new_external_id": "external_id" in changes, "external_id": changes.get("external_id")}
    tx.exec_driver_sql(_RENAMED, {**of, **renumbered})


def keep_merged(tx: sa.Connection, client_id: str, person_id: int, into_id: int) -> None:
    """Before the first person's record goes into the other one."""
    of = {"client_id": client_id, "person_id": person_id, "into_id": into_id}
    tx.exec_driver_sql(_HANDED_ON, of)
    tx.exec_driver_sql(_MERGED, of)
