"""The bounded pool: what it refuses, drops and gives back."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from faceward.api.admission import ClientGoneError, WorkPool
from faceward.errors import DeadlineExceededError, OutcomeUnknownError, OverloadedError, RequestTooLargeError


@pytest.fixture
def pool() -> Iterator[WorkPool]:
    with contextlib.closing(WorkPool("test", threads=1, queue=1, seconds=5.0)) as pool:
        yield pool


async def until(state: Callable[[], bool]) -> None:
    while not state():
        await asyncio.sleep(0.005)


def test_what_a_full_pool_can_not_take_on_is_refused_at_once(pool: WorkPool) -> None:
    async def scene() -> None:
        free = threading.Event()
        held = [asyncio.ensure_future(pool.run(free.wait)) for _ in range(2)]
        await until(lambda: pool.waiting == 1)
        with pytest.raises(OverloadedError) as refused:
            await pool.run(free.wait)
        assert 1.0 <= refused.value.retry_after <= 30.0
        free.set()
        await asyncio.gather(*held)
        await until(lambda: pool.running == 0)
        assert await pool.run(lambda: "taken on again") == "taken on again"

    asyncio.run(scene())


def test_the_more_are_refused_the_later_they_may_come_again(pool: WorkPool) -> None:
    async def scene() -> list[float]:
        free = threading.Event()
        held = [asyncio.ensure_future(pool.run(free.wait)) for _ in range(2)]
        await until(lambda: pool.waiting == 1)
        waits = []
        for _ in range(200):
            with pytest.raises(OverloadedError) as refused:
                pool.check()
            waits.append(refused.value.retry_after)
        free.set()
        await asyncio.gather(*held)
        return waits

    waits = asyncio.run(scene())
    assert waits[0] <= 7.0 < sum(waits[-50:]) / 50
    assert len(set(waits)) > 100
    assert max(waits) <= 30.0


def test_work_whose_caller_has_gone_is_not_done(pool: WorkPool) -> None:
    async def scene() -> None:
        free, left, done = threading.Event(), asyncio.Event(), []
        first = asyncio.ensure_future(pool.run(free.wait))
        await until(lambda: pool.running == 1)

        async def gone() -> None:
            await left.wait()

        second = asyncio.ensure_future(pool.run(lambda: done.append(1), gone=gone))
        await until(lambda: pool.waiting == 1)
        left.set()
        with pytest.raises(ClientGoneError):
            await second
        await until(lambda: pool.waiting == 0)
        free.set()
        await first
        assert done == []

    asyncio.run(scene())


def test_a_caller_whose_body_can_not_be_taken_is_told_so_and_has_not_gone(pool: WorkPool) -> None:
    async def scene() -> None:
        free = threading.Event()

        async def gone() -> None:
            raise RequestTooLargeError("too large")

        with pytest.raises(RequestTooLargeError):
            await pool.run(lambda: free.wait(5), gone=gone)
        free.set()
        await until(lambda: pool.running == 0)

    asyncio.run(scene())


def test_work_that_waited_longer_than_its_time_is_not_done() -> None:
    async def scene() -> None:
        with contextlib.closing(WorkPool("test", threads=1, queue=5, seconds=0.05)) as pool:
            done: list[int] = []
            first = asyncio.ensure_future(pool.run(lambda: time.sleep(0.2)))
            second = asyncio.ensure_future(pool.run(lambda: done.append(1)))
            await first
            with pytest.raises(DeadlineExceededError):
                await second
            assert done == []

    asyncio.run(scene())


def test_who_waited_for_all_of_the_time_is_told_at_its_end_and_not_when_a_thread_comes_free() -> None:
    async def scene() -> None:
        with contextlib.closing(WorkPool("test", threads=1, queue=5, seconds=0.05)) as pool:
            free, done = threading.Event(), []
            first = asyncio.ensure_future(pool.run(lambda: free.wait(20)))
            await until(lambda: pool.running == 1)
            with pytest.raises(DeadlineExceededError):
                await pool.run(lambda: done.append(1), client_id="c")
            with pytest.raises(DeadlineExceededError):
                await pool.run(lambda: done.append(2), gone=asyncio.Event().wait)
            assert not first.done()  # its time is over too, and it goes on
            free.set()
            assert await first
            await until(lambda: pool.running == 0)
            assert done == []

    asyncio.run(scene())


def test_an_error_of_the_work_is_the_caller_s_and_frees_the_place(pool: WorkPool) -> None:
    async def scene() -> None:
        def fail() -> None:
            raise ValueError("of the work")

        for _ in range(5):
            with pytest.raises(ValueError, match="of the work"):
                await pool.run(fail)
        await until(lambda: pool.running == 0)

    asyncio.run(scene())


def test_one_client_leaves_half_of_the_queue_to_the_others() -> None:
    async def scene() -> None:
        with contextlib.closing(WorkPool("test", threads=1, queue=4, seconds=5.0)) as pool:
            free = threading.Event()
            held = [asyncio.ensure_future(pool.run(free.wait, client_id="loud")) for _ in range(3)]
            await until(lambda: pool.waiting == 2)
            with pytest.raises(OverloadedError, match="of this client"):
                await pool.run(free.wait, client_id="loud")
            held += [asyncio.ensure_future(pool.run(free.wait, client_id="quiet")) for _ in range(2)]
            await until(lambda: pool.waiting == 4)
            with pytest.raises(OverloadedError):
                pool.check("third")
            free.set()
            await asyncio.gather(*held)
            await until(lambda: pool.running == 0)
            pool.check("loud")

    asyncio.run(scene())


def test_one_client_never_has_all_threads() -> None:
    """Not even while nobody else asks: what has begun is not to be stopped when somebody does."""

    async def scene() -> None:
        with contextlib.closing(WorkPool("test", threads=3, queue=20, seconds=1.0)) as pool:
            free, done = threading.Event(), []
            held = [asyncio.ensure_future(pool.run(free.wait, client_id="loud")) for _ in range(4)]
            held += [asyncio.ensure_future(pool.run(lambda: done.append(1), client_id="loud"))]
            try:
                for name in ("quiet", "third", None):
                    assert await pool.run(lambda name=name: name, client_id=name) == name
                assert (pool.running, pool.waiting, done) == (2, 3, [])
            finally:
                free.set()
            await asyncio.gather(*held)  # each that ends makes room for the next one
            assert done == [1]
            await until(lambda: pool.running == 0)

    asyncio.run(scene())


def test_clients_take_turns() -> None:
    """Whoever comes behind many of one client waits for one of them."""
    done: list[str] = []

    async def scene() -> None:
        with contextlib.closing(WorkPool("test", threads=1, queue=20, seconds=5.0)) as pool:
            free = threading.Event()
            first = asyncio.ensure_future(pool.run(free.wait, client_id="loud"))
            await until(lambda: pool.running == 1)
            calls = (
                [("loud", f"loud {n}") for n in range(4)]
                + [("quiet", f"quiet {n}") for n in range(2)]
                + [(None, "own")]
            )
            held = [
                asyncio.ensure_future(pool.run(lambda name=name: done.append(name), client_id=client_id))
                for client_id, name in calls
            ]
            await until(lambda: pool.waiting == len(calls))
            free.set()
            await asyncio.gather(first, *held)

    asyncio.run(scene())
    assert done == ["own", "loud 0", "quiet 0", "loud 1", "quiet 1", "loud 2", "loud 3"]


def test_a_pool_that_closes_finishes_what_runs_and_cancels_what_waits(pool: WorkPool) -> None:
    async def scene() -> None:
        free = threading.Event()
        runs = asyncio.ensure_future(pool.run(lambda: free.wait(5), client_id="c"))
        await until(lambda: pool.running == 1)
        waits = asyncio.ensure_future(pool.run(lambda: None, client_id="c"))
        await until(lambda: pool.waiting == 1)
        closing = asyncio.ensure_future(asyncio.to_thread(pool.close))
        with pytest.raises(OverloadedError, match="shutting down"):
            await waits
        free.set()
        assert await runs
        await closing
        with pytest.raises(OverloadedError, match="shutting down"):
            await pool.run(lambda: None, client_id="c")

    asyncio.run(scene())


def test_a_request_that_the_server_s_end_cuts_off_hears_whether_its_work_may_be_done(pool: WorkPool) -> None:
    async def scene() -> None:
        free, done = threading.Event(), []
        gone = asyncio.Event().wait
        changes = asyncio.ensure_future(pool.run(lambda: done.append(free.wait(5)), changes=True, gone=gone))
        await until(lambda: pool.running == 1)
        waits = asyncio.ensure_future(pool.run(lambda: done.append("waited"), changes=True, gone=gone))
        await until(lambda: pool.waiting == 1)
        for each in (changes, waits):
            each.cancel()
        with pytest.raises(OutcomeUnknownError):
            await changes
        with pytest.raises(OverloadedError, match="shutting down"):
            await waits
        free.set()
        await until(lambda: pool.running == 0)
        assert done == [True]  # what had begun is done, what had not never is

    asyncio.run(scene())


def test_a_request_that_only_asks_is_just_sent_again(pool: WorkPool) -> None:
    async def scene() -> None:
        free = threading.Event()
        asks = asyncio.ensure_future(pool.run(lambda: free.wait(5)))
        await until(lambda: pool.running == 1)
        asks.cancel()
        with pytest.raises(OverloadedError, match="shutting down"):
            await asks
        free.set()

    asyncio.run(scene())
