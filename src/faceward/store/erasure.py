"""Erases a person: every row that holds, names or counts the person, in one transaction, and looks afterwards.

What remains says that something happened, and to nobody: an entry of the audit log keeps its time, actor and action, a
decision its time and outcome, a refusal of an import its code. The erasure's own entry bears the id of the receipt.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa

from faceward.errors import PersonMergedError, UnknownPersonError
from faceward.store.audit_log import record
from faceward.store.carried_over import HELD_UNTIL
from faceward.store.database import Database
from faceward.store.decision_log import hold_decisions
from faceward.store.former_names import Identity, identity_of, merged_into
from faceward.store.reports import Survey, blank, count_named, survey
from faceward.store.request_tokens import (
    ERASE,
    OF_PERSONS,
    claim,
    complete,
    count_near,
    erase_person,
    forget_gone_faces,
    recorded,
    stored_deleted,
)
from faceward.store.shadow import LIVE, ONLY_BESIDE, beside_live
from faceward.types import FINISHED, RequestToken

_FACES = """
WITH gone AS (
    DELETE FROM {table} f WHERE f.client_id = %(client_id)s AND f.person_id = %(person_id)s AND {which}
    RETURNING id, image_data IS NOT NULL AS photo
)
SELECT coalesce(array_agg(id ORDER BY id), '{{}}'), count(*) FILTER (WHERE photo) FROM gone
"""
_UPLOADS = """
DELETE FROM job_chunks c USING jobs j WHERE c.client_id = %(client_id)s AND j.client_id = %(client_id)s AND j.id = c.job_id
AND j.state = ANY(%(finished)s)
"""
_FORGET = """
SELECT coalesce(sum(audit_entries), 0)::bigint, coalesce(sum(named_in), 0)::bigint
FROM unnest(%(numbers)s::bigint[]) AS number, faceward_forget_person(number)
"""
PERSON_COLUMNS = """
SELECT table_name::text, column_name::text FROM information_schema.columns
WHERE table_schema = current_schema() AND column_name IN ('person_id', 'other_person_id', 'person_number') ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Removed:
    """How many there were. photos: of the faces, stored ones. request_tokens: of requests that stored the person.

    refusals: of imports, which named the person, and errors of imports. audit_entries, decisions: which lost the person.
    """

    persons: int
    faces: int
    photos: int
    request_tokens: int
    refusals: int
    audit_entries: int
    decisions: int


@dataclass(frozen=True, slots=True)
class Erased:
    """One erasure. faces: ids of the faces that were. imports_under_way, jobs_under_way: how many imports of the client
    waited or ran at that moment, and their ids; their uploads were not looked into, and may bring the person again.
    """

    receipt_id: str
    client_id: str
    at: dt.datetime
    removed: Removed
    imports_under_way: int
    jobs_under_way: tuple[int, ...] = ()
    faces: tuple[int, ...] = ()
    _identity: Identity | None = field(default=None, repr=False)

    @classmethod
    def _recorded(cls, client_id: str, detail: Mapping[str, Any]) -> Erased:
        return cls(
            detail["receipt"],
            client_id,
            dt.datetime.fromisoformat(detail["at"]),
            Removed(**detail["removed"]),
            detail["imports_under_way"],
            tuple(detail.get("jobs_under_way", ())),  # an older faceward recorded none
        )


