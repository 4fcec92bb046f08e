"""Where reports of imports, their refusals and errors, name a person: by number, name or external id."""

from __future__ import annotations

import re

import sqlalchemy as sa

from faceward.store.former_names import Identity

_GONE = "erased"

_REFUSALS = "client_id = %(client_id)s AND (item ~* %(named)s OR reason ~* %(named)s)"
_ERRORS = "client_id = %(client_id)s AND error_message ~* %(named)s"


def naming(identity: Identity) -> str:
    """A pattern of PostgreSQL's: where a report names a person by anything that the person is or was called."""
    words = [f"person {each}" for each in identity.numbers] + [_literal(name) for name in identity.names]
    patterns = [rf"(?<![[:alnum:]])(?:{'|'.join(words)})(?![[:alnum:]])"]
    if identity.external_ids:  # often short: as a part of a path, or quoted
        patterns.append(rf"(?<![^/'\"])(?:{'|'.join(map(_literal, identity.external_ids))})(?![^/'\"])")
    return "|".join(patterns)


def _literal(text: str) -> str:
    """As a part of a pattern, each sign standing for itself."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)


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
