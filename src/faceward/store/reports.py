"""Where reports of imports, their refusals and errors, name a person: by number, name or external id."""

from __future__ import annotations

import re
from collections.abc import Sequence

import sqlalchemy as sa

_GONE = "erased"

_REFUSALS = "client_id = %(client_id)s AND (item ~* %(named)s OR reason ~* %(named)s)"
_ERRORS = "client_id = %(client_id)s AND error_message ~* %(named)s"
_NAMED = f"SELECT EXISTS (SELECT 1 FROM job_refusals WHERE {_REFUSALS}) OR EXISTS (SELECT 1 FROM jobs WHERE {_ERRORS})"
_BORNE = """
SELECT EXISTS (SELECT 1 FROM persons WHERE client_id = %(client_id)s AND lower(name) = lower(%(name)s)),
       EXISTS (SELECT 1 FROM persons WHERE client_id = %(client_id)s AND lower(external_id) = lower(%(external_id)s))
"""


def naming(people: Sequence[int], name: str | None = None, external_id: str | None = None) -> str:
    """A pattern of PostgreSQL's: where a report names a person. people: the person's numbers."""
    words = [f"person {each}" for each in people] + ([] if name is None else [_literal(name)])
    patterns = [rf"(?<![[:alnum:]])(?:{'|'.join(words)})(?![[:alnum:]])"] if words else []
    if external_id is not None:  # often short: as a part of a path, or quoted
        patterns.append(rf"(?<![^/'\"]){_literal(external_id)}(?![^/'\"])")
    return "|".join(patterns)


def _literal(text: str) -> str:
    """As a part of a pattern, each sign standing for itself."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)


def call_by_number(
    tx: sa.Connection, client_id: str, person_id: int, name: str | None, external_id: str | None
) -> None:
    """A person's record is gone into another one: where reports have the name or the external id, put `person NUMBER`, by
    which an erasure of the other finds them. What somebody else is called still stays: it is found by that one's.
    """
    of = {"client_id": client_id, "name": name, "external_id": external_id}
    if not tx.exec_driver_sql(_NAMED, {**of, "named": naming((), name, external_id)}).scalar_one():
        return
    same_name, same_id = tx.exec_driver_sql(_BORNE, of).one()
    named = naming((), None if same_name else name, None if same_id else external_id)
    if not named:
        return
    given = {**of, "named": named, "number": f"person {person_id}"}
    tx.exec_driver_sql(
        "UPDATE job_refusals SET item = regexp_replace(item, %(named)s, %(number)s, 'gi'), "
        f"reason = regexp_replace(reason, %(named)s, %(number)s, 'gi') WHERE {_REFUSALS}",
        given,
    )
    tx.exec_driver_sql(
        f"UPDATE jobs SET error_message = regexp_replace(error_message, %(named)s, %(number)s, 'gi') WHERE {_ERRORS}",
        given,
    )


def blank(tx: sa.Connection, client_id: str, named: str) -> int:
    """Replace what names the person; returns how many refusals and errors did. named: as `naming` makes it."""
    given = {"client_id": client_id, "named": named, "gone": _GONE}
    refusals: int = tx.exec_driver_sql(
        f"UPDATE job_refusals SET item = %(gone)s, reason = %(gone)s WHERE {_REFUSALS}", given
    ).rowcount
    errors: int = tx.exec_driver_sql(f"UPDATE jobs SET error_message = %(gone)s WHERE {_ERRORS}", given).rowcount
    return refusals + errors


def count_named(tx: sa.Connection, client_id: str, named: str) -> dict[str, int]:
    """What still names the person, by table and column."""
    given = {"client_id": client_id, "named": named}
    return {
        "job_refusals.item": tx.exec_driver_sql(
            f"SELECT count(*) FROM job_refusals WHERE {_REFUSALS}", given
        ).scalar_one(),
        "jobs.error_message": tx.exec_driver_sql(f"SELECT count(*) FROM jobs WHERE {_ERRORS}", given).scalar_one(),
    }
