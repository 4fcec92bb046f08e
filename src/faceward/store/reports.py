"""Reports of imports, their refusals and errors, as far as they name a person.

A client may have millions of refusals, and whether one names a person is settled in Python: so they are looked through before
an erasure takes its locks, and inside its transaction only what came since.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from faceward.store.database import Database
from faceward.store.former_names import Identity
from faceward.store.naming import Naming, folded
from faceward.types import FINISHED

_GONE = "erased"
_AT_ONCE = 5_000
_LAST = (2**63 - 1, 2**63 - 1)
_LONGEST_PATTERN = 1_000
"""Characters. With longer ones, as of thirty persons, PostgreSQL takes longer than Python does for all rows."""

_PAGE_END = """
SELECT job_id, position FROM job_refusals
WHERE client_id = %(client_id)s AND (job_id, position) > (%(job_id)s, %(position)s)
{of_jobs}
ORDER BY job_id, position OFFSET %(most)s - 1 LIMIT 1
"""
# What is not printable ASCII is for Python to judge. "C": whatever the database's locale makes of letters.
_LIKELY = """
SELECT job_id, position, item, reason FROM job_refusals
WHERE client_id = %(client_id)s AND (job_id, position) > (%(job_id)s, %(position)s)
AND (job_id, position) <= (%(last_job)s, %(last_position)s)
{of_jobs} AND (item, reason) <> (%(gone)s, %(gone)s)
AND lower((item || chr(10) || reason) COLLATE "C") ~ %(likely)s ORDER BY job_id, position
"""
_BLANK_REFUSALS = """
UPDATE job_refusals r SET item = %(gone)s, reason = %(gone)s
FROM unnest(%(jobs)s::bigint[], %(positions)s::bigint[]) AS named (job_id, position)
WHERE r.client_id = %(client_id)s AND r.job_id = named.job_id AND r.position = named.position
AND (r.item, r.reason) <> (%(gone)s, %(gone)s)
"""
_TELL_REFUSALS = """
SELECT to_jsonb(r) FROM job_refusals r, unnest(%(jobs)s::bigint[], %(positions)s::bigint[]) AS named (job_id, position)
WHERE r.client_id = %(client_id)s AND r.job_id = named.job_id AND r.position = named.position ORDER BY r.job_id, r.position
"""
_ERRORS = """
SELECT id, error_message FROM jobs WHERE client_id = %(client_id)s AND error_message <> %(gone)s
{of_jobs} ORDER BY id
"""
_BLANK_ERRORS = """
UPDATE jobs SET error_message = %(gone)s WHERE client_id = %(client_id)s AND id = ANY(%(jobs)s) AND error_message <> %(gone)s
"""


@dataclass(slots=True)
class _Mentions:
    """Where a person is named. refusals: their job and position. errors: of which jobs."""

    refusals: list[tuple[int, int]] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Survey:
    """What reports said of some persons. settled: jobs that were over before, and report no more."""

    settled: tuple[int, ...]
    mentions: Mapping[Identity, _Mentions]


def survey(database: Database, client_id: str, identities: Sequence[Identity]) -> Survey:
    """Look through all reports of a client, a page in a transaction of its own. Raises StoreError."""
    with database.transaction(client_id) as tx:
        settled = tuple(
            tx.exec_driver_sql(
                "SELECT id FROM jobs WHERE client_id = %s AND state = ANY(%s)", (client_id, list(FINISHED))
            ).scalars()
        )
    search = _Search(client_id, [Naming(identity) for identity in identities])
    found = [_Mentions() for _ in identities]
    after: tuple[int, int] | None = (0, -1)
    while after is not None:
        with database.transaction(client_id) as tx:
            page, after = search.page(tx, after)
        for mentions, named in zip(found, page, strict=True):
            mentions.refusals += named
    with database.transaction(client_id) as tx:
        for mentions, jobs in zip(found, search.errors(tx), strict=True):
            mentions.errors += jobs
    return Survey(settled, dict(zip(identities, found, strict=True)))


def blank(tx: sa.Connection, client_id: str, identity: Identity, surveyed: Survey) -> int:
    """Replace what names the person, also what came since the survey; returns how many refusals and errors did.

    Where the survey was of another identity, as before a change of the name, all is looked through here.
    """
    known = surveyed.mentions.get(identity)
    since = None
    if known is not None:
        since = list(
            tx.exec_driver_sql(
                "SELECT id FROM jobs WHERE client_id = %s AND id <> ALL(%s)", (client_id, list(surveyed.settled))
            ).scalars()
        )
    search = _Search(client_id, [Naming(identity)], since)
    refusals, errors = set(known.refusals if known else ()), set(known.errors if known else ())
    for (named,) in search.pages(tx):
        refusals.update(named)
    errors.update(*search.errors(tx))
    of: Any = {"client_id": client_id, "gone": _GONE}
    blanked: int = tx.exec_driver_sql(_BLANK_REFUSALS, of | _keys(sorted(refusals))).rowcount
    blanked += tx.exec_driver_sql(_BLANK_ERRORS, of | {"jobs": sorted(errors)}).rowcount
    return blanked


def tell(
    tx: sa.Connection, client_id: str, identity: Identity, regions: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The refusals that name the person and no namesake, as they stand. regions: only of imports that could write to none
    but these, which are the ones that a key of these regions sees.
    """
    jobs = None
    if regions is not None:
        within = "SELECT id FROM jobs WHERE client_id = %s AND region_limit <@ %s::varchar[]"
        jobs = list(tx.exec_driver_sql(within, (client_id, list(regions))).scalars())
    naming = Naming(identity)
    for (named,) in _Search(client_id, [naming], jobs, in_item=[naming.in_own_item]).pages(tx):
        yield from tx.exec_driver_sql(_TELL_REFUSALS, {"client_id": client_id, **_keys(named)}).scalars()


