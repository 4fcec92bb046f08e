"""Keeps the sketches of the scopes in use loaded and fresh, in the background.

A sketch and its watermark come from one snapshot, and every search re-ranks the rows at or above the watermark as well,
so a sketch that is out of date costs time, never an answer. What happens here is only about that time: a scope is loaded
on first use, extended when the tail of newer rows grows, and loaded anew when many of its faces are gone.
"""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from faceward.errors import FacewardError
from faceward.sketches import CachedSketch, SketchBuilder, SketchCache
from faceward.store.scopes import ScopeReader
from faceward.store.watermarks import Watermark

Scope: TypeAlias = tuple[str, str]
"""(client_id, region)."""

Work: TypeAlias = Literal["load", "extend"]


@dataclass(frozen=True, slots=True)
class KeeperSettings:
    """tail: newer rows from which on a sketch is extended. dead_share: share of a sketch's candidates that are gone from
    which on it is loaded anew. idle_seconds: how often a sketch in use is extended even with a short tail. retry_seconds:
    the wait after a failed load. Waits vary by a fifth at random, so that many processes do not move in step.
    """

    tail: int = 64
    dead_share: float = 0.2
    idle_seconds: float = 60.0
    retry_seconds: float = 5.0


class SketchKeeper:
    """Loads and refreshes sketches on one background thread, which starts with the first need and ends with close()."""

    def __init__(
        self,
        reader: ScopeReader,
        cache: SketchCache[Scope, Watermark],
        settings: KeeperSettings | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        self._reader = reader
        self._cache = cache
        self._settings = settings or KeeperSettings()
        self._jitter = jitter or random.Random()
        self._condition = threading.Condition()
        self._waiting: OrderedDict[str, deque[Scope]] = OrderedDict()  # of each client; the next one's turn first
        self._work: dict[Scope, Work] = {}
        self._busy: tuple[Scope, Work] | None = None
        self._not_before: dict[Scope, float] = {}
        self._thread: threading.Thread | None = None
        self._closed = False
        self.last_error: FacewardError | None = None

    @property
    def cache(self) -> SketchCache[Scope, Watermark]:
        return self._cache

    def get(self, scope: Scope) -> CachedSketch[Watermark] | None:
        """The scope's sketch, or None; then it is on its way, unless it is larger than the memory for sketches."""
        entry = self._cache.get(scope)
        if entry is None:
            if self._cache.state(scope) == "absent":
                self._ask(scope, "load")
        elif time.monotonic() - entry.loaded_at > self._settings.idle_seconds:
            self._ask(scope, "extend")
        return entry

    def size(self, scope: Scope) -> int:
        """The faces of a scope whose sketch is loaded, else 0."""
        entry = self._cache.peek(scope)
        return len(entry.sketch) if entry else 0

    def oldest_seconds(self) -> float:
        """Seconds since the least fresh of the sketches in use was read. One that nobody searches waits for its next search."""
        return self._cache.age(used_within=2 * self._settings.idle_seconds)

    def load(self, scope: Scope) -> CachedSketch[Watermark] | None:
        """Load a scope now, on this thread; None where another thread is at it, or it is too large."""
        client_id, region = scope
        with self._reader.open(client_id, region) as snapshot:

            def fill(builder: SketchBuilder) -> Watermark:
                for codes, ids in snapshot.codes():
                    builder.add(codes, ids)
                return snapshot.watermark

            return self._cache.load(scope, snapshot.faces, fill)

    def forget(self, client_id: str, face_ids: Sequence[int]) -> None:
        """Faces were erased: load anew, on this thread, the client's sketches that hold codes of them.

        When it returns, this process holds none, but for searches under way.
        """
        gone = np.asarray(face_ids, dtype=np.int64)
        for scope, entry in self._cache.entries():
            if scope[0] != client_id or not entry.sketch.contains(gone):
                continue
            try:
                loaded = self.load(scope)
            except FacewardError as exc:
                self.last_error, loaded = exc, None
            if loaded is None:  # another load, begun before, may still bring them: the next check sees it
                self._cache.drop(scope)

    def extend(self, scope: Scope) -> None:
        """Add the rows that are newer than the sketch, and move its watermark on."""
        entry = self._cache.peek(scope)
        if entry is None:
            return
        client_id, region = scope
        with self._reader.open(client_id, region, since=entry.watermark) as snapshot:
            if (
                snapshot.watermark.lineage != entry.watermark.lineage  # what is in the sketch may be of another history
                or snapshot.watermark.erasures != entry.watermark.erasures  # or of somebody who was erased
                or snapshot.faces > max(65_536, len(entry.sketch) // 2)  # a large import: cheaper anew than row by row
            ):
                self._ask(scope, "load")
                return
            batches = list(snapshot.codes())
            watermark = snapshot.watermark
        sketch = entry.sketch
        if batches:
            sketch = sketch.extended(
                np.concatenate([codes for codes, _ in batches]), np.concatenate([ids for _, ids in batches])
            )
        self._cache.replace(scope, entry, sketch, watermark)

    def observe(self, scope: Scope, *, fresh: int, dead: int, proposed: int) -> None:
        """What a search met: newer rows, and candidates that are gone."""
        if dead > self._settings.dead_share * max(proposed, 32):
            self._ask(scope, "load")
        elif fresh > self._settings.tail:
            self._ask(scope, "extend")

    def close(self) -> None:
        """Stop the thread; a load under way ends first."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _ask(self, scope: Scope, work: Work) -> None:
        with self._condition:
            if self._closed or time.monotonic() < self._not_before.get(scope, 0.0):
                return
            working = self._thread is not None and self._thread.is_alive()  # a fork leaves the thread behind
            if working and self._busy in ((scope, "load"), (scope, work)):  # the cache knows of a load only later
                return
            if scope not in self._work:
                self._waiting.setdefault(scope[0], deque()).append(scope)
                self._work[scope] = work
            elif work == "load":
                self._work[scope] = work
            if not working:
                self._thread = threading.Thread(target=self._run, name="faceward-sketches", daemon=True)
                self._thread.start()
            self._condition.notify()

    def _next(self) -> Scope:
        """Clients take turns: one with many regions does not keep the others waiting."""
        client_id, scopes = self._waiting.popitem(last=False)
        scope = scopes.popleft()
        if scopes:
            self._waiting[client_id] = scopes
        return scope

    def _look_for_erasures(self) -> None:
        """Another process may have erased somebody whose codes are in a sketch that nobody searches."""
        try:
            erasures = self._reader.erasures()
        except FacewardError as exc:
            self.last_error = exc
            return
        for scope, entry in self._cache.entries():
            if erasures.get(scope[0], 0) != entry.watermark.erasures:
                self._ask(scope, "load")

    def _next_look(self) -> float:
        return time.monotonic() + self._settings.idle_seconds * self._jitter.uniform(0.8, 1.2)

    def _run(self) -> None:
        look_at = self._next_look()
        while True:
            with self._condition:
                while not self._waiting and not self._closed and (left := look_at - time.monotonic()) > 0:
                    self._condition.wait(left)
                if self._closed:
                    return
            if time.monotonic() >= look_at:
                self._look_for_erasures()
                look_at = self._next_look()
            with self._condition:
                if not self._waiting:
                    continue
                scope = self._next()
                work = self._work.pop(scope)
                self._busy = scope, work
            pause = self._settings.retry_seconds
            try:
                if work == "load":
                    self.load(scope)
                    pause = 2.0
                else:
                    self.extend(scope)
                    pause = 0.2
                self.last_error = None
            except FacewardError as exc:
                # Searches go on by exact SQL, and meet the same error themselves where it is one of the database.
                self.last_error = exc
            finally:
                with self._condition:
                    self._busy = None
                    now = time.monotonic()
                    self._not_before = {key: until for key, until in self._not_before.items() if until > now}
                    self._not_before[scope] = now + pause * self._jitter.uniform(0.8, 1.2)
