"""How many of the people of a region each search strategy finds, measured against brute force over the full vectors.

Probes are the second photos of people who have several: the photo's own face is left out of the search, and the truth is
the nearest face of the others. Where too few people have several photos, further probes are made from stored faces at a
given similarity, by the noise model. A probe counts where its true nearest face is at or above the lowest similarity that
matters; a strategy has found it where the first person it names is as near.

The gallery is read as a stream, in one snapshot, and the searches are those of the service, on the live database. A miss is
held against the gallery of a second snapshot before it counts: somebody may have been deleted meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from faceward.errors import IndexMissingError, NotFoundError
from faceward.evaluation.noise_model import NoiseModel, Rows
from faceward.retrieval import Retriever
from faceward.sketches import LOWEST_SIMILARITY
from faceward.store.scopes import ScopeReader, ScopeSnapshot
from faceward.types import Strategy

_TIE = 1e-5
"""Similarities nearer than this are taken for equal: float32 sums differ by less."""
_TOP_K = 5
_Z95 = 1.959964

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much is done, and of how much."""


@dataclass(frozen=True, slots=True)
class StrategyAudit:
    """What one strategy did.

    probes: those that count. found: of these. recall: found / probes; low, high: its 95 % interval after Wilson; all None
    where no probe counts. p50_ms, p95_ms: of one search, the sketch loaded before. note: what a reader has to know.
    """

    strategy: Strategy
    probes: int
    found: int
    recall: float | None
    low: float | None
    high: float | None
    p50_ms: float | None
    p95_ms: float | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """An audit of one region.

    second_photos, made: the probes of each kind; similarity: at which those made lie to their stored face. lowest: the
    true nearest similarity from which on a probe counts.
    """

    client_id: str
    region: str
    faces: int
    second_photos: int
    made: int
    similarity: float
    lowest: float
    strategies: tuple[StrategyAudit, ...]

    def below(self, recall: float, judged: Sequence[Strategy]) -> tuple[StrategyAudit, ...]:
        """Those of the judged strategies that found less than that share, or whose recall is not known."""
        return tuple(
            audit
            for audit in self.strategies
            if audit.strategy in judged and (audit.recall is None or audit.recall < recall)
        )

    def gauges(self) -> Iterator[tuple[str, Mapping[str, str], float]]:
        """(name, labels, value) of each figure, for a monitoring system."""
        for audit in self.strategies:
            labels = {"client_id": self.client_id, "region": self.region, "strategy": audit.strategy}
            yield "faceward_audit_probes", labels, audit.probes
            if audit.recall is not None and audit.low is not None:
                yield "faceward_audit_recall", labels, audit.recall
                yield "faceward_audit_recall_low", labels, audit.low
            if audit.p50_ms is not None:
                yield "faceward_audit_p50_seconds", labels, audit.p50_ms / 1000


@dataclass(frozen=True, slots=True, eq=False)
class _Probes:
    """rows: the embeddings. own: the face that each was taken from and is searched without, or 0."""

    rows: Rows = field(repr=False)
    own: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, chosen: NDArray[np.bool_]) -> _Probes:
        return _Probes(self.rows[chosen], self.own[chosen])


