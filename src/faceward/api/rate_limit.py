"""A token bucket for each key."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from faceward.errors import RateLimitedError

_MOST_KEYS = 100_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left to a key. rate: requests a second. seconds: until the bucket is full again."""

    rate: float
    burst: int
    left: int
    seconds: int

    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers names them."""
        window = max(1, math.ceil(self.burst / self.rate))
        return {
            "RateLimit-Policy": f'"key";q={self.burst};w={window}',
            "RateLimit": f'"key";r={self.left};t={self.seconds}',
        }


class RateLimiter:
    """Token buckets: a key may send `rate` requests a second, and at once as many as two seconds bring.

    share: this process's part of the rate, where several serve one port. clock: seconds, monotonic.
    """

    def __init__(self, rate: float, *, share: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._share = share
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, int], tuple[float, float]] = OrderedDict()

    def rate_of(self, own_rate: float | None) -> float:
        """Requests a second of a key, over all processes; 0 is no limit. own_rate: of the key."""
        return self._rate if own_rate is None else own_rate

    def take(self, client_id: str, key_id: int, own_rate: float | None) -> Allowance | None:
        """Count one request; None where no limit applies. own_rate: of the key, where not the deployment's.

        Raises RateLimitedError, whose `allowance` is what is left.
        """
        rate = self.rate_of(own_rate)
        if rate <= 0:
            return None
        rate *= self._share
        burst = max(1, math.ceil(2 * rate))
        now = self._clock()
        tokens, at = self._buckets.pop((client_id, key_id), (float(burst), now))
        tokens = min(float(burst), tokens + (now - at) * rate)
        allowed = tokens >= 1.0
        if allowed:
            tokens -= 1.0
        self._buckets[client_id, key_id] = tokens, now
        if len(self._buckets) > _MOST_KEYS:
            self._buckets.popitem(last=False)
        allowance = Allowance(rate, burst, int(tokens), math.ceil((burst - tokens) / rate))
        if not allowed:
            raise ExhaustedError(allowance, wait=(1.0 - tokens) / rate)
        return allowance


class ExhaustedError(RateLimitedError):
    """A key's bucket is empty."""

    def __init__(self, allowance: Allowance, wait: float) -> None:
        super().__init__(
            f"This key may send {allowance.rate:g} requests a second and sent more. Try again in {max(1, math.ceil(wait))} s.",
            retry_after=wait,
        )
        self.allowance = allowance