def count_named(database: Database, client_id: str, identity: Identity) -> dict[str, int]:
    """What still names the person, by table and column. Raises as `survey` does."""
    (mentions,) = survey(database, client_id, [identity]).mentions.values()
    return {"job_refusals.item": len(mentions.refusals), "jobs.error_message": len(mentions.errors)}


class _Search:
    """For those whom any of several namings names. jobs: to look through; None is all of the client. in_item: whether an
    item names each of them, where it is not `Naming.in_item` that tells.
    """

    def __init__(
        self,
        client_id: str,
        namings: Sequence[Naming],
        jobs: Sequence[int] | None = None,
        in_item: Sequence[Callable[[str], bool]] | None = None,
    ) -> None:
        clues = [sorted(naming.clues) for naming in namings]
        # Most reasons are the same few.
        self._folded = lru_cache(1000)(folded)
        self._namings = [
            (re.compile("|".join(each)), names, lru_cache(1000)(naming.in_sentence))
            for each, naming, names in zip(
                clues, namings, in_item or [naming.in_item for naming in namings], strict=True
            )
        ]
        # What is not ASCII names nobody in a text that is.
        likely = "|".join(["[^\n -~]", *dict.fromkeys(clue for each in clues for clue in each if clue.isascii())])
        of_jobs = "" if jobs is None else "AND {} = ANY(%(jobs)s::bigint[])"
        self._page_end, self._likely = (each.format(of_jobs=of_jobs.format("job_id")) for each in (_PAGE_END, _LIKELY))
        self._errors = _ERRORS.format(of_jobs=of_jobs.format("id"))
        self._given: Any = {
            "client_id": client_id,
            "jobs": list(jobs or ()),
            "gone": _GONE,
            "most": _AT_ONCE,
            "likely": likely if len(likely) <= _LONGEST_PATTERN else "",
        }

    def pages(self, tx: sa.Connection) -> Iterator[list[list[tuple[int, int]]]]:
        """All pages, as `page` has them."""
        after: tuple[int, int] | None = (0, -1)
        while after is not None:
            page, after = self.page(tx, after)
            yield page

    def page(
        self, tx: sa.Connection, after: tuple[int, int]
    ) -> tuple[list[list[tuple[int, int]]], tuple[int, int] | None]:
        """Refusals behind `after` (job, position): those that name each of the namings, and the next `after`."""
        given = self._given | {"job_id": after[0], "position": after[1]}
        end = tx.exec_driver_sql(self._page_end, given).first()
        last_job, last_position = end or _LAST
        named: list[list[tuple[int, int]]] = [[] for _ in self._namings]
        for row in tx.exec_driver_sql(self._likely, given | {"last_job": last_job, "last_position": last_position}):
            text = f"{folded(row.item)}\n{self._folded(row.reason)}"
            for found, (clue, in_item, in_sentence) in zip(named, self._namings, strict=True):
                if clue.search(text) and (in_item(row.item) or in_sentence(row.reason)):
                    found.append((row.job_id, row.position))
        return named, None if end is None else (last_job, last_position)

    def errors(self, tx: sa.Connection) -> list[list[int]]:
        """Jobs whose error names each of the namings."""
        rows = tx.exec_driver_sql(self._errors, self._given).all()
        return [[job_id for job_id, message in rows if said(message)] for _, _, said in self._namings]


def _keys(refusals: Sequence[tuple[int, int]]) -> dict[str, list[int]]:
    return {"jobs": [job for job, _ in refusals], "positions": [position for _, position in refusals]}
