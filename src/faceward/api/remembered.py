"""Answers for those who ask without a key, at a price that they can't raise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """What `ask` says, on a thread of its own, by one at a time, and at most once in so many seconds.

    Anybody may call for it, as often as he likes: whoever comes meanwhile gets the same answer, and takes no thread from
    the requests. Called on one event loop. seconds: as `clock` counts them, from when the answer came.
    """

    def __init__(self, ask: Callable[[], T], seconds: float, clock: Callable[[], float]) -> None:
        self._ask = ask
        self._seconds = seconds
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="faceward-operation")
        self._answer: tuple[T, float] | None = None
        self._asked: asyncio.Future[T] | None = None

    async def __call__(self) -> T:
        """Raises what `ask` raises."""
        if self._answer is not None and self._clock() < self._answer[1]:
            return self._answer[0]
        if self._asked is None:
            self._asked = asyncio.get_running_loop().run_in_executor(self._thread, self._ask)
            self._asked.add_done_callback(self._answered)
        # Shielded: one who leaves must not take the answer from the others that wait for it.
        return await asyncio.shield(self._asked)

    def _answered(self, done: asyncio.Future[T]) -> None:
        self._asked = None
        if not done.cancelled() and done.exception() is None:
            self._answer = done.result(), self._clock() + self._seconds

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
