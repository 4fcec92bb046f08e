"""Audits the recall of the regions in use, for /metrics."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from faceward.api.metrics import Metrics
from faceward.api.periodic import Stop
from faceward.evaluation.audit import RecallAudit

_PROBES = 100


class RecallWatch:
    """audit: of the model in use. scopes: the (client, region) pairs to choose from."""

    def __init__(
        self, audit: Callable[[], RecallAudit], scopes: Callable[[], Sequence[tuple[str, str]]], metrics: Metrics
    ) -> None:
        self._audit = audit
        self._scopes = scopes
        self._metrics = metrics
        self._dice = random.Random()

    def look(self, _stop: Stop) -> None:
        """Audit one region at random. Raises as RecallAudit.run does."""
        scopes = self._scopes()
        if not scopes:
            return
        client_id, region = self._dice.choice(scopes)
        report = self._audit().run(
            client_id, region, sample=_PROBES, strategies=("auto",), seed=self._dice.getrandbits(32)
        )
        for found in report.strategies:
            if found.recall is not None and found.low is not None and found.high is not None:
                self._metrics.set("recall", {found.strategy: found.recall})
                self._metrics.set("recall_lower", {found.strategy: found.low})
                self._metrics.set("recall_upper", {found.strategy: found.high})
