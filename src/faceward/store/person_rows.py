"""Persons as rows: one, a page of them, or held so that nobody deletes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import sqlalchemy as sa

from faceward.errors import UnknownPersonError
from faceward.types import Person, StoredFace

Lock: TypeAlias = Literal["KEY SHARE", "SHARE", "NO KEY UPDATE", "UPDATE"]

_PERSON = """
SELECT p.id, p.client_id, p.region, p.name, p.description, p.external_id, p.created_at, p.updated_at,
       p.state, p.expires_at,
       (SELECT count(*) FROM face_encodings f WHERE f.client_id = %(client_id)s AND f.person_id = p.id) AS face_count
FROM persons p
"""


@dataclass(frozen=True, slots=True)
class PersonPage:
    """next_after: the `after` of the next page, or None at the end."""

    persons: tuple[Person, ...]
    next_after: int | None


@dataclass(frozen=True, slots=True)
class FacePage:
    """next_after: the `after` of the next page, or None at the end."""

    faces: tuple[StoredFace, ...]
    next_after: int | None


def get_person(tx: sa.Connection, client_id: str, person_id: int, *, regions: Sequence[str] | None = None) -> Person:
    """regions: only one who is in any of these. Raises UnknownPersonError."""
    row = (
        tx.exec_driver_sql(
            f"{_PERSON} WHERE p.client_id = %(client_id)s AND p.id = %(person_id)s",
            {"client_id": client_id, "person_id": person_id},
        )
        .mappings()
        .first()
    )
    if row is None or (regions is not None and row["region"] not in regions):
        raise UnknownPersonError(person_id)
    return Person.from_row(row)


def page_of_persons(
    tx: sa.Connection,
    client_id: str,
    *,
    region: str | None,
    regions: Sequence[str] | None,
    name_prefix: str | None,
    external_id: str | None,
    after: int,
    limit: int,
) -> PersonPage:
    """As Gallery.list_persons."""
    conditions = ["p.client_id = %(client_id)s", "p.id > %(after)s"]
    parameters: dict[str, Any] = {"client_id": client_id, "after": after, "limit": limit + 1}
    if region is not None:
        conditions.append("p.region = %(region)s")
        parameters["region"] = region
    if regions is not None:
        conditions.append("p.region = ANY(%(regions)s::varchar[])")
        parameters["regions"] = list(regions)
    if external_id is not None:
        conditions.append("p.external_id = %(external_id)s")
        parameters["external_id"] = external_id
    if name_prefix:
        conditions.append("p.name LIKE %(pattern)s")
        escaped = name_prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        parameters["pattern"] = escaped + "%"
    statement = f"{_PERSON} WHERE {' AND '.join(conditions)} ORDER BY p.id LIMIT %(limit)s"
    rows = tx.exec_driver_sql(statement, parameters).mappings().all()
    persons = tuple(Person.from_row(row) for row in rows[:limit])
    return PersonPage(persons, persons[-1].id if len(rows) > limit else None)


def hold_person(
    tx: sa.Connection,
    client_id: str,
    person_id: int,
    *,
    lock: Lock = "KEY SHARE",
    regions: Sequence[str] | None = None,
) -> str:
    """Lock the person's row until the transaction ends, and return the region that it is in.

    lock: as PostgreSQL names it; the least keeps the person from being deleted, so that what is written of the person can't
    outlive an erasure, and from being moved, as the faces' foreign key has the region. regions: only one who is in any of
    these; looked at without the lock, it might be the region that a move under way is about to change.

    Raises UnknownPersonError.
    """
    region: str | None = tx.exec_driver_sql(
        f"SELECT region FROM persons WHERE client_id = %s AND id = %s FOR {lock}", (client_id, person_id)
    ).scalar()
    if region is None or (regions is not None and region not in regions):
        raise UnknownPersonError(person_id)
    return region
