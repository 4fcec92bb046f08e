"""One statement answers every search: a candidate source proposes face ids, PostgreSQL decides.

Whatever the source, its ids are re-ranked by the cosine of the full vectors, filtered again by tenant, region, model and
whether they may be matched, and joined to the person, in the same statement and snapshot: a deleted, moved or suspended
person can't be returned, and a source can be wrong only by leaving somebody out. A new strategy is a new CandidateSource
and nothing else.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pgvector import Vector

from faceward.errors import IndexMissingError, ModelMismatchError
from faceward.store.database import Database
from faceward.store.embedding_models import models_in_use
from faceward.store.person_states import MATCHABLE
from faceward.store.watermarks import Watermark
from faceward.types import Candidate, Embedding

TAIL_LIMIT = 1_000
"""Newer rows of a region that a search re-ranks beside what is proposed; where there are more, ask another source."""

# A search is a few hundred look-ups by key; the planner, unsure of the counts, must not read the scope for a hash join.
_PLAN = {"enable_hashjoin": "off", "enable_mergejoin": "off"}

HIDDEN = f"NOT ({MATCHABLE})"
"""Of a face `f`: of somebody who is suspended, or has expired and is not purged yet."""

SCOPE = f"f.client_id = %(client_id)s AND f.region = ANY(%(regions)s::varchar[]) AND {MATCHABLE}"


class CandidateSource(Protocol):
    """Proposes the faces that one search re-ranks.

    sql: a query of two columns over `face_encodings f` in SCOPE: `id`, and `fresh` where the proposer has not seen the row.
    It may use %(client_id)s, %(regions)s, %(probe)s and its own parameters. settings: set for the transaction of the
    search only.
    """

    @property
    def sql(self) -> str: ...

    @property
    def parameters(self) -> Mapping[str, Any]: ...

    @property
    def settings(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class _Limited:
    limit: int

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"limit": self.limit}

    @property
    def settings(self) -> Mapping[str, str]:
        return {}


@dataclass(frozen=True, slots=True)
class FullVectors(_Limited):
    """Brute force over the full vectors: exact by definition; linear, 2 KiB a face. limit: faces re-ranked."""

    @property
    def sql(self) -> str:
        # "+ 0" keeps the planner from answering this order out of the HNSW index, which misses.
        return (
            f"SELECT f.id, false AS fresh FROM face_encodings f WHERE {SCOPE} "
            "ORDER BY (f.embedding <=> %(probe)s) + 0 LIMIT %(limit)s"
        )


@dataclass(frozen=True, slots=True)
class SignBits:
    """All whose sign bits differ from the probe's in at most that many, scanned in a covering index: 64 bytes a face."""

    within: int
    dimension: int = 512

    @property
    def sql(self) -> str:
        return (
            f"SELECT f.id, false AS fresh FROM face_encodings f WHERE {SCOPE} "
            f"AND f.code <~> binary_quantize(%(probe)s)::bit({self.dimension}) <= %(within)s"
        )

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"within": self.within}

    @property
    def settings(self) -> Mapping[str, str]:
        return {}


@dataclass(frozen=True, slots=True)
class HiddenFaces(_Limited):
    """The nearest by sign bits of those that no search may find, from the same index. limit: faces re-ranked."""

    dimension: int = 512

    @property
    def sql(self) -> str:
        return (
            "SELECT f.id, false AS fresh FROM face_encodings f "
            f"WHERE f.client_id = %(client_id)s AND f.region = ANY(%(regions)s::varchar[]) AND {HIDDEN} "
            f"ORDER BY f.code <~> binary_quantize(%(probe)s)::bit({self.dimension}) LIMIT %(limit)s"
        )


@dataclass(frozen=True, slots=True)
class Graph(_Limited):
    """pgvector's HNSW index. Approximate: it misses people, and the more the larger the table is."""

    ef_search: int = 200
    iterative_scan: str = "strict_order"
    max_scan_tuples: int = 20_000
    halfvec: bool = False
    dimension: int = 512

    @property
    def sql(self) -> str:
        kind = f"::halfvec({self.dimension})" if self.halfvec else ""
        return (
            f"SELECT f.id, false AS fresh FROM face_encodings f WHERE {SCOPE} "
            f"ORDER BY f.embedding{kind} <=> %(probe)s{kind} LIMIT %(limit)s"
        )

    @property
    def settings(self) -> Mapping[str, str]:
        iterative = {"hnsw.iterative_scan": self.iterative_scan, "hnsw.max_scan_tuples": str(self.max_scan_tuples)}
        return {
            "hnsw.ef_search": str(max(1, min(1000, self.ef_search))),
            **({} if self.iterative_scan == "off" else iterative),  # pgvector before 0.8 has no such settings
            # The order has to come from the graph, not from sorting the scope.
            "enable_sort": "off",
            "enable_bitmapscan": "off",
        }


