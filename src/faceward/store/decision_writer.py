"""Keeps decisions without making a recognition wait: a bounded queue, and a thread that writes it away in batches."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Sequence

from faceward.errors import (
    DatabaseFullError,
    DatabaseUnavailableError,
    FacewardError,
    PoolExhaustedError,
    StatementTimeoutError,
)
from faceward.store.decision_log import DecisionStore, NewDecision

_OUTAGES = (DatabaseUnavailableError, DatabaseFullError, PoolExhaustedError, StatementTimeoutError)
_LONGEST_PAUSE = 30.0


class DecisionWriter:
    """most_waiting: decisions kept in memory while the database is slow or away; further ones are lost, and counted.
    batch: written at once. seconds: how long a decision waits for others.

    Ended by close(), which writes what waits. A process that is killed loses what came in its last `seconds`, uncounted.
    """

    def __init__(
        self, store: DecisionStore, *, most_waiting: int = 10_000, batch: int = 500, seconds: float = 1.0
    ) -> None:
        self._store = store
        self._most_waiting = most_waiting
        self._batch = batch
        self._seconds = seconds
        self._condition = threading.Condition()
        self._waiting: deque[NewDecision] = deque()
        self._taken: list[NewDecision] = []  # of these, what the thread is about to write
        self._thread: threading.Thread | None = None
        self._closed = False
        self._lost = 0
        self._written = 0
        self.last_error: FacewardError | None = None

    @property
    def lost(self) -> int:
        """Decisions that could not be kept, since the start."""
        return self._lost

    @property
    def written(self) -> int:
        return self._written

    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._taken)

    def add(self, decisions: Sequence[NewDecision]) -> None:
        """Take decisions on; never waits."""
        with self._condition:
            room = 0 if self._closed else max(0, self._most_waiting - self.waiting)
            self._waiting.extend(decisions[:room])
            self._lost += len(decisions[room:])
            if self._closed or not decisions:
                return
            if self._thread is None or not self._thread.is_alive():  # a fork leaves the thread behind
                self._thread = threading.Thread(target=self._run, name="faceward-decisions", daemon=True)
                self._thread.start()
            elif (
                self.waiting == len(decisions) or len(self._waiting) >= self._batch
            ):  # it is idle, or has a whole batch
                self._condition.notify()

    def close(self, seconds: float = 5.0) -> None:
        """Write what waits, for at most so many seconds; what is left then is lost."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(seconds)
        with self._condition:
            self._lost += self.waiting
            self._waiting.clear()
            self._taken = []

    def _run(self) -> None:
        failures = 0
        while True:
            if not self._next(failures):
                return
            try:
                self._write()
                self.last_error, failures = None, 0
            except _OUTAGES as exc:
                self.last_error, failures = exc, failures + 1

    def _next(self, failures: int) -> bool:
        """Take the next batch when it is whole or its time is over, or what is left of the last one; False at the end."""
        pause = min(_LONGEST_PAUSE, self._seconds * 2.0 ** min(failures, 10))
        with self._condition:
            while not (self._closed or self.waiting):
                self._condition.wait()
            until = time.monotonic() + pause
            while not self._closed and (failures or len(self._waiting) < self._batch):
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._condition.wait(left)
            if self._closed and (failures or not self.waiting):
                return False
            while self._waiting and len(self._taken) < self._batch:
                self._taken.append(self._waiting.popleft())
            return True

    def _write(self) -> None:
        """Each client's in a transaction of its own; what is written, or can't be, is done with."""
        of_client: defaultdict[str, list[NewDecision]] = defaultdict(list)
        for decision in self._taken:
            of_client[decision.client_id].append(decision)
        for client_id, decisions in of_client.items():
            try:
                self._store.write(client_id, decisions)
                written = len(decisions)
            except _OUTAGES:
                raise
            except FacewardError as exc:
                self.last_error, written = exc, 0
            with self._condition:
                if not self._taken:  # close() has given up on them, and counted them
                    return
                self._taken = [each for each in self._taken if each.client_id != client_id]
                self._written += written
                self._lost += len(decisions) - written
