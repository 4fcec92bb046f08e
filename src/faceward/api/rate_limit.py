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
    """What is left to a key. rate: requests a second, over all processes. burst, left: of this process's bucket, when full and
    now. seconds: until it is full again.
    """

    rate: float
    burst: int
    left: int
    seconds: int

    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers names them."""
        quota = _burst(self.rate)
        return {
            "RateLimit-Policy": f'"key";q={quota};w={max(1, math.ceil(quota / self.rate))}',
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
        own = rate * self._share
        burst = _burst(own)
        now = self._clock()
        tokens, at = self._buckets.pop((client_id, key_id), (float(burst), now))
        tokens = min(float(burst), tokens + (now - at) * own)
        allowed = tokens >= 1.0
        if allowed:
            tokens -= 1.0
        self._buckets[client_id, key_id] = tokens, now
        if len(self._buckets) > _MOST_KEYS:
            self._buckets.popitem(last=False)
        allowance = Allowance(rate, burst, int(tokens), math.ceil((burst - tokens) / own))
        if not allowed:
            raise ExhaustedError(allowance, wait=(1.0 - tokens) / own, shared=self._share < 1)
        return allowance


def _burst(rate: float) -> int:
    return max(1, math.ceil(2 * rate))


class ExhaustedError(RateLimitedError):
    """A key's bucket is empty. shared: whether it is that of one process among several."""

    def __init__(self, allowance: Allowance, wait: float, *, shared: bool) -> None:
        more = (
            ", shared out among the service's processes, and sent one of them more than its part"
            if shared
            else " and sent more"
        )
        super().__init__(
            f"This key may send {allowance.rate:g} requests a second{more}. Try again in {max(1, math.ceil(wait))} s.",
            retry_after=wait,
        )
        self.allowance = allowance
