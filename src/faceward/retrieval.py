"""Which strategy answers a search, and with how many candidates.

All strategies end in the same re-rank by PostgreSQL (`faceward.store.search`); they differ in who proposes the faces to
re-rank. `exact` compares every full vector in a small scope, and every sign-bit code in a larger one.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from faceward.store.gallery import Gallery
from faceward.store.search import CandidateSource, FaceSearch, FullVectors, Graph, SearchAnswer, SignBits
from faceward.types import Embedding, Strategy


@dataclass(frozen=True, slots=True)
class RetrievalSettings:
    """How candidates are found.

    full_vectors_up_to: faces of a scope whose full vectors are all compared; a larger scope is scanned by sign bits.
    size_seconds: how long a scope's size is believed. ef_search, iterative_scan: of the strategy hnsw.
    """

    strategy: Strategy = "auto"
    full_vectors_up_to: int = 2_000
    size_seconds: float = 10.0
    ef_search: int = 200
    iterative_scan: str = "strict_order"


class Retriever:
    """Finds the nearest persons of regions of a client."""

    def __init__(
        self,
        search: FaceSearch,
        gallery: Gallery,
        *,
        model_id: str,
        dimension: int,
        settings: RetrievalSettings | None = None,
    ) -> None:
        self._search = search
        self._model_id = model_id
        self._dimension = dimension
        self._settings = settings or RetrievalSettings()
        self._sizes = _ScopeSizes(gallery.count_faces, self._settings.size_seconds)

    def find(
        self,
        client_id: str,
        regions: Sequence[str],
        probes: Sequence[Embedding],
        *,
        top_k: int,
        strategy: Strategy | None = None,
    ) -> list[SearchAnswer]:
        """The nearest persons of the regions to each probe, best first."""
        if not probes:
            return []
        source = self._source(client_id, regions, top_k, strategy or self._settings.strategy)
        return self._search.search(
            client_id, regions, probes, [source] * len(probes), model_id=self._model_id, top_k=top_k
        )

    def _source(self, client_id: str, regions: Sequence[str], top_k: int, strategy: Strategy) -> CandidateSource:
        limit = max(400, 20 * top_k)
        if strategy == "hnsw":
            return Graph(
                limit=max(100, top_k), ef_search=self._settings.ef_search, iterative_scan=self._settings.iterative_scan
            )
        bound = self._settings.full_vectors_up_to
        if sum(self._sizes.of(client_id, region, bound + 1) for region in regions) <= bound:
            return FullVectors(limit=limit)
        return SignBits(limit=limit, dimension=self._dimension)


class _ScopeSizes:
    """How many faces a region has, counted up to a bound and believed for some seconds.

    A size that is out of date makes a search slower, never wrong. At most `_MOST` scopes are remembered.
    """

    _MOST = 10_000

    def __init__(self, count: Callable[[str, str, int], int], seconds: float) -> None:
        self._count = count
        self._seconds = seconds
        self._lock = threading.Lock()
        self._sizes: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def of(self, client_id: str, region: str, at_most: int) -> int:
        key = (client_id, region)
        with self._lock:
            size, until = self._sizes.get(key, (0, 0.0))
        if time.monotonic() < until:
            return size
        size = self._count(client_id, region, at_most)
        with self._lock:
            self._sizes[key] = (size, time.monotonic() + self._seconds)
            self._sizes.move_to_end(key)
            if len(self._sizes) > self._MOST:
                self._sizes.popitem(last=False)
        return size
