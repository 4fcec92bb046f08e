"""Which threshold decides: that of the request, else of the region, else of the client, else of the model pack."""

from __future__ import annotations

import copy
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from faceward.checks import check_threshold
from faceward.store.regions import OwnThresholds, RegionStore
from faceward.types import Threshold

_MOST = 10_000
_NOTHING: Mapping[str, float | None] = {}


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

    def of_regions(
        self, client_id: str, regions: Sequence[str], given: object, told: Mapping[str, float | None] = _NOTHING
    ) -> dict[str, Threshold]:
        """The threshold of each region. given: the request's, or None. told: what a search has just read of regions, whatever
        is remembered of their names. Raises InvalidValueError.
        """
        if given is not None:
            return dict.fromkeys(regions, Threshold(check_threshold(given), "request"))
        own = self._own(client_id)
        fallback = self._fallback(own)
        values = {region: told[region] if region in told else own.regions.get(region) for region in regions}
        return {region: fallback if value is None else Threshold(value, "region") for region, value in values.items()}

    def corrected(
        self, client_id: str, limits: dict[str, Threshold], given: object, told: Mapping[str, float | None]
    ) -> dict[str, Threshold]:
        """The limits that a search went by, as it should have. told, given: as of `of_regions`.

        A name may have become another region's since it was remembered: then all that the client set is asked for anew.
        """
        now = self.of_regions(client_id, tuple(limits), given, told)
        if now != limits:
            self.forget(client_id)
            now = self.of_regions(client_id, tuple(limits), given, told)
        return now

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