@dataclass(frozen=True, slots=True)
class Proposed:
    """Ids that somebody proposes, and every row of the regions that the proposer may not have seen.

    ids: int64. watermarks: for each region that of what the proposer knows.
    """

    ids: NDArray[np.int64]
    watermarks: Mapping[str, Watermark]

    @property
    def sql(self) -> str:
        # Ranges of idx_face_scope_version, which has them in this order. The constant LIMIT bounds what a search may cost,
        # and tells the planner that the tail is short, which it could not know of a bound parameter. One row more than
        # TAIL_LIMIT shows that a tail was cut; a second one, because `Without` may take one of them.
        tails = " UNION ALL ".join(
            f"(SELECT f.id, true FROM face_encodings f WHERE f.client_id = %(client_id)s AND f.region = %(tail{i})s "
            f"AND {MATCHABLE} AND {unseen} ORDER BY f.row_version LIMIT {TAIL_LIMIT + 2})"
            for i, watermark in enumerate(self.watermarks.values())
            for unseen in watermark.unseen(str(i))
        )
        return f"SELECT unnest(%(ids)s::bigint[]) AS id, false AS fresh UNION ALL {tails}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        parameters: dict[str, Any] = {"ids": self.ids.tolist()}
        for i, (region, watermark) in enumerate(self.watermarks.items()):
            parameters[f"tail{i}"] = region
            parameters.update(watermark.parameters(str(i)))
        return parameters

    @property
    def settings(self) -> Mapping[str, str]:
        # Its look-ups by key have one sensible plan; making it anew for each probe would cost a tenth of the search.
        return {"plan_cache_mode": "force_generic_plan"}


@dataclass(frozen=True, slots=True)
class Without:
    """What another source proposes, except one face: for a probe that is a stored face itself."""

    source: CandidateSource
    face_id: int

    @property
    def sql(self) -> str:
        return f"SELECT id, fresh FROM ({self.source.sql}) others WHERE id <> %(without)s"

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {**self.source.parameters, "without": self.face_id}

    @property
    def settings(self) -> Mapping[str, str]:
        return self.source.settings


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """candidates: the nearest persons, best first, one entry each. thresholds: of each region of theirs, what was set for it
    when the search read them, or None. reranked: faces whose full vectors were compared. fresh: those of them that a proposer
    did not know yet.
    """

    candidates: tuple[Candidate, ...]
    thresholds: Mapping[str, float | None]
    reranked: int
    fresh: int = 0


@dataclass(frozen=True, slots=True)
class OwnFace:
    """A stored face of the person that a probe is compared with. similarity: cosine, -1..1. threshold: what is set for the
    region, or None.
    """

    face_id: int
    similarity: float
    region: str
    threshold: float | None


# ::text::float8: the decimals that were set, as they are read elsewhere; the column is a real.
# "+ 0": as in FullVectors; the re-rank must not be planned as a walk through the HNSW index either.
# LATERAL ... OFFSET 0: faces and persons are looked up by their keys, one by one. After a large import the planner knows
# nothing of the table until it is analysed: it would take a scope for one row, and scan it whole for each candidate.
_STATEMENT = """
WITH candidates AS MATERIALIZED ({source}),
ranked AS MATERIALIZED (
    SELECT f.id, f.person_id, f.region, c.fresh, (f.embedding <=> %(probe)s) + 0 AS distance
    FROM candidates c CROSS JOIN LATERAL (
        SELECT s.id, s.person_id, s.region, s.model_id, s.matchable_until, s.embedding FROM face_encodings s
        WHERE s.client_id = %(client_id)s AND s.id = c.id OFFSET 0
    ) f
    WHERE f.region = ANY(%(regions)s::varchar[]) AND f.model_id = %(model_id)s AND {matchable}
),
best AS (
    SELECT DISTINCT ON (person_id) id, person_id, region, distance FROM ranked ORDER BY person_id, distance, id
),
top AS (SELECT * FROM best ORDER BY distance, id LIMIT %(top_k)s)
SELECT t.person_id, t.id, p.name, t.region, 1 - t.distance, p.external_id, p.description,
       n.reranked, n.fresh,
       (SELECT r.threshold::text::float8 FROM regions r WHERE r.client_id = %(client_id)s AND r.name = t.region) AS threshold
FROM (SELECT count(*) AS reranked, count(*) FILTER (WHERE fresh) AS fresh FROM ranked) n
LEFT JOIN (top t CROSS JOIN LATERAL (
    SELECT s.name, s.external_id, s.description FROM persons s
    WHERE s.client_id = %(client_id)s AND s.id = t.person_id OFFSET 0
) p) ON true
ORDER BY t.distance, t.id
"""


