"""Bounded pools of threads between the event loop and the synchronous core.

What waits is bounded, and what can't be taken on is refused at once: a caller that hears 503 with Retry-After can go
elsewhere, one that waits in an endless queue can't. A request whose caller has gone, or whose time is over, is dropped
before it is computed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from faceward.errors import DeadlineExceededError, OverloadedError
from faceward.store.database import deadline

T = TypeVar("T")


class ClientGoneError(Exception):
    """The caller closed the connection before there was an answer; nobody is left to be told."""


class WorkPool:
    """Threads with a bounded queue in front of them. Its methods are called on one event loop.

    name: of its threads, and in what it refuses. threads: work done at once. queue: work that may wait. seconds: given to
    each request, waiting included.
    """

    def __init__(self, name: str, *, threads: int, queue: int, seconds: float) -> None:
        self.name = name
        self.threads = threads
        self._capacity = threads + queue
        self._seconds = seconds
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"faceward-{name}")
        self._held = 0

    @property
    def waiting(self) -> int:
        return max(0, self._held - self.threads)

    @property
    def running(self) -> int:
        return min(self._held, self.threads)

    def check(self) -> None:
        """Raise OverloadedError if nothing more can be taken on; asked before a body is read."""
        if self._held >= self._capacity:
            raise OverloadedError(
                f"{self._held} requests are waiting or under way, as many as this server takes on. Try again in a second."
            )

    async def run(
        self,
        work: Callable[[], T],
        *,
        since: float | None = None,
        gone: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        """What `work` returns, done on a thread.

        since: the time.monotonic() from which on the seconds count. gone: returns when the caller has closed the
        connection; work that has not begun by then is not done.

        Raises OverloadedError, DeadlineExceededError, ClientGoneError, and what `work` raises.
        """
        self.check()
        self._held += 1
        loop = asyncio.get_running_loop()
        until = (time.monotonic() if since is None else since) + self._seconds
        try:
            done = self._executor.submit(_within, until, work)
        except RuntimeError as exc:
            self._held -= 1
            raise OverloadedError("The server is shutting down. Try again in a second.") from exc
        done.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))
        if gone is None:
            return await asyncio.wrap_future(done)
        return await _unless_gone(done, gone)

    def _release(self) -> None:
        self._held -= 1

    def close(self) -> None:
        """Finish what runs."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def _within(until: float, work: Callable[[], T]) -> T:
    left = until - time.monotonic()
    if left <= 0:
        raise DeadlineExceededError("The request waited longer than its time. Try again in a second.")
    with deadline(left):
        return work()


async def _unless_gone(done: Future[T], gone: Callable[[], Awaitable[None]]) -> T:
    answer = asyncio.wrap_future(done)
    leaving = asyncio.ensure_future(gone())
    try:
        await asyncio.wait((answer, leaving), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        answer.cancel()  # on its way to a thread it is dropped; on a thread it ends there, and holds its place until then
        raise ClientGoneError
    finally:
        leaving.cancel()
