"""Picks the candidate source of each search.

All strategies end in the same re-rank by PostgreSQL (`faceward.store.search`); they differ in who proposes the faces to
re-rank. `exact`: every full vector; of a large scope, where only high similarities matter, those whose sign bits are near
enough, in SQL. `sketch`: the same bits in memory, scored against the un-quantised probe. `hnsw`: pgvector's graph, which may
miss. `auto`: exact for small scopes, sketch for all others.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from faceward.retrieval.freshness import SketchKeeper
from faceward.sketches import (
    LOWEST_SIMILARITY,
    CachedSketch,
    Candidates,
    SketchBuilder,
    candidates_for,
    hamming_bound,
    propose,
    score_floor,
)
from faceward.store.gallery import Gallery
from faceward.store.search import (
    TAIL_LIMIT,
    CandidateSource,
    FaceSearch,
    FullVectors,
    Graph,
    HiddenFaces,
    Proposed,
    SearchAnswer,
    SignBits,
    Without,
)
from faceward.store.watermarks import Watermark
from faceward.types import Embedding, Strategy


@dataclass(frozen=True, slots=True)
class RetrievalSettings:
    """How candidates are found.

    full_vectors_up_to: faces of a scope whose full vectors are all compared; sketch_from: faces from which on `auto` uses
    the sketch. size_seconds: how long a scope's size is believed. ef_search, iterative_scan, halfvec: of the strategy hnsw.
    """

    strategy: Strategy = "auto"
    full_vectors_up_to: int = 2_000
    sketch_from: int = 2_000
    size_seconds: float = 10.0
    ef_search: int = 200
    iterative_scan: str = "strict_order"
    halfvec: bool = False


@dataclass(frozen=True, slots=True)
class _Asked:
    """A probe. without: the face that is not looked for."""

    probe: Embedding
    without: int | None


@dataclass(frozen=True, slots=True)
class _Proposal:
    """What the sketches of the regions propose for one probe.

    lowest: the similarity from which on a nearest face matters. all: the sketches hold no other face. cut: there were
    more at the lowest score's height. wide: it is the second try. persons: how many are asked for.
    """

    candidates: Candidates
    watermarks: dict[str, Watermark]
    dimension: int
    lowest: float
    all: bool
    cut: bool
    wide: bool
    persons: int

    @property
    def source(self) -> Proposed:
        return Proposed(self.candidates.ids, self.watermarks)

    def dead(self, answer: SearchAnswer) -> int:
        """How many of the candidates are gone: deleted, or moved to another region."""
        return len(self.candidates) - (answer.reranked - answer.fresh)

    def is_thin(self, answer: SearchAnswer) -> bool:
        """Whether a face nearer than the one found may stand below the last candidate, or another person's behind it.

        The last candidate is the lowest score worth a look beside the best one, unless there were too many, or the best
        one may be among the dead. Too many may be photos of few persons.
        """
        if self.all or not answer.candidates or not (self.cut or self.dead(answer)):
            return False
        few = len(answer.candidates) < self.persons
        nearest = max(answer.candidates[0].similarity, self.lowest)
        return few or (not self.wide and bool(self.candidates.scores[-1] > score_floor(nearest, self.dimension)))


class Retriever:
    """Finds the nearest persons of regions of a client."""

    def __init__(
        self,
        search: FaceSearch,
        gallery: Gallery,
        keeper: SketchKeeper,
        *,
        model_id: str,
        dimension: int,
        settings: RetrievalSettings | None = None,
    ) -> None:
        self._search = search
        self._keeper = keeper
        self._model_id = model_id
        self._dimension = dimension
        self._settings = settings or RetrievalSettings()
        self._graph_until = 0.0
        # Of a region without faces, which anybody can name: nothing is loaded, and each face of it counts as new.
        self._empty = CachedSketch(SketchBuilder(dimension, 0).build(), Watermark(0, lineage=""), 0.0)
        self._sizes = _ScopeSizes(gallery.count_faces, self._settings.size_seconds)

    def find(
        self,
        client_id: str,
        regions: Sequence[str],
        probes: Sequence[Embedding],
        *,
        top_k: int,
        floor: float = LOWEST_SIMILARITY,
        strategy: Strategy | None = None,
        without: Sequence[int | None] | None = None,
    ) -> list[SearchAnswer]:
        """The nearest persons of the regions to each probe, best first.

        floor: the similarity from which on a nearest person matters to the caller, as a threshold does. without: for each
        probe a face that is left out, its own where the probe is a stored face.

        Raises IndexMissingError where the strategy is hnsw and there is no such index.
        """
        if not probes:
            return []
        asked = [_Asked(*one) for one in zip(probes, without or [None] * len(probes), strict=True)]
        chosen = strategy or self._settings.strategy
        if chosen == "hnsw":
            self._require_graph()
            return self._ask(client_id, regions, asked, [self._graph(top_k)] * len(probes), top_k)
        if chosen == "sketch" or (chosen == "auto" and self._is_large(client_id, regions)):
            entries = self._entries(client_id, regions)
            if entries is not None:
                return self._find_sketched(client_id, entries, asked, top_k, floor)
        return self._find_exact(client_id, regions, asked, top_k, floor)

    def find_hidden(
        self, client_id: str, region: str, probes: Sequence[Embedding], *, top_k: int
    ) -> list[SearchAnswer]:
        """As `find`, among those of the region who are suspended or expired: none of whom a recognition may name.

        The index of sign bits is scanned for them, whatever the strategy.
        """
        source = HiddenFaces(_HIDDEN_RERANKED, self._dimension)
        return self._search.search(
            client_id, [region], probes, [source] * len(probes), model_id=self._model_id, top_k=top_k, hidden=True
        )

    def warm(self, client_id: str, region: str) -> bool:
        """Load a region's sketch now; False where it is too large for the memory, or being loaded."""
        return self._keeper.load((client_id, region)) is not None

    def forget(self, client_id: str, face_ids: Sequence[int]) -> None:
        """As SketchKeeper.forget."""
        self._keeper.forget(client_id, face_ids)

    def close(self) -> None:
        self._keeper.close()

    def _ask(
        self,
        client_id: str,
        regions: Sequence[str],
        asked: Sequence[_Asked],
        sources: Sequence[CandidateSource],
        top_k: int,
    ) -> list[SearchAnswer]:
        probes = [one.probe for one in asked]
        sources = [
            source if one.without is None else Without(source, one.without)
            for one, source in zip(asked, sources, strict=True)
        ]
        return self._search.search(client_id, regions, probes, sources, model_id=self._model_id, top_k=top_k)

    def _require_graph(self) -> None:
        """Without the index PostgreSQL would sort the whole scope and say nothing. Asked for again after a while."""
        if time.monotonic() >= self._graph_until:
            self._search.require_graph()
            self._graph_until = time.monotonic() + self._settings.size_seconds

    def _graph(self, top_k: int) -> Graph:
        return Graph(
            limit=max(100, top_k),
            ef_search=self._settings.ef_search,
            iterative_scan=self._settings.iterative_scan,
            halfvec=self._settings.halfvec,
            dimension=self._dimension,
        )

    def _find_exact(
        self, client_id: str, regions: Sequence[str], asked: Sequence[_Asked], top_k: int, floor: float
    ) -> list[SearchAnswer]:
        """The persons at or above the floor, the nearest `top_k` of them, and who is nearest where they are fewer.

        Whatever size is remembered of the regions: it decides what the search costs, not what it finds.
        """
        size = sum(self._sizes.of(client_id, region) for region in regions)
        lowest = min(floor, LOWEST_SIMILARITY)
        limit = max(top_k * _FACES_PER_PERSON, 100)
        cut_from = 0
        if size <= self._settings.full_vectors_up_to or lowest < _LOWEST_BY_SIGN_BITS:
            source: CandidateSource = FullVectors(limit)
            cut_from = limit
        else:
            source = SignBits(hamming_bound(lowest, self._dimension), self._dimension)
        answers = self._ask(client_id, regions, asked, [source] * len(asked), top_k)
        # Fewer persons than asked for: their photos filled the limit, or the others are below the floor.
        while few := [
            i
            for i, answer in enumerate(answers)
            if len(answer.candidates) < top_k and answer.reranked + (asked[i].without is not None) >= cut_from
        ]:
            limit, cut_from = (limit * 10, limit * 10) if cut_from else (limit, limit)
            again = self._ask(client_id, regions, [asked[i] for i in few], [FullVectors(limit)] * len(few), top_k)
            for i, answer in zip(few, again, strict=True):
                answers[i] = answer
        return answers

    def _is_large(self, client_id: str, regions: Sequence[str]) -> bool:
        size = sum(self._keeper.size((client_id, region)) or self._sizes.of(client_id, region) for region in regions)
        return size >= self._settings.sketch_from

    def _entries(self, client_id: str, regions: Sequence[str]) -> dict[str, CachedSketch[Watermark]] | None:
        """The regions' sketches, or None where one of them is not there (yet)."""
        entries = {}
        for region in regions:
            entry = self._keeper.get((client_id, region)) if self._has_faces(client_id, region) else self._empty
            if entry is None:
                return None
            entries[region] = entry
        return entries

    def _has_faces(self, client_id: str, region: str) -> bool:
        return bool(self._keeper.size((client_id, region)) or self._sizes.of(client_id, region))

    def _propose(
        self, entries: dict[str, CachedSketch[Watermark]], probe: Embedding, top_k: int, floor: float, *, wide: bool
    ) -> _Proposal:
        faces = sum(len(entry.sketch) for entry in entries.values())
        lowest = min(floor, LOWEST_SIMILARITY)
        least = top_k * _FACES_PER_PERSON
        most = max(least, candidates_for(faces, self._dimension))
        if wide:  # all of them: the best score may be that of a face that is gone, and says nothing
            least = most = 4 * most
        found = _best(
            [propose(entry.sketch, probe, similarity=lowest, least=least, most=most) for entry in entries.values()],
            most,
        )
        watermarks = {region: entry.watermark for region, entry in entries.items()}
        return _Proposal(
            found,
            watermarks,
            self._dimension,
            lowest,
            all=len(found) == faces,
            cut=len(found) == most,
            wide=wide,
            persons=top_k,
        )

    def _find_sketched(
        self,
        client_id: str,
        entries: dict[str, CachedSketch[Watermark]],
        asked: Sequence[_Asked],
        top_k: int,
        floor: float,
    ) -> list[SearchAnswer]:
        regions = list(entries)
        answers: dict[int, SearchAnswer] = {}
        by_sql: list[int] = []
        waiting = {i: self._propose(entries, one.probe, top_k, floor, wide=False) for i, one in enumerate(asked)}
        while waiting:
            sources = [proposal.source for proposal in waiting.values()]
            found = self._ask(client_id, regions, [asked[i] for i in waiting], sources, top_k)
            again: dict[int, _Proposal] = {}
            for (i, proposal), answer in zip(waiting.items(), found, strict=True):
                answers[i] = answer
                dead, proposed = proposal.dead(answer), len(proposal.candidates)
                for region in (each for each in regions if entries[each] is not self._empty):
                    self._keeper.observe((client_id, region), fresh=answer.fresh, dead=dead, proposed=proposed)
                if answer.fresh > TAIL_LIMIT or dead > proposed // 2:
                    by_sql.append(i)  # exact SQL knows every new row, and no face that is gone
                elif proposal.is_thin(answer):
                    if proposal.wide:
                        by_sql.append(i)
                    else:
                        again[i] = self._propose(entries, asked[i].probe, top_k, floor, wide=True)
            waiting = again
        if by_sql:
            exact = self._find_exact(client_id, regions, [asked[i] for i in by_sql], top_k, floor)
            answers.update(zip(by_sql, exact, strict=True))
        return [answers[i] for i in range(len(asked))]


