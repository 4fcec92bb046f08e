"""Deletes, in the background, what the logs have kept for long enough."""

from __future__ import annotations

import random
import threading

from faceward.api.observation import LogLine
from faceward.errors import FacewardError
from faceward.journal import Journal


class LogRetention:
    """A thread that looks every `seconds`, give or take a fifth, the first time after a tenth of them.

    log: told of a look that failed; the next one is tried all the same.
    """

    def __init__(self, journal: Journal, log: LogLine, *, seconds: float = 3600.0) -> None:
        self._journal = journal
        self._log = log
        self._seconds = seconds
        self._dice = random.Random()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faceward-log-retention", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """A step under way ends first."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        wait = self._seconds / 10
        while not self._closed.wait(wait * self._dice.uniform(0.8, 1.2)):
            wait = self._seconds
            try:
                self._journal.expire(self._closed.is_set)
            except FacewardError as exc:
                self._log("log retention", error=exc.code)
