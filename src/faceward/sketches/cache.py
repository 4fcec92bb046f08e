"""The sketches of the scopes in use, inside a budget of memory."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

from faceward.errors import SketchTooLargeError
from faceward.sketches.sketch import Sketch, SketchBuilder, sketch_bytes

K = TypeVar("K", bound=Hashable)
W = TypeVar("W")

ScopeState: TypeAlias = Literal["loaded", "loading", "refused", "absent"]


@dataclass(frozen=True, slots=True, eq=False)
class CachedSketch(Generic[W]):
    """A sketch with what its loader said of it. loaded_at: seconds of the cache's clock."""

    sketch: Sketch
    watermark: W
    loaded_at: float


@dataclass(frozen=True, slots=True)
class CacheStats:
    """A moment's figures and the counts since the start.

    bytes: of the sketches held, without `reserved`, which is what loads under way will need. hits, misses: of `get`.
    loads: finished well. failures: loads that raised. refusals: scopes larger than the budget. evictions: sketches
    dropped to make room.
    """

    budget: int
    bytes: int
    reserved: int
    entries: int
    hits: int
    misses: int
    loads: int
    failures: int
    refusals: int
    evictions: int


class SketchCache(Generic[K, W]):
    """Sketches by scope, the least recently used one dropped first. Safe to share between threads.

    budget_bytes: the most memory for sketches, those being loaded included. dimension: of the embeddings.
    refusal_seconds: how long a scope larger than the budget is not tried again. clock: seconds, never going back.

    A search that holds a sketch keeps it alive after it was dropped here: for that long the memory is above the budget.
    """

    def __init__(
        self,
        budget_bytes: int,
        dimension: int = 512,
        refusal_seconds: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budget = budget_bytes
        self._dimension = dimension
        self._refusal_seconds = refusal_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[K, CachedSketch[W]] = OrderedDict()
        self._used_at: dict[K, float] = {}
        self._reserved: dict[K, int] = {}
        self._refused_until: dict[K, float] = {}
        self._hits = self._misses = self._loads = self._failures = self._refusals = self._evictions = 0

    def get(self, key: K) -> CachedSketch[W] | None:
        """The scope's sketch, now the most recently used, or None: `state` says why. Never waits for a load."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                self._misses += 1
                return None
            self._hits += 1
            self._entries.move_to_end(key)
            self._used_at[key] = self._clock()
            return entry

    def peek(self, key: K) -> CachedSketch[W] | None:
        """As `get`, but it does not count as use."""
        with self._lock:
            return self._entries.get(key)

    def state(self, key: K) -> ScopeState:
        """What the cache holds of a scope. A loaded scope that is being loaded anew is "loaded"."""
        with self._lock:
            if key in self._entries:
                return "loaded"
            if key in self._reserved:
                return "loading"
            return "refused" if self._is_refused(key) else "absent"

    def load(self, key: K, expected: int, fill: Callable[[SketchBuilder], W]) -> CachedSketch[W] | None:
        """Load a scope, or load it anew while the sketch that is there still answers.

        expected: the number of its faces, as well as is known. fill: adds all faces of the scope to the builder and
        returns the watermark. Its errors pass through and leave the cache as it was.

        Returns None without calling `fill` where another thread is loading this scope, where the scope is refused, and
        where loads under way hold the memory; also where the scope turned out larger than the budget while it filled.
        """
        needed = sketch_bytes(expected, self._dimension)
        with self._lock:
            if key in self._reserved or self._is_refused(key):
                return None
            if needed > self._budget:
                self._refuse(key)
                return None
            if not self._make_room(needed, key):
                return None
            self._reserved[key] = needed
        loaded: CachedSketch[W] | None = None
        failed = True
        try:
            builder = SketchBuilder(self._dimension, expected, self._budget)
            watermark = fill(builder)
            loaded = CachedSketch(builder.build(), watermark, self._clock())
            failed = False
        except SketchTooLargeError:
            failed = False
        finally:
            with self._lock:
                del self._reserved[key]
                self._failures += failed
                if loaded is not None:
                    self._loads += 1
                    self._put(key, loaded)
                elif not failed:
                    self._refuse(key)
        return loaded

    def replace(self, key: K, old: CachedSketch[W], sketch: Sketch, watermark: W) -> CachedSketch[W] | None:
        """Put a newer sketch in the place of `old`, for instance one that was extended.

        Returns None and changes nothing where the scope no longer holds `old`: somebody else was faster, or it was
        dropped. The scope counts as no more recently used than before.
        """
        entry = CachedSketch(sketch, watermark, self._clock())
        with self._lock:
            if self._entries.get(key) is not old:
                return None
            self._entries[key] = entry
            self._make_room(0, key)
            return entry

    def drop(self, key: K) -> None:
        """Forget a scope and its refusal. A load under way goes on."""
        with self._lock:
            self._entries.pop(key, None)
            self._used_at.pop(key, None)
            self._refused_until.pop(key, None)

    def entries(self) -> list[tuple[K, CachedSketch[W]]]:
        """All scopes held, the least recently used first. Does not count as use."""
        with self._lock:
            return list(self._entries.items())

    def age(self, *, used_within: float) -> float:
        """Seconds since the least fresh of the sketches was loaded or replaced that were used in the last so many seconds.

        0 where there is none.
        """
        with self._lock:
            now = self._clock()
            used = [key for key, at in self._used_at.items() if now - at <= used_within]
            return max((now - self._entries[key].loaded_at for key in used), default=0.0)

    def stats(self) -> CacheStats:
        with self._lock:
            return CacheStats(
                budget=self._budget,
                bytes=self._held(),
                reserved=sum(self._reserved.values()),
                entries=len(self._entries),
                hits=self._hits,
                misses=self._misses,
                loads=self._loads,
                failures=self._failures,
                refusals=self._refusals,
                evictions=self._evictions,
            )

    def _held(self) -> int:
        return sum(self._cost(entry) for entry in self._entries.values())

    def _cost(self, entry: CachedSketch[W]) -> int:
        """An entry without faces takes memory too."""
        return max(entry.sketch.nbytes, sketch_bytes(0, self._dimension))

    def _make_room(self, needed: int, keep: K) -> bool:
        """Drop sketches, least recently used first and `keep` last, until `needed` bytes are free."""
        free = self._budget - self._held() - sum(self._reserved.values()) - needed
        droppable = [key for key in self._entries if key != keep]
        if keep in self._entries:
            droppable.append(keep)
        if free + self._held() < 0:
            return False
        for key in droppable:
            if free >= 0:
                break
            free += self._cost(self._entries.pop(key))
            self._used_at.pop(key, None)
            self._evictions += 1
        return True

    def _put(self, key: K, entry: CachedSketch[W]) -> None:
        self._entries.pop(key, None)
        if self._make_room(self._cost(entry), key):
            self._entries[key] = entry
        else:  # it outgrew what was expected while other loads hold the rest
            self._used_at.pop(key, None)
            self._evictions += 1

    def _is_refused(self, key: K) -> bool:
        return self._refused_until.get(key, float("-inf")) > self._clock()

    def _refuse(self, key: K) -> None:
        now = self._clock()
        self._refused_until = {other: until for other, until in self._refused_until.items() if until > now}
        self._refused_until[key] = now + self._refusal_seconds
        self._refusals += 1