class Eraser:
    """Erases persons of any tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def expired(self, client_id: str, *, after: int = 0, limit: int = 100) -> list[int]:
        """Persons whose time is over, by ascending id."""
        with self._database.transaction(client_id) as tx:
            rows = tx.exec_driver_sql(
                "SELECT id FROM persons WHERE client_id = %s AND expires_at <= now() AND id > %s ORDER BY id LIMIT %s",
                (client_id, after, limit),
            )
            return list(rows.scalars())

    def held_until(self) -> dt.datetime | None:
        """Until when nobody is purged, as the database was restored."""
        with self._database.unscoped() as tx:
            return _held(tx)

    def count_expired(self, client_id: str) -> int:
        with self._database.transaction(client_id) as tx:
            count: int = tx.exec_driver_sql(
                "SELECT count(*) FROM persons WHERE client_id = %s AND expires_at <= now()", (client_id,)
            ).scalar_one()
            return count

    def survey(self, client_id: str, person_ids: Sequence[int]) -> Survey:
        """Where reports of imports name these persons: the long part of their erasures, and nobody waits for it."""
        with self._database.transaction(client_id) as tx:
            identities = [identity_of(tx, client_id, person_id) for person_id in person_ids]
        return survey(self._database, client_id, list(dict.fromkeys(identities)))

    def erase(
        self,
        client_id: str,
        person_id: int,
        request: RequestToken | None = None,
        *,
        regions: Sequence[str] | None = None,
    ) -> Erased:
        """Erase a person, or what is left of one who was deleted. request: where it came before, its answer again.
        regions: only one who is enrolled in any of these.

        Raises UnknownPersonError where there is no trace of such a person, PersonMergedError where the person became another,
        RequestReusedError.
        """
        with self._database.transaction(client_id) as tx:
            if request is not None and (before := recorded(tx, client_id, request, ERASE)):
                return Erased._recorded(client_id, before.detail)
            region = tx.exec_driver_sql(
                "SELECT region FROM persons WHERE client_id = %s AND id = %s", (client_id, person_id)
            ).scalar()
            _check(tx, client_id, person_id, region, regions)
            if region is None and not _is_traced(tx, client_id, person_id):
                raise UnknownPersonError(person_id)
        surveyed = self.survey(client_id, [person_id])
        with self._database.transaction(client_id) as tx:
            if request is not None and (before := claim(tx, client_id, request, ERASE)):
                return Erased._recorded(client_id, before.detail)
            erased = self._erase(tx, client_id, person_id, surveyed, regions)
            if request is not None:
                detail = {
                    "receipt": erased.receipt_id,
                    "at": erased.at.isoformat(),
                    "removed": asdict(erased.removed),
                    "imports_under_way": erased.imports_under_way,
                    "jobs_under_way": list(erased.jobs_under_way),
                }
                complete(tx, client_id, request, None, detail)
            return erased

    def erase_expired(self, client_id: str, person_id: int, surveyed: Survey, *, after_restore: bool = False) -> Erased:
        """Erase a person whose time is over. surveyed: of this person and maybe others. after_restore: while purges are held
        too.

        Raises UnknownPersonError where the time was extended meanwhile, somebody else erased the person, or a backup was
        restored.
        """
        with self._database.transaction(client_id) as tx:
            if not _is_expired(tx, client_id, person_id) or not (after_restore or _held(tx) is None):
                raise UnknownPersonError(person_id)
            return self._erase(tx, client_id, person_id, surveyed)

    def _erase(
        self,
        tx: sa.Connection,
        client_id: str,
        person_id: int,
        surveyed: Survey,
        regions: Sequence[str] | None = None,
    ) -> Erased:
        of = {"client_id": client_id, "person_id": person_id}
        # What is being stored of the person ends first, or finds nobody.
        hold_decisions(tx, client_id)
        region = tx.exec_driver_sql(
            "SELECT region FROM persons WHERE client_id = %(client_id)s AND id = %(person_id)s FOR UPDATE",
            of,
        ).scalar()
        _check(tx, client_id, person_id, region, regions)
        identity = identity_of(tx, client_id, person_id)
        faces, photos = self._erase_faces(tx, of)
        persons = tx.exec_driver_sql(
            "DELETE FROM persons WHERE client_id = %(client_id)s AND id = %(person_id)s", of
        ).rowcount
        tokens = erase_person(tx, client_id, identity.numbers, deleted=not persons)
        forget_gone_faces(tx, client_id)
        entries, decisions = tx.exec_driver_sql(_FORGET, {"numbers": list(identity.numbers)}).one()
        refusals = blank(tx, client_id, identity, surveyed)
        removed = Removed(persons, len(faces), photos, tokens, refusals, entries, decisions)
        if not (persons or faces or tokens or entries or decisions):
            raise UnknownPersonError(person_id)
        tx.exec_driver_sql(_UPLOADS, {"client_id": client_id, "finished": list(FINISHED)})
        # Other processes see by it that codes of somebody who was erased are in their memory.
        tx.exec_driver_sql("UPDATE clients SET erasures = erasures + 1 WHERE client_id = %s", (client_id,))
        at, under_way = tx.exec_driver_sql(
            "SELECT now(), ARRAY(SELECT id FROM jobs WHERE client_id = %s AND state <> ALL(%s) ORDER BY id)",
            (client_id, list(FINISHED)),
        ).one()
        receipt_id = str(uuid.uuid4())
        record(tx, client_id, "person.erase", receipt=receipt_id, removed=asdict(removed))
        jobs = tuple(under_way)
        return Erased(receipt_id, client_id, at, removed, len(jobs), jobs, tuple(faces), identity)

    def _erase_faces(self, tx: sa.Connection, of: Mapping[str, Any]) -> tuple[list[int], int]:
        """Returns their ids, and how many had a photo; with those that a change of the model left behind."""
        faces, photos = list[int](), 0
        for table in (*beside_live(tx), LIVE):  # where the live face goes, its other embedding goes with it
            which = "true" if table == LIVE else ONLY_BESIDE
            ids, with_photo = tx.exec_driver_sql(_FACES.format(table=table, which=which), of).one()
            faces, photos = faces + ids, photos + with_photo
        return faces, photos

    def left(self, erased: Erased, person_id: int) -> dict[str, int]:
        """Rows that still name the person, or who was merged into the person, by table and column: empty where the erasure was
        complete.

        Looked for in every table that has a column of persons, also such as came after this code was written.
        """
        client_id, identity = erased.client_id, erased._identity
        numbers = [person_id] if identity is None else list(identity.numbers)
        with self._database.transaction(client_id) as tx:
            counts = _rows_of(tx, client_id, numbers)
            counts["face_encodings.id"] = tx.exec_driver_sql(
                "SELECT count(*) FROM face_encodings WHERE client_id = %s AND id = ANY(%s)",
                (client_id, list(erased.faces)),
            ).scalar_one()
            counts["request_tokens.detail"] = count_near(tx, client_id, erased.faces)
        if identity is not None:
            counts |= count_named(self._database, client_id, identity)
        return {where: count for where, count in counts.items() if count}


def _check(
    tx: sa.Connection, client_id: str, person_id: int, region: str | None, regions: Sequence[str] | None
) -> None:
    """region: the person's own; None: who is not enrolled. Raises UnknownPersonError, PersonMergedError."""
    if regions is not None and region not in regions:
        raise UnknownPersonError(person_id)
    if region is None and (into := merged_into(tx, client_id, person_id)) is not None:
        raise PersonMergedError(person_id, into)


