"""Reports of imports, their refusals and errors, as far as they name a person."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from faceward.store.naming import Naming

_GONE = "erased"
_AT_ONCE = 5_000

_REFUSALS = """
SELECT job_id, position, item, reason FROM job_refusals
WHERE client_id = %(client_id)s AND (job_id, position) > (%(job_id)s, %(position)s) AND (item, reason) <> (%(gone)s, %(gone)s)
ORDER BY job_id, position LIMIT %(most)s
"""
_BLANK_REFUSALS = """
UPDATE job_refusals r SET item = %(gone)s, reason = %(gone)s
FROM unnest(%(jobs)s::bigint[], %(positions)s::bigint[]) AS named (job_id, position)
WHERE r.client_id = %(client_id)s AND r.job_id = named.job_id AND r.position = named.position
"""
_TELL_REFUSALS = """
SELECT to_jsonb(r) FROM job_refusals r, unnest(%(jobs)s::bigint[], %(positions)s::bigint[]) AS named (job_id, position)
WHERE r.client_id = %(client_id)s AND r.job_id = named.job_id AND r.position = named.position ORDER BY r.job_id, r.position
"""
_ERRORS = "SELECT id, error_message FROM jobs WHERE client_id = %s AND error_message <> %s ORDER BY id"
_BLANK_ERRORS = "UPDATE jobs SET error_message = %s WHERE client_id = %s AND id = ANY(%s)"


def blank(tx: sa.Connection, client_id: str, naming: Naming) -> int:
    """Replace what names the person; returns how many refusals and errors did."""
    blanked = 0
    for named in _refusals(tx, client_id, naming):
        blanked += tx.exec_driver_sql(_BLANK_REFUSALS, {**named, "client_id": client_id, "gone": _GONE}).rowcount
    errors: int = tx.exec_driver_sql(_BLANK_ERRORS, (_GONE, client_id, _errors(tx, client_id, naming))).rowcount
    return blanked + errors


def tell(tx: sa.Connection, client_id: str, naming: Naming) -> Iterator[dict[str, Any]]:
    """The refusals that name the person, as they stand."""
    for named in _refusals(tx, client_id, naming):
        yield from tx.exec_driver_sql(_TELL_REFUSALS, {**named, "client_id": client_id}).scalars()


def count_named(tx: sa.Connection, client_id: str, naming: Naming) -> dict[str, int]:
    """What still names the person, by table and column."""
    return {
        "job_refusals.item": sum(len(named["jobs"]) for named in _refusals(tx, client_id, naming)),
        "jobs.error_message": len(_errors(tx, client_id, naming)),
    }


def _refusals(tx: sa.Connection, client_id: str, naming: Naming) -> Iterator[dict[str, list[int]]]:
    """The jobs and positions of those that name the person, a page of the client's refusals at a time."""
    in_sentence = lru_cache(1000)(naming.in_sentence)  # most reasons are the same few
    given = {"client_id": client_id, "job_id": 0, "position": -1, "gone": _GONE, "most": _AT_ONCE}
    while rows := tx.exec_driver_sql(_REFUSALS, given).all():
        given |= {"job_id": rows[-1].job_id, "position": rows[-1].position}
        named = [row for row in rows if naming.in_item(row.item) or in_sentence(row.reason)]
        if named:
            yield {"jobs": [row.job_id for row in named], "positions": [row.position for row in named]}
        if len(rows) < _AT_ONCE:
            return


def _errors(tx: sa.Connection, client_id: str, naming: Naming) -> list[int]:
    rows = tx.exec_driver_sql(_ERRORS, (client_id, _GONE))
    return [job_id for job_id, message in rows if naming.in_sentence(message)]
