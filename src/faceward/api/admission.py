"""Bounded pools of threads between the event loop and the synchronous core.

What waits is bounded, and what can't be taken on is refused at once: a caller that hears 503 with Retry-After can go
elsewhere, one that waits in an endless queue can't. A request whose caller has gone, or whose time is over, is dropped
before it is computed.
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from faceward.errors import DeadlineExceededError, OutcomeUnknownError, OverloadedError
from faceward.store.database import deadline

T = TypeVar("T")

_LONGEST_WAIT = 30.0
_TOO_LATE = "The request waited longer than its time. Try again in a second."
_SPREAD = 6.0
"""How much further than could just be answered those who were refused are spread: each that comes too early costs the
processor what would answer others. Measured with 1,000 callers on two cores: 2 leaves 81 % of the throughput of 50 callers,
6 leaves all of it.
"""


class ClientGoneError(Exception):
    """The caller closed the connection before there was an answer; nobody is left to be told."""


class ShuttingDownError(OverloadedError):
    """The server ends, and has not begun with this."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down. Try again in a second.")


class WorkPool:
    """Threads with a bounded queue in front of them. Its methods are called on one event loop.

    name: of its threads, and in what it refuses. threads: work done at once; one client has all of them but one, since work
    that takes long is not to be stopped when another client comes. queue: work that may wait; one client may have half of it,
    so that another always finds a place, and a free thread takes the work of the clients in turn, so that nobody waits
    behind all that another one sent. seconds: given to each request, waiting included.
    """

    def __init__(self, name: str, *, threads: int, queue: int, seconds: float) -> None:
        self.name = name
        self.threads = threads
        self._capacity = threads + queue
        self._at_once = max(1, threads - 1)
        self._most_of_one = self._at_once + -(-queue // 2)
        self._of_clients: Counter[str] = Counter()
        self._seconds = seconds
        self._turns = _Turns(self._at_once)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"faceward-{name}")
        self._held = 0
        self._done = _Rate()
        self._refused = _Rate()
        self._dice = random.Random()

    @property
    def waiting(self) -> int:
        return self._held - self.running

    @property
    def running(self) -> int:
        own = self._held - self._of_clients.total()
        return min(self.threads, own + sum(min(held, self._at_once) for held in self._of_clients.values()))

    def check(self, client_id: str | None = None) -> None:
        """Raise OverloadedError if nothing more can be taken on; asked before a body is read.

        client_id: whose work it is; None is the server's own, which only the whole queue bounds.
        """
        of_client = 0 if client_id is None else self._of_clients[client_id]
        if self._held < self._capacity and of_client < self._most_of_one:
            return
        now = time.monotonic()
        self._refused.count(now)
        whose = "of this client " if self._held < self._capacity else ""
        raise OverloadedError(
            f"The requests {whose}that wait or are under way are all that this server takes on. Try again after Retry-After.",
            retry_after=self._wait(now),
        )

    async def run(
        self,
        work: Callable[[], T],
        *,
        client_id: str | None = None,
        since: float | None = None,
        gone: Callable[[], Awaitable[None]] | None = None,
        changes: bool = False,
    ) -> T:
        """What `work` returns, done on a thread.

        client_id: as of `check`. since: the time.monotonic() from which on the seconds count. gone: returns when the caller has
        closed the connection; work that has not begun by then is not done. changes: whether something is changed by it, so
        that it matters whether it was done.

        Raises OverloadedError, DeadlineExceededError, ClientGoneError, and what `work` raises. To be cancelled is the server's
        end, and an answer too: ShuttingDownError, or OutcomeUnknownError where a change had begun, which goes on.
        """
        self.check(client_id)
        self._take(client_id)
        loop = asyncio.get_running_loop()
        until = (time.monotonic() if since is None else since) + self._seconds
        done: Future[T] = Future()
        self._turns.put(client_id, _Waiting(done, lambda: _within(until, work)))
        try:
            self._executor.submit(self._turns.take)
        except RuntimeError as exc:
            done.cancel()
            self._give_back(client_id)
            raise ShuttingDownError from exc
        done.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release, client_id))
        late = False

        def expire() -> None:
            nonlocal late
            late = done.cancel()  # what has begun is not to be stopped

        timer = loop.call_later(max(0.0, until - time.monotonic()), expire)
        try:
            return await (asyncio.wrap_future(done) if gone is None else _unless_gone(done, gone))
        except asyncio.CancelledError:
            if late:
                raise DeadlineExceededError(_TOO_LATE) from None
            if not done.cancel() and changes:
                raise OutcomeUnknownError("The server ended before this was done: it may be stored, or not.") from None
            raise ShuttingDownError from None
        finally:
            timer.cancel()

    def _take(self, client_id: str | None) -> None:
        self._held += 1
        if client_id is not None:
            self._of_clients[client_id] += 1

    def _give_back(self, client_id: str | None) -> None:
        self._held -= 1
        if client_id is not None:
            self._of_clients[client_id] -= 1
            if not self._of_clients[client_id]:
                del self._of_clients[client_id]

    def _release(self, client_id: str | None) -> None:
        self._give_back(client_id)
        self._done.count(time.monotonic())

    def _wait(self, now: float) -> float:
        """Seconds after which to come again: so many that those who were refused are spread over more than the time in
        which all of them could be answered, and never the same for two of them.
        """
        share = self._refused.at(now) / max(1.0, self._done.at(now))
        return self._dice.uniform(1.0, min(_LONGEST_WAIT, 1.0 + _SPREAD * share))

    def close(self) -> None:
        """Finish what runs; what waits is cancelled."""
        self._turns.cancel()
        self._executor.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """done: told what `work` returns or raises."""

    done: Future[Any]
    work: Callable[[], Any]

    def run(self) -> None:
        if not self.done.set_running_or_notify_cancel():
            return
        try:
            result = self.work()
        except BaseException as exc:  # noqa: BLE001 - it is raised where it is waited for
            self.done.set_exception(exc)
        else:
            self.done.set_result(result)