class RecallAudit:
    """Audits regions.

    scopes: reads the gallery. retriever: does the searches. noise: gives what makes probes, once it is needed: its making
    takes half a second; None where the model pack's embeddings are of another dimension: then only people with several
    photos give probes. floor: the service's threshold; a probe counts from there on, or from LOWEST_SIMILARITY.
    """

    def __init__(
        self,
        scopes: ScopeReader,
        retriever: Retriever,
        noise: Callable[[], NoiseModel | None],
        *,
        floor: float = LOWEST_SIMILARITY,
    ) -> None:
        self._scopes = scopes
        self._retriever = retriever
        self._noise = noise
        self._floor = floor
        self._lowest = min(floor, LOWEST_SIMILARITY)

    def run(
        self,
        client_id: str,
        region: str,
        *,
        sample: int = 500,
        similarity: float = 0.58,
        strategies: Sequence[Strategy] = ("auto", "exact", "sketch", "hnsw"),
        seed: int = 0,
        progress: Progress | None = None,
    ) -> AuditReport:
        """Audit a region. sample: the most probes. similarity: of the probes that are made. seed: of their choice.

        Raises NotFoundError where the region gives no probe, StoreError.
        """
        tell = progress or _untold
        with self._scopes.open(client_id, region) as snapshot:
            probes = self._choose(snapshot, sample, similarity, np.random.default_rng(seed))
            if not len(probes):
                raise NotFoundError(
                    f"The region {region!r} of client {client_id!r} has no face to probe with."
                    if not snapshot.faces
                    else f"Nobody of the region {region!r} of client {client_id!r} has a second photo, and the noise model "
                    "can't make probes for embeddings of this dimension."
                )
            truth = _nearest(snapshot, probes, tell)
            faces = snapshot.faces
        counted = truth >= self._lowest
        runs = [self._search(client_id, region, strategy, probes, tell) for strategy in strategies]
        missed = [counted & (run.similarity < truth - _TIE) for run in runs]
        doubtful = np.logical_or.reduce(missed)
        if doubtful.any():
            with self._scopes.open(client_id, region) as snapshot:
                now = truth.copy()
                now[doubtful] = _nearest(snapshot, probes.only(doubtful), tell)
            missed = [part & (run.similarity < now - _TIE) for part, run in zip(missed, runs, strict=True)]
        made = int((probes.own == 0).sum())
        return AuditReport(
            client_id=client_id,
            region=region,
            faces=faces,
            second_photos=len(probes) - made,
            made=made,
            similarity=similarity,
            lowest=self._lowest,
            strategies=tuple(
                run.audit(int(counted.sum()), int(counted.sum() - part.sum()))
                for run, part in zip(runs, missed, strict=True)
            ),
        )

    def _choose(self, snapshot: ScopeSnapshot, sample: int, similarity: float, rng: np.random.Generator) -> _Probes:
        """Second photos first; then probes made from the only photos of others."""
        batches = list(snapshot.persons())
        none = np.empty(0, dtype=np.int64)
        faces = np.concatenate([none, *(part for part, _ in batches)])
        persons = np.concatenate([none, *(part for _, part in batches)])
        order = np.lexsort((faces, persons))
        faces, persons = faces[order], persons[order]
        first = np.flatnonzero(np.diff(persons, prepend=-1))
        several = np.diff(first, append=len(persons)) > 1
        own = rng.permutation(faces[first[several] + 1])[:sample]
        lonely = rng.permutation(faces[first[~several]])[: sample - len(own)]
        dimension = snapshot.dimension
        rows = [snapshot.embeddings_of(own).reshape(-1, dimension)]
        noise = self._noise() if len(lonely) else None
        if noise is not None:
            rows.append(noise.near(snapshot.embeddings_of(lonely), similarity, rng))
            own = np.concatenate([own, np.zeros(len(lonely), dtype=np.int64)])
        return _Probes(np.concatenate(rows), own)

    def _search(self, client_id: str, region: str, strategy: Strategy, probes: _Probes, tell: Progress) -> _Run:
        note = "may miss people, by its nature" if strategy == "hnsw" else ""
        if strategy in ("auto", "sketch") and not self._retriever.warm(client_id, region):
            note = "the region's sketch is not in memory: searched by SQL"
        similarity = np.full(len(probes), -2.0)
        seconds = np.zeros(len(probes))
        for i, (row, own) in enumerate(zip(probes.rows, probes.own.tolist(), strict=True)):
            tell(f"searching by {strategy}", i, len(probes))
            start = time.perf_counter()
            try:
                (answer,) = self._retriever.find(
                    client_id,
                    [region],
                    [row],
                    top_k=_TOP_K,
                    floor=self._floor,
                    strategy=strategy,
                    without=[own or None],
                )
            except IndexMissingError as exc:
                return _Run(strategy, None, similarity, str(exc))
            seconds[i] = time.perf_counter() - start
            if answer.candidates:
                similarity[i] = answer.candidates[0].similarity
        return _Run(strategy, seconds, similarity, note)


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """The searches of one strategy. seconds: of each; None where they could not be made. similarity: of the first answer."""

    strategy: Strategy
    seconds: NDArray[np.float64] | None
    similarity: NDArray[np.float64]
    note: str

    def audit(self, probes: int, found: int) -> StrategyAudit:
        if self.seconds is None:
            return StrategyAudit(self.strategy, 0, 0, None, None, None, None, None, self.note)
        p50, p95 = np.percentile(self.seconds * 1000, [50, 95]).tolist()
        low, high = wilson_interval(found, probes) if probes else (None, None)
        recall = found / probes if probes else None
        return StrategyAudit(self.strategy, probes, found, recall, low, high, p50, p95, self.note)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share, after Wilson (1927): right also where nearly all succeed."""
    share, z2 = successes / trials, _Z95 * _Z95
    centre = share + z2 / (2 * trials)
    spread = _Z95 * sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    low = 0.0 if successes == 0 else (centre - spread) / (1 + z2 / trials)
    high = 1.0 if successes == trials else (centre + spread) / (1 + z2 / trials)
    return low, high


def _nearest(snapshot: ScopeSnapshot, probes: _Probes, tell: Progress) -> NDArray[np.float64]:
    """The similarity of the nearest face to each probe, its own left out: brute force, batch by batch."""
    best = np.full(len(probes), -2.0)
    done = 0
    for embeddings, ids, _ in snapshot.embeddings():
        tell("comparing with every face", done, snapshot.faces)
        scores = probes.rows @ embeddings.T
        scores[probes.own[:, np.newaxis] == ids] = -2.0
        np.maximum(best, scores.max(axis=1), out=best)
        done += len(ids)
    return best


def _untold(_what: str, _done: int, _of: int) -> None:
    return None
