"""Which threshold decides: that of the request, else of the region, else of the client, else of the model pack."""

from __future__ import annotations

import copy
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from faceward.checks import check_threshold
from faceward.store.regions import OwnThresholds, RegionStore
from faceward.types import Threshold

_MOST = 10_000


class Thresholds:
    """Resolves thresholds. What a client has set is believed for some seconds, so that a search need not ask for it.

    default: of the model pack, or of the settings. At most 10,000 clients are remembered.
    """

    def __init__(
        self,
        regions: RegionStore,
        default: float,
        *,
        seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._regions = regions
        self._default = Threshold(default, "pack")
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[OwnThresholds, float]] = OrderedDict()

    def with_default(self, default: float) -> Thresholds:
        """The same for another model pack, with what is remembered of the clients."""
        other = copy.copy(self)
        other._default = Threshold(default, "pack")
        return other

    def of_regions(self, client_id: str, regions: Sequence[str], given: object) -> dict[str, Threshold]:
        """The threshold of each region. given: the request's, or None. Raises InvalidValueError."""
        if given is not None:
            return dict.fromkeys(regions, Threshold(check_threshold(given), "request"))
        own = self._own(client_id)
        fallback = self._fallback(own)
        return {
            region: Threshold(own.regions[region], "region") if region in own.regions else fallback
            for region in regions
        }

    def of_client(self, client_id: str, given: object) -> Threshold:
        """The threshold where no region has a say. Raises InvalidValueError."""
        if given is not None:
            return Threshold(check_threshold(given), "request")
        return self._fallback(self._own(client_id))

    def forget(self, client_id: str) -> None:
        """Ask anew: this process changed a threshold of the client."""
        with self._lock:
            self._known.pop(client_id, None)

    def _fallback(self, own: OwnThresholds) -> Threshold:
        return self._default if own.client is None else Threshold(own.client, "client")

    def _own(self, client_id: str) -> OwnThresholds:
        with self._lock:
            known = self._known.get(client_id)
        if known is not None and self._clock() < known[1]:
            return known[0]
        own = self._regions.thresholds(client_id)
        with self._lock:
            self._known[client_id] = own, self._clock() + self._seconds
            self._known.move_to_end(client_id)
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
        return own