class _Turns:
    """Work that waits for a thread: that of one client in its order, and the clients in turn. The server's own is first.

    most: work of one client that is done at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._running: Counter[str | None] = Counter()
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str | None, deque[_Waiting]] = OrderedDict()

    def put(self, client_id: str | None, waiting: _Waiting) -> None:
        with self._lock:
            self._waiting.setdefault(client_id, deque()).append(waiting)
            if client_id is None:
                self._waiting.move_to_end(None, last=False)

    def take(self) -> None:
        """Do the work whose turn it is, and whatever has its turn after it: this client's next may have had to wait for it."""
        with self._lock:
            taken = self._next()
        while taken is not None:
            client_id, waiting = taken
            waiting.run()
            with self._lock:
                self._running[client_id] -= 1
                if not self._running[client_id]:
                    del self._running[client_id]
                taken = self._next()

    def _next(self) -> tuple[str | None, _Waiting] | None:
        """Taken off the queue, under the lock; None where nothing waits, or only of clients that have their most."""
        for client_id in self._waiting:
            if client_id is None or self._running[client_id] < self._most:
                break
        else:
            return None
        own = self._waiting.pop(client_id)
        waiting = own.popleft()
        if own:
            self._waiting[client_id] = own
            if client_id is None:
                self._waiting.move_to_end(None, last=False)
        self._running[client_id] += 1
        return client_id, waiting

    def cancel(self) -> None:
        with self._lock:
            left = [waiting for own in self._waiting.values() for waiting in own]
            self._waiting.clear()
        for waiting in left:
            waiting.done.cancel()


class _Rate:
    """Events of about the last second."""

    def __init__(self) -> None:
        self._count = 0.0
        self._at = 0.0

    def count(self, now: float) -> None:
        self._count = self.at(now) + 1.0
        self._at = now

    def at(self, now: float) -> float:
        return self._count * math.exp(self._at - now)


def _within(until: float, work: Callable[[], T]) -> T:
    left = until - time.monotonic()
    if left <= 0:
        raise DeadlineExceededError(_TOO_LATE)
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
        leaving.result()  # not gone, but what still came of its body can't be taken: the caller is to hear of that
        raise ClientGoneError
    finally:
        answer.cancel()  # of what goes on at the server's end nobody takes it
        leaving.cancel()
