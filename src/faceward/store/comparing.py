"""Stored faces as probes against their region without themselves, in the live table of faces or in the one beside it.

Only faces that searches may find take part, as probes and as neighbours: what is suspended or has expired decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from faceward.store.database import Database
from faceward.store.person_states import MATCHABLE
from faceward.store.shadow import LIVE, Shadow


@dataclass(frozen=True, slots=True)
class Near:
    """genuine: similarity of the nearest other face of the person. impostor: of the nearest of anybody else, `other`."""

    genuine: float | None
    other: int | None
    impostor: float | None


def count_made(database: Database, client_id: str, shadow: Shadow) -> int:
    """A tenant's faces in the table beside the live one."""
    with database.transaction(client_id) as tx:
        tx.exec_driver_sql("SET LOCAL statement_timeout = 0")
        count: int = tx.exec_driver_sql(
            f"SELECT count(*) FROM {shadow} WHERE client_id = %s", (client_id,)
        ).scalar_one()
        return count


def choose_faces(
    tx: sa.Connection, client_id: str, shadow: Shadow, stride: int, before: int
) -> list[tuple[str, int, int]]:
    """(region, face, person) of every so many faces that both tables have. before: faces of the tenants before, from which the
    count goes on.
    """
    tx.exec_driver_sql("SET LOCAL statement_timeout = 0")
    rows = tx.exec_driver_sql(
        # By their places: the ids of tenants who enroll in turn are not spread evenly.
        "SELECT f.region, f.id, f.person_id "
        f"FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM {shadow} WHERE client_id = %(client_id)s) o "
        f"JOIN {LIVE} f ON f.client_id = %(client_id)s AND f.id = o.id "
        f"WHERE mod(o.place + %(before)s, %(stride)s) = 0 AND {MATCHABLE} ORDER BY 1, 2",
        {"client_id": client_id, "stride": stride, "before": before},
    )
    return [(row.region, row.id, row.person_id) for row in rows]


def region_sizes(tx: sa.Connection, client_id: str) -> dict[str, int]:
    """The faces of each region that has any."""
    rows = tx.exec_driver_sql(
        f"SELECT f.region, count(*) AS faces FROM {LIVE} f WHERE f.client_id = %s AND {MATCHABLE} GROUP BY 1",
        (client_id,),
    )
    return {row.region: row.faces for row in rows}


# "+ 0" and OFFSET 0: as in `store.search`. hidden: as the live table says it, since the other one hears of a suspension only
# when it is to serve; of who was left behind the person says it.
_NEAREST = f"""
WITH hidden AS MATERIALIZED (
    SELECT f.id FROM {LIVE} f WHERE f.client_id = %(client_id)s AND NOT {MATCHABLE} AND f.region IN (
        SELECT s.region FROM {{table}} s WHERE s.client_id = %(client_id)s AND s.id = ANY(%(ids)s::bigint[]))
)
SELECT p.id, g.similarity AS genuine, i.person_id AS other, i.similarity AS impostor
FROM unnest(%(ids)s::bigint[]) AS wanted (id)
CROSS JOIN LATERAL (
    SELECT s.id, s.person_id, s.region, s.embedding, s.code FROM {{table}} s
    WHERE s.client_id = %(client_id)s AND s.id = wanted.id OFFSET 0
) p
CROSS JOIN LATERAL (
    SELECT max(1 - (s.embedding <=> p.embedding)) AS similarity FROM {{table}} s
    WHERE s.client_id = %(client_id)s AND s.person_id = p.person_id AND s.id <> p.id
) g
LEFT JOIN LATERAL (
    SELECT n.person_id, 1 - ((n.embedding <=> p.embedding) + 0) AS similarity
    FROM (
        SELECT s.id FROM {{table}} s WHERE s.client_id = %(client_id)s AND s.region = p.region
        AND s.id NOT IN (SELECT id FROM hidden) ORDER BY s.code <~> p.code LIMIT %(limit)s
    ) c CROSS JOIN LATERAL (
        SELECT s.person_id, s.embedding FROM {{table}} s WHERE s.client_id = %(client_id)s AND s.id = c.id OFFSET 0
    ) n
    CROSS JOIN LATERAL (
        SELECT s.matchable_until FROM persons s WHERE s.client_id = %(client_id)s AND s.id = n.person_id OFFSET 0
    ) f
    WHERE n.person_id <> p.person_id AND {MATCHABLE} ORDER BY (n.embedding <=> p.embedding) + 0 LIMIT 1
) i ON true
"""


def nearest(tx: sa.Connection, client_id: str, table: str, ids: Sequence[int], limit: int) -> dict[int, Near]:
    """What is nearest to each of the faces in its region, by the embeddings of a table. limit: faces compared in full."""
    tx.exec_driver_sql("SET LOCAL statement_timeout = 0")
    tx.exec_driver_sql("SET LOCAL work_mem = '64MB'")  # else PostgreSQL may look through a long `hidden` for each face
    rows = tx.exec_driver_sql(_NEAREST.format(table=table), {"client_id": client_id, "ids": list(ids), "limit": limit})
    return {row.id: Near(row.genuine, row.other, row.impostor) for row in rows}