_HIDDEN_RERANKED = 200
_FACES_PER_PERSON = 10
"""Faces re-ranked for each person asked for: the nearest faces may be many photos of few persons."""
_LOWEST_BY_SIGN_BITS = 0.38
"""Below it so many strangers are near enough by their sign bits (one of six) that all full vectors cost no more."""


def _best(parts: Sequence[Candidates], most: int) -> Candidates:
    """The best candidates of several sketches for one probe; their scores are of one scale."""
    if len(parts) == 1:
        return parts[0]
    scores = np.concatenate([part.scores for part in parts])
    ids = np.concatenate([part.ids for part in parts])
    order = np.lexsort((ids, -scores))[:most]
    return Candidates(ids[order], scores[order])


class _ScopeSizes:
    """How many faces a region has, counted anew after some seconds, later for a large one.

    A size that is out of date makes a search slower, never wrong. At most `_MOST` scopes are remembered.
    """

    _MOST = 10_000

    def __init__(self, count: Callable[[str, str], int], seconds: float) -> None:
        self._count = count
        self._seconds = seconds
        self._lock = threading.Lock()
        self._sizes: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def of(self, client_id: str, region: str) -> int:
        key = (client_id, region)
        with self._lock:
            size, until = self._sizes.get(key, (0, 0.0))
        if time.monotonic() < until:
            return size
        size = self._count(client_id, region)
        with self._lock:
            self._sizes[key] = (size, time.monotonic() + self._seconds * (1 + size / 50_000))
            self._sizes.move_to_end(key)
            if len(self._sizes) > self._MOST:
                self._sizes.popitem(last=False)
        return size
