"""A key may send so many requests a second, and no other key pays for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceward.api.rate_limit import ExhaustedError, RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_key_that_sends_too_much_is_told_when_to_come_again() -> None:
    clock = Clock()
    limiter = RateLimiter(2.0, share=1.0, clock=clock)
    for left in (3, 2, 1, 0):
        allowance = limiter.take("c", 1, None)
        assert allowance is not None
        assert allowance.left == left
    with pytest.raises(ExhaustedError) as refused:
        limiter.take("c", 1, None)
    assert 0 < refused.value.retry_after <= 0.5
    assert refused.value.allowance.headers()["RateLimit"].startswith('"key";r=0;t=')
    clock.now += refused.value.retry_after
    assert limiter.take("c", 1, None) is not None


def test_keys_have_buckets_of_their_own_and_limits_of_their_own() -> None:
    limiter = RateLimiter(1.0, share=1.0, clock=Clock())
    for key in range(10):
        assert limiter.take("c", key, None) is not None
        assert limiter.take("d", key, None) is not None
    for _ in range(100):
        limiter.take("c", 99, 50.0)
    with pytest.raises(ExhaustedError):
        limiter.take("c", 99, 50.0)


def test_a_key_whose_rate_several_processes_share_hears_its_own() -> None:
    """Each of two has a bucket of half."""
    limiter = RateLimiter(10.0, share=0.5, clock=Clock())
    allowance = limiter.take("c", 1, None)
    assert allowance is not None
    assert allowance.headers() == {"RateLimit-Policy": '"key";q=20;w=2', "RateLimit": '"key";r=9;t=1'}
    for _ in range(9):
        limiter.take("c", 1, None)
    with pytest.raises(ExhaustedError, match="10 requests a second, shared out among the service's processes"):
        limiter.take("c", 1, None)


def test_no_rate_is_no_limit() -> None:
    limiter = RateLimiter(0.0, share=1.0, clock=Clock())
    assert limiter.take("c", 1, None) is None


@given(
    rate=st.floats(0.1, 1000.0),
    share=st.sampled_from([1.0, 0.5, 0.25]),
    waits=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=200),
)
def test_no_more_pass_than_the_bucket_and_the_rate_bring(rate: float, share: float, waits: list[float]) -> None:
    clock = Clock()
    limiter = RateLimiter(rate, share=share, clock=clock)
    passed, burst = 0, None
    for wait in waits:
        clock.now += wait
        try:
            allowance = limiter.take("c", 1, None)
        except ExhaustedError as exc:
            burst = exc.allowance.burst
        else:
            assert allowance is not None
            burst = allowance.burst
            passed += 1
    assert burst is not None
    assert passed <= burst + sum(waits) * rate * share + 1e-6
