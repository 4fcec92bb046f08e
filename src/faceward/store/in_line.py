"""What keeps the table of faces beside the live one in line with it, but for the embeddings: region, person, state, photo.

The other table need not follow each move while it does not serve. It may hold faces that the live one has not: of persons
who were left behind at an exchange, of whom the persons' table tells where they are.

The functions work inside a transaction of one tenant, as any role: row-level security is obeyed, and each statement names
the tenant as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from faceward.errors import BusyError
from faceward.store.shadow import LIVE, Shadow

_ONLY_THERE = f"NOT EXISTS (SELECT 1 FROM {LIVE} f WHERE f.client_id = %(client_id)s AND f.id = o.id)"
_SAME_PHOTO = "k.image_sha256 = o.image_sha256 AND k.face_bbox = o.face_bbox"
_ASIDE = "chr(1) || o.id"
"""A region of no person: where a face waits that is not where it belongs, and in another's place."""


def bring_in_line(
    tx: sa.Connection,
    client_id: str,
    shadow: Shadow,
    *,
    carried: Sequence[str],
    since: str | None = None,
    limit: int = 5_000,
) -> int:
    """Give faces of the other table what the live one says of them now, but for the embedding: region, person, photo.

    Returns how many there were, at most `limit`. since: only those that the live table had written by that transaction or
    a later one. They are taken out and put in again, so that two which change places do not collide.
    """
    differs = " OR ".join(
        f"octet_length(f.{name}) IS DISTINCT FROM octet_length(o.{name})"
        if name == "image_data"
        else f"f.{name} IS DISTINCT FROM o.{name}"
        for name in carried
        if name not in ("client_id", "id")
    )
    parameters = {"client_id": client_id, "since": since, "limit": limit}
    tx.exec_driver_sql(
        "CREATE TEMPORARY TABLE IF NOT EXISTS astray (id bigint, model_id text, embedding vector) ON COMMIT DROP"
    )
    tx.exec_driver_sql("TRUNCATE astray")
    found = tx.exec_driver_sql(
        f"INSERT INTO astray SELECT o.id, o.model_id, o.embedding FROM {faces_since(since)} "
        f"CROSS JOIN LATERAL (SELECT * FROM {shadow} s WHERE s.client_id = %(client_id)s AND s.id = f.id OFFSET 0) o "
        f"WHERE f.client_id = %(client_id)s AND ({differs}) ORDER BY o.id LIMIT %(limit)s",
        parameters,
    ).rowcount
    if found:
        ids = list(tx.exec_driver_sql("SELECT id FROM astray").scalars())
        hold(tx, client_id, ids)
        tx.exec_driver_sql(
            f"DELETE FROM {shadow} o USING astray a WHERE o.client_id = %(client_id)s AND o.id = a.id", parameters
        )
        make_room(tx, client_id, shadow, ids)
        mine, theirs = ", ".join(carried), ", ".join(f"f.{name}" for name in carried)
        tx.exec_driver_sql(
            f"INSERT INTO {shadow} ({mine}, model_id, embedding) SELECT {theirs}, a.model_id, a.embedding "
            f"FROM astray a JOIN {LIVE} f ON f.client_id = %(client_id)s AND f.id = a.id",
            parameters,
        )
    return found


def hold(tx: sa.Connection, client_id: str, face_ids: Sequence[int]) -> None:
    """Nobody deletes these live faces, nor moves, merges or deletes their persons, until the transaction ends.

    Before anything else, and in this order, as whoever does such a thing: else each could hold what the other waits for.
    Raises BusyError where they were merged into others while this waited.
    """
    ids = {"client_id": client_id, "ids": list(face_ids)}
    of_them = "f.client_id = %(client_id)s AND f.id = ANY(%(ids)s::bigint[])"
    persons = tx.exec_driver_sql(
        "SELECT p.id FROM persons p WHERE p.client_id = %(client_id)s "
        f"AND p.id IN (SELECT f.person_id FROM {LIVE} f WHERE {of_them}) ORDER BY p.id FOR KEY SHARE",
        ids,
    ).scalars()
    held = set(persons)
    owners = tx.exec_driver_sql(
        f"SELECT f.person_id FROM {LIVE} f WHERE {of_them} ORDER BY f.id FOR KEY SHARE", ids
    ).scalars()
    if not held.issuperset(owners):
        raise BusyError("People were merged into others meanwhile. Nothing was stored; try again.")


