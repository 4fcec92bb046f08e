"""Work that is done now and then beside the requests."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import TypeAlias

from faceward.api.observation import LogLine
from faceward.errors import FacewardError

Stop: TypeAlias = Callable[[], bool]
"""Whether the service is ending."""


class Periodic:
    """A thread that does `work` every `seconds`, give or take a fifth, so that several processes do not move in step.

    name: of the thread and in the log. work: asks from time to time whether to stop. seconds: 0 is never. first: seconds
    until the first time, where it is sooner. log: told of work that failed; the next time comes all the same.
    """

    def __init__(
        self, name: str, work: Callable[[Stop], object], log: LogLine, *, seconds: float, first: float | None = None
    ) -> None:
        self._name = name
        self._work = work
        self._log = log
        self._seconds = seconds
        self._first = seconds if first is None else first
        self._dice = random.Random()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"faceward-{name.replace(' ', '-')}", daemon=True)

    def start(self) -> None:
        if self._seconds > 0:
            self._thread.start()

    def close(self) -> None:
        """What is under way ends first."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        wait = self._first
        while not self._closed.wait(wait * self._dice.uniform(0.8, 1.2)):
            wait = self._seconds
            try:
                self._work(self._closed.is_set)
            except FacewardError as exc:
                self._log(self._name, level="warning", error=exc.code)
