"""What is asked without a key: answered at a price that nobody can raise."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import httpx
import pytest
from companies import RunningServer

from faceward.api.remembered import Remembered


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_all_who_ask_meanwhile_get_one_answer() -> None:
    free, asked = threading.Event(), []

    def ask() -> int:
        asked.append(1)
        assert free.wait(20)
        return len(asked)

    clock = Clock()

    async def scene() -> None:
        several = [asyncio.ensure_future(remembered()) for _ in range(50)]
        await asyncio.sleep(0.05)
        several[0].cancel()  # who leaves takes the answer from nobody
        free.set()
        assert await asyncio.gather(*several[1:]) == [1] * 49
        clock.now += 0.9
        assert await remembered() == 1
        clock.now += 0.2
        assert await remembered() == 2

    with contextlib.closing(Remembered(ask, 1.0, clock)) as remembered:
        asyncio.run(scene())


def test_what_went_wrong_is_not_remembered() -> None:
    answers = iter([1, 0, 2])

    def ask() -> float:
        return 1 / next(answers)

    clock = Clock()

    async def scene() -> None:
        assert await remembered() == 1.0
        clock.now += 2
        with pytest.raises(ZeroDivisionError):
            await remembered()
        assert await remembered() == 0.5

    with contextlib.closing(Remembered(ask, 1.0, clock)) as remembered:
        asyncio.run(scene())


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_a_balancer_may_ask_for_the_head_alone(running: RunningServer, path: str) -> None:
    answer = httpx.head(f"{running.url}{path}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert "x-request-id" in answer.headers
    assert httpx.head(f"{running.url}/v1/me").status_code == 405


def test_a_full_server_is_alive_ready_and_measured(running: RunningServer) -> None:
    """What runs it must be able to tell a busy server from one that is broken."""
    parts = running.app.state.parts
    pools = (parts.inference, parts.data)
    taken = [pool._capacity - pool._held for pool in pools]
    for pool, number in zip(pools, taken, strict=True):
        pool._held += number
    try:
        statuses = [httpx.get(f"{running.url}/{path}").status_code for path in ("healthz", "readyz", "metrics")]
    finally:
        for pool, number in zip(pools, taken, strict=True):
            pool._held -= number
    assert statuses == [200] * 3