def make_room(
    tx: sa.Connection, client_id: str, shadow: Shadow, face_ids: Sequence[int], *, of_absent: bool = False
) -> None:
    """Set aside the faces that only the other table has and that stand in the places of these live ones: of the same photo
    in the same region. `bring_left_behind_in_line` finds them.

    of_absent: only those whose persons are in that region no more.
    """
    absent = (
        "AND NOT EXISTS (SELECT 1 FROM persons p "
        "WHERE p.client_id = %(client_id)s AND p.id = o.person_id AND p.region = o.region) "
    )
    tx.exec_driver_sql(
        f"UPDATE {shadow} o SET region = {_ASIDE} FROM {LIVE} k WHERE k.client_id = %(client_id)s "
        f"AND k.id = ANY(%(ids)s::bigint[]) AND o.client_id = %(client_id)s AND o.region = k.region AND {_SAME_PHOTO} "
        f"AND o.id <> k.id {absent if of_absent else ''}AND {_ONLY_THERE}",
        {"client_id": client_id, "ids": list(face_ids)},
    )


def leaves_behind(tx: sa.Connection, client_id: str, shadow: Shadow) -> bool:
    """Whether the other table has faces that the live one has not. There are no more of them until an exchange."""
    found = tx.exec_driver_sql(
        f"SELECT 1 FROM {shadow} o WHERE o.client_id = %(client_id)s AND {_ONLY_THERE} LIMIT 1",
        {"client_id": client_id},
    )
    return found.first() is not None


def set_left_behind_aside(tx: sa.Connection, client_id: str, shadow: Shadow) -> None:
    """Take faces that only the other table has out of regions where their persons are no more.

    In a transaction of its own, before that of `bring_left_behind_in_line`: two that change places must not collide, and
    PostgreSQL lets a transaction change a row whose face is not live once only.
    """
    tx.exec_driver_sql(
        f"UPDATE {shadow} o SET region = {_ASIDE} FROM persons p WHERE o.client_id = %(client_id)s "
        "AND p.client_id = %(client_id)s AND p.id = o.person_id AND o.region <> p.region "
        f"AND o.region <> {_ASIDE} AND {_ONLY_THERE}",
        {"client_id": client_id},
    )


def bring_left_behind_in_line(tx: sa.Connection, client_id: str, shadow: Shadow) -> int:
    """Give faces that only the other table has the region, state and expiry of their persons; returns how many differed.

    One whose photo the region has by now, of somebody else or of one who was left behind as well, is dropped, as a merge
    drops it. The other faces are in line before. Raises ConstraintViolatedError where one came astray after
    `set_left_behind_aside`, and in another's way.
    """
    parameters = {"client_id": client_id}
    tx.exec_driver_sql(
        "CREATE TEMPORARY TABLE IF NOT EXISTS behind (id bigint PRIMARY KEY, region text, matchable_until timestamptz) "
        "ON COMMIT DROP"
    )
    tx.exec_driver_sql("TRUNCATE behind")
    found = tx.exec_driver_sql(
        f"INSERT INTO behind SELECT o.id, p.region, p.matchable_until FROM {shadow} o JOIN persons p "
        "ON p.client_id = %(client_id)s AND p.id = o.person_id WHERE o.client_id = %(client_id)s "
        f"AND (o.region <> p.region OR o.matchable_until <> p.matchable_until) AND {_ONLY_THERE}",
        parameters,
    ).rowcount
    if found:
        tx.exec_driver_sql(
            f"DELETE FROM {shadow} o USING behind b WHERE o.client_id = %(client_id)s AND o.id = b.id "
            f"AND o.region <> b.region AND (EXISTS (SELECT 1 FROM {shadow} k WHERE k.client_id = %(client_id)s "
            f"AND k.region = b.region AND {_SAME_PHOTO} AND NOT EXISTS ("
            "SELECT 1 FROM behind c WHERE c.id = k.id AND c.region <> k.region)) "
            f"OR EXISTS (SELECT 1 FROM behind c JOIN {shadow} k ON k.client_id = %(client_id)s AND k.id = c.id "
            f"WHERE c.region = b.region AND c.id < b.id AND {_SAME_PHOTO}))",
            parameters,
        )
        tx.exec_driver_sql(
            f"UPDATE {shadow} o SET region = b.region, matchable_until = b.matchable_until, "
            "row_version = pg_current_xact_id() FROM behind b WHERE o.client_id = %(client_id)s AND o.id = b.id",
            parameters,
        )
    return found


def faces_since(since: str | None) -> str:
    """The tenant's live faces as `f`: all, or those of the index ranges that were written by %(since)s or later."""
    if since is None:
        return f"{LIVE} f"
    return (
        f"regions g CROSS JOIN LATERAL (SELECT * FROM {LIVE} s WHERE s.client_id = g.client_id AND s.region = g.name "
        "AND g.client_id = %(client_id)s AND s.row_version >= %(since)s::text::xid8 OFFSET 0) f"
    )
