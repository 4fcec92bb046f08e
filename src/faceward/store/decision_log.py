"""Decisions: who was recognised, found or verified as whom, how surely, by which threshold. Never an image or an embedding."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import sqlalchemy as sa
from psycopg.types.json import Jsonb

from faceward.store.database import Database
from faceward.store.newest import newest

DecisionKind: TypeAlias = Literal["recognize", "search", "verify"]
Outcome: TypeAlias = Literal["match", "ambiguous", "unknown", "verified", "rejected"]
"""The first three of a recognition, of them `match` and `unknown` of a search; the others of a verification."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True, slots=True)
class Compared:
    """A person whom a face was compared with, and the nearest of the person's faces. similarity: cosine, -1..1."""

    person_id: int
    face_id: int
    similarity: float


@dataclass(frozen=True, slots=True)
class NewDecision:
    """A decision about one face, to be kept. threshold_source: as of a Threshold. candidates: the nearest, best first."""

    client_id: str
    at: dt.datetime
    actor: str
    kind: DecisionKind
    regions: tuple[str, ...]
    threshold: float
    threshold_source: str
    decision: Outcome
    candidates: tuple[Compared, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """As NewDecision. candidates: without those who were erased since."""

    id: int
    at: dt.datetime
    actor: str
    kind: str
    regions: tuple[str, ...]
    threshold: float
    threshold_source: str
    decision: str
    candidates: tuple[Compared, ...]

    @classmethod
    def from_row(cls, row: Mapping[Any, Any], candidates: Sequence[Compared]) -> StoredDecision:
        values = {name: row[name] for name in cls.__dataclass_fields__ if name != "candidates"}
        return cls(**{**values, "regions": tuple(row["regions"])}, candidates=tuple(candidates))


@dataclass(frozen=True, slots=True)
class DecisionPage:
    """The newest first. next_before: the `before` of the next page, or None at the end."""

    decisions: tuple[StoredDecision, ...]
    next_before: int | None


_LOCK = 0x64656369  # "deci"
NO_ERASURE = "SELECT pg_advisory_xact_lock_shared(%s, hashtext(%s))"
NO_DECISION = "SELECT pg_advisory_xact_lock(%s, hashtext(%s))"

_INSERT = """
INSERT INTO decisions (client_id, id, at, actor, kind, regions, threshold, threshold_source, decision)
SELECT %(client_id)s::varchar, d.* FROM jsonb_to_recordset(%(decisions)s) AS d (
    id bigint, at timestamptz, actor text, kind text, regions text[], threshold real, threshold_source text, decision text)
"""
_INSERT_CANDIDATES = """
INSERT INTO decision_candidates (client_id, decision_id, person_id, face_id, similarity)
SELECT %(client_id)s::varchar, c.* FROM jsonb_to_recordset(%(candidates)s) AS c (
    decision_id bigint, person_id bigint, face_id bigint, similarity real)
"""
_FILTERS = {
    "person_id": "id IN (SELECT c.decision_id FROM decision_candidates c WHERE c.client_id = %(client_id)s "
    "AND c.person_id = %(person_id)s)",
    "decision": "decision = %(decision)s",
}
_COLUMNS = ", ".join(name for name in StoredDecision.__dataclass_fields__ if name != "candidates")


class DecisionStore:
    """The decisions of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, client_id: str, decisions: Sequence[NewDecision]) -> None:
        """Store decisions of one client, in one transaction whose commit does not wait for the disk."""
        with self._database.transaction(client_id) as tx:
            tx.exec_driver_sql("SET LOCAL synchronous_commit = off")
            hold_erasures(tx, client_id)
            ids = (
                tx.exec_driver_sql("SELECT nextval('decisions_id_seq') FROM generate_series(1, %s)", (len(decisions),))
                .scalars()
                .all()
            )
            rows = [
                {
                    "id": number,
                    "at": decision.at.isoformat(),
                    "actor": decision.actor,
                    "kind": decision.kind,
                    "regions": decision.regions,
                    "threshold": decision.threshold,
                    "threshold_source": decision.threshold_source,
                    "decision": decision.decision,
                }
                for number, decision in zip(ids, decisions, strict=True)
            ]
            # Somebody may have been deleted or erased since the decision.
            named = {each.person_id for decision in decisions for each in decision.candidates}
            there = set(
                tx.exec_driver_sql(
                    "SELECT id FROM persons WHERE client_id = %s AND id = ANY(%s)", (client_id, sorted(named))
                ).scalars()
            )
            candidates = [
                {
                    "decision_id": number,
                    "person_id": each.person_id,
                    "face_id": each.face_id,
                    "similarity": each.similarity,
                }
                for number, decision in zip(ids, decisions, strict=True)
                for each in decision.candidates
                if each.person_id in there
            ]
            tx.exec_driver_sql(_INSERT, {"client_id": client_id, "decisions": Jsonb(rows)})
            if candidates:
                tx.exec_driver_sql(_INSERT_CANDIDATES, {"client_id": client_id, "candidates": Jsonb(candidates)})

    def list(
        self,
        client_id: str,
        *,
        person_id: int | None = None,
        decision: str | None = None,
        since: dt.datetime | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> DecisionPage:
        """A page of decisions, those with an id below `before`. person_id: that this person was a candidate of."""
        given = {"person_id": person_id, "decision": decision, "since": since, "before": before}
        with self._database.transaction(client_id) as tx:
            page, next_before = newest(tx, client_id, "decisions", _COLUMNS, _FILTERS, given, limit)
            candidates: dict[int, list[Compared]] = {row["id"]: [] for row in page}
            for number, *compared in tx.exec_driver_sql(
                "SELECT decision_id, person_id, face_id, similarity FROM decision_candidates "
                "WHERE client_id = %s AND decision_id = ANY(%s) ORDER BY decision_id, similarity DESC, person_id",
                (client_id, list(candidates)),
            ):
                candidates[number].append(Compared(*compared))
        return DecisionPage(tuple(StoredDecision.from_row(row, candidates[row["id"]]) for row in page), next_before)


def hold_erasures(tx: sa.Connection, client_id: str) -> None:
    """Nobody of the client is erased until the transaction ends: what it writes of persons can't outlive them."""
    tx.exec_driver_sql(NO_ERASURE, (_LOCK, client_id))


def hold_decisions(tx: sa.Connection, client_id: str) -> None:
    """Decisions that are being stored end first, and later ones see who was erased."""
    tx.exec_driver_sql(NO_DECISION, (_LOCK, client_id))
