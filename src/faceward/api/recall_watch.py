"""Audits the recall of the regions in use now and then, for /metrics."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

from faceward.api.metrics import Metrics
from faceward.api.observation import LogLine
from faceward.errors import FacewardError
from faceward.evaluation.audit import RecallAudit

_PROBES = 100


class RecallWatch:
    """A thread that audits one region at random every `seconds`, give or take a fifth. 0 seconds: never.

    audit: of the model in use. scopes: the (client, region) pairs to choose from. log: told of an audit that failed; the
    next one is tried all the same.
    """

    def __init__(
        self,
        audit: Callable[[], RecallAudit],
        scopes: Callable[[], Sequence[tuple[str, str]]],
        metrics: Metrics,
        log: LogLine,
        *,
        seconds: float,
    ) -> None:
        self._audit = audit
        self._scopes = scopes
        self._metrics = metrics
        self._log = log
        self._seconds = seconds
        self._dice = random.Random()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faceward-recall", daemon=True)

    def start(self) -> None:
        if self._seconds > 0:
            self._thread.start()

    def close(self) -> None:
        """An audit under way ends first."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(self._seconds * self._dice.uniform(0.8, 1.2)):
            scopes = self._scopes()
            if not scopes:
                continue
            client_id, region = self._dice.choice(scopes)
            try:
                report = self._audit().run(
                    client_id, region, sample=_PROBES, strategies=("auto",), seed=self._dice.getrandbits(32)
                )
            except FacewardError as exc:
                self._log("recall audit", error=exc.code)
                continue
            for found in report.strategies:
                if found.recall is not None and found.low is not None:
                    self._metrics.set("recall", {found.strategy: found.recall})
                    self._metrics.set("recall_lower", {found.strategy: found.low})