def _is_traced(tx: sa.Connection, client_id: str, person_id: int) -> bool:
    """Whether there may be anything of somebody who is not enrolled."""
    numbers = identity_of(tx, client_id, person_id).numbers
    return any(_rows_of(tx, client_id, numbers).values()) or stored_deleted(tx, client_id, numbers)


def _rows_of(tx: sa.Connection, client_id: str, numbers: Sequence[int]) -> dict[str, int]:
    """Rows that have any of these numbers, by table and column of persons."""
    counts: dict[str, int] = {}
    for table, column in [("persons", "id"), *map(tuple, tx.exec_driver_sql(PERSON_COLUMNS).all())]:
        quoted = [tx.dialect.identifier_preparer.quote_identifier(name) for name in (table, column)]
        counts[f"{table}.{column}"] = tx.exec_driver_sql(
            "SELECT count(*) FROM {} WHERE client_id = %s AND {} = ANY(%s)".format(*quoted), (client_id, list(numbers))
        ).scalar_one()
    counts["request_tokens.resource_id"] = tx.exec_driver_sql(
        "SELECT count(*) FROM request_tokens WHERE client_id = %s AND resource_id = ANY(%s) AND operation = ANY(%s)",
        (client_id, list(numbers), list(OF_PERSONS)),
    ).scalar_one()
    return counts


def _held(tx: sa.Connection) -> dt.datetime | None:
    until: dt.datetime | None = tx.exec_driver_sql(HELD_UNTIL).scalar()
    return until


def _is_expired(tx: sa.Connection, client_id: str, person_id: int) -> bool:
    """Holds the person, so that nobody extends the time from here on."""
    hold_decisions(tx, client_id)  # first, as every erasure does
    found = tx.exec_driver_sql(
        "SELECT 1 FROM persons WHERE client_id = %s AND id = %s AND expires_at <= now() FOR UPDATE",
        (client_id, person_id),
    ).first()
    return found is not None