class FaceSearch:
    """Runs searches against one database, each in one round trip, the tenant's scope included.

    most_at_once: searches under way; further ones wait for their turn. A search is work for the processor: more of them
    than there are cores to do it only take time from each other.
    """

    def __init__(self, database: Database, most_at_once: int | None = None) -> None:
        self._database = database
        self._turns = threading.BoundedSemaphore(most_at_once or 4 * (os.cpu_count() or 1))

    def search(
        self,
        client_id: str,
        regions: Sequence[str],
        probes: Sequence[Embedding],
        sources: Sequence[CandidateSource],
        *,
        model_id: str,
        top_k: int,
        hidden: bool = False,
    ) -> list[SearchAnswer]:
        """The nearest persons of the regions to each probe; sources: one for each probe. hidden: of those who are suspended or
        expired, and of no others.

        All statements travel in one pipeline: the tenant and the session settings are set in the same implicit
        transaction as the search, so that they can't outlive it.
        """
        answers = []
        matchable = HIDDEN if hidden else MATCHABLE
        self._database.timeout()
        with self._turns, self._database.driver_connection() as connection, connection.cursor(binary=True) as cursor:
            cursors = []
            timeout = self._database.timeout()  # what waiting for a turn and a connection has left of it
            with connection.pipeline():
                settings: dict[str, str] = {"faceward.client_id": client_id, **_PLAN}
                if timeout is not None:
                    settings["statement_timeout"] = timeout
                for source in sources:
                    settings.update(source.settings)
                cursor.execute(
                    "SELECT " + ", ".join(["set_config(%s, %s, true)"] * len(settings)),
                    [part for item in settings.items() for part in item],
                    prepare=True,
                )
                for probe, source in zip(probes, sources, strict=True):
                    parameters = {
                        "client_id": client_id,
                        "regions": list(regions),
                        "probe": Vector(probe),
                        "model_id": model_id,
                        "top_k": top_k,
                        **source.parameters,
                    }
                    result = connection.cursor(binary=True)
                    result.execute(_STATEMENT.format(source=source.sql, matchable=matchable), parameters, prepare=True)
                    cursors.append(result)
            for result in cursors:
                rows = result.fetchall()
                result.close()
                answers.append(
                    SearchAnswer(
                        candidates=tuple(_candidate(row) for row in rows if row[0] is not None),
                        thresholds={row[3]: row[9] for row in rows if row[0] is not None},
                        reranked=rows[0][7],
                        fresh=rows[0][8],
                    )
                )
        return answers

    def similarities_of_person(
        self, client_id: str, person_id: int, probe: Embedding, *, model_id: str
    ) -> list[OwnFace]:
        """Each stored face of a person, the nearest to the probe first; none of a person who is suspended or has expired."""
        with self._database.transaction(client_id) as connection:
            rows = connection.exec_driver_sql(
                "SELECT f.id, 1 - ((f.embedding <=> %(probe)s) + 0), f.region, (SELECT r.threshold FROM regions r "
                "WHERE r.client_id = %(client_id)s AND r.name = f.region) FROM face_encodings f "
                "WHERE f.client_id = %(client_id)s AND f.person_id = %(person_id)s AND f.model_id = %(model_id)s "
                f"AND {MATCHABLE} ORDER BY 2 DESC, 1",
                {"client_id": client_id, "person_id": person_id, "probe": Vector(probe), "model_id": model_id},
            ).all()
        return [OwnFace(row[0], _clip(row[1]), row[2], row[3]) for row in rows]

    def require_model(self, model_id: str) -> None:
        """Raise ModelMismatchError where another model makes the gallery now."""
        models = models_in_use(self._database)
        if models - {model_id}:
            raise ModelMismatchError(
                f"The gallery is of the model {', '.join(sorted(models))}; the pack in use is {model_id}. Their "
                "embeddings can't be compared."
            )

    def require_graph(self) -> None:
        """Raise IndexMissingError where the HNSW index is absent or half built."""
        with self._database.unscoped() as connection:
            valid = connection.exec_driver_sql(
                "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('idx_embedding_hnsw')"
            ).scalar()
        if not valid:
            raise IndexMissingError(
                "The index idx_embedding_hnsw is missing, so the strategy hnsw can't run. Use the strategy auto or exact, "
                "which need no such index, or have it built (search.hnsw_index)."
            )


def _clip(similarity: float) -> float:
    return min(1.0, max(-1.0, float(similarity)))


def _candidate(row: Sequence[Any]) -> Candidate:
    return Candidate(
        person_id=row[0],
        face_id=row[1],
        name=row[2],
        region=row[3],
        similarity=_clip(row[4]),
        external_id=row[5],
        description=row[6],
    )
