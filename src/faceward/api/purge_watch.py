"""Erases people who have expired, now and then, beside the requests."""

from __future__ import annotations

import random
import threading

from faceward.administration import Administration
from faceward.api.observation import LogLine
from faceward.errors import FacewardError
from faceward.service.privacy import Privacy

_AT_ONCE = 100


class PurgeWatch:
    """A thread that looks through all clients every `seconds`, give or take a fifth. 0 seconds: never.

    Several processes may do so at once: each person is erased by one of them. log: told of what was erased, and of a look
    that failed; the next one is made all the same.
    """

    def __init__(self, privacy: Privacy, administration: Administration, log: LogLine, *, seconds: float) -> None:
        self._privacy = privacy
        self._administration = administration
        self._log = log
        self._seconds = seconds
        self._dice = random.Random()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faceward-purge", daemon=True)

    def start(self) -> None:
        if self._seconds > 0:
            self._thread.start()

    def close(self) -> None:
        """What is being erased ends first."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(self._seconds * self._dice.uniform(0.8, 1.2)):
            try:
                self._look()
            except FacewardError as exc:
                self._log("purge", error=exc.code)

    def _look(self) -> None:
        after: str | None = None
        while not self._closed.is_set():
            page = self._administration.list_clients(after=after, limit=1000)
            for client in page.clients:
                erased = _AT_ONCE
                while erased == _AT_ONCE and not self._closed.is_set():
                    erased = self._privacy.purge_expired(client_id=client.client_id, most=_AT_ONCE)
                    if erased:
                        self._log("purge", client_id=client.client_id, erased=erased)
            after = page.next_after
            if after is None:
                return
