"""Runs imports in the background, on threads of its own, beside as many others on other machines as there are."""

from __future__ import annotations

import contextlib
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from faceward.actors import acting_as
from faceward.errors import (
    BusyError,
    ConflictError,
    DatabaseFullError,
    DatabaseUnavailableError,
    FacewardError,
    JobLostError,
    ModelMismatchError,
    OverloadedError,
    PoolExhaustedError,
    StoreError,
)
from faceward.jobs.archive import Archive, ArchiveLimits
from faceward.jobs.batches import BatchStore, batches
from faceward.jobs.embedding_lines import EmbeddingLines, LineLimits
from faceward.jobs.set_aside import LargeImport, SetAside
from faceward.service import FaceService
from faceward.store.job_queue import JobProgress, JobQueue
from faceward.store.presence import Presence
from faceward.types import Job

_OUTAGES = (DatabaseUnavailableError, PoolExhaustedError, DatabaseFullError)
_MOST_ATTEMPTS = 10
_SWEEP_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """threads: jobs run at once, 0 for none. photo_workers: photos analysed at once in each. poll_seconds: between looks
    for work. retry_seconds: the first and the longest pause after a failure of the database. photos_at_once,
    lines_at_once: of a batch. spool: a directory for uploads under way; None takes the system's. large_from: faces of one
    import from which on `large_import` is asked.
    """

    threads: int = 1
    photo_workers: int = 1
    poll_seconds: float = 1.0
    retry_seconds: tuple[float, float] = (0.2, 30.0)
    photos_at_once: int = 64
    lines_at_once: int = 500
    large_from: int = 20_000
    spool: Path | None = None
    archives: ArchiveLimits = field(default_factory=ArchiveLimits)
    lines: LineLimits = field(default_factory=LineLimits)


class JobRunner:
    """Takes jobs from the queue and runs them, until close().

    A job is taken up where its last report left it. What the database refuses for the moment is tried again, with growing
    pauses, as long as the job is this runner's. large_import: as of SetAside; left once the job is over or given back.
    """

    def __init__(
        self,
        service: FaceService,
        queue: JobQueue,
        presence: Presence,
        settings: RunnerSettings | None = None,
        *,
        large_import: LargeImport | None = None,
    ) -> None:
        self._service = service
        self._queue = queue
        self._presence = presence
        self._settings = settings or RunnerSettings()
        self._large_import = large_import
        self._stopping = threading.Event()
        self._work = threading.Condition()
        self._news = 0
        self._running = 0
        self._threads: dict[int, threading.Thread] = {}
        self._swept: float | None = None
        self._jitter = random.Random()
        self.last_error: StoreError | None = None

    def start(self) -> None:
        """Begin to look for work."""
        for number in range(self._settings.threads):
            self._start_thread(number, failures=0)

    def close(self) -> None:
        """Stop after the batches under way; their jobs are given back, for another process to go on at once."""
        self._stopping.set()
        self.wake()
        while self._threads:
            _, thread = self._threads.popitem()
            thread.join()

    def wake(self) -> None:
        """There is work: don't wait for the next look."""
        with self._work:
            self._news += 1
            self._work.notify_all()

    @property
    def alive(self) -> bool:
        """Whether it looks for work, or is at it."""
        return not self._stopping.is_set() and any(thread.is_alive() for thread in self._threads.values())

    @property
    def running(self) -> int:
        """Jobs under way in this process."""
        return self._running

    def run_next(self) -> bool:
        """Run one job on this thread, if there is one; False where there is none. Raises StoreError where it can't look."""
        self._sweep()
        job = self._queue.claim()
        if job is None:
            return False
        with self._work:
            self._running += 1
        try:
            with (
                acting_as(f"import:{job.id}"),
                SetAside(self._large_import, self._settings.large_from) as aside,
            ):
                _JobRun(self._service, self._queue, self._presence, self._settings, job, self._stopping, aside).run()
        finally:
            with self._work:
                self._running -= 1
        return True

    def _start_thread(self, number: int, failures: int) -> None:
        thread = threading.Thread(
            target=self._run, args=(number, failures), name=f"faceward-imports-{number}", daemon=True
        )
        self._threads[number] = thread
        thread.start()

    def _run(self, number: int, failures: int) -> None:
        ended = False
        try:
            self._loop(failures)
            ended = True
        finally:
            # What nobody foresaw is told by threading's own hook; the work goes on with another thread.
            if not ended and not self._stopping.is_set():
                self._start_thread(number, failures + 1)

    def _loop(self, failures: int) -> None:
        while not self._stopping.is_set():
            if failures:
                self._wait(_pause(self._settings, failures, self._jitter), None)
            news = self._news
            try:
                found = self.run_next()
            except StoreError as exc:
                self.last_error = exc
                failures += 1
                continue
            self.last_error, failures = None, 0
            if not found:
                self._wait(self._settings.poll_seconds * self._jitter.uniform(0.8, 1.2), news)

    def _wait(self, seconds: float, news: int | None) -> None:
        """Until the time is over, or there is news since then."""
        until = time.monotonic() + seconds
        with self._work:
            while not self._stopping.is_set() and news in (None, self._news):
                left = until - time.monotonic()
                if left <= 0:
                    return
                self._work.wait(left)

    def _sweep(self) -> None:
        now = time.monotonic()
        if self._swept is not None and now - self._swept < _SWEEP_SECONDS:
            return
        self._swept = now
        self._queue.sweep()


class _ClosingError(Exception):
    """The runner is closing."""


class _JobRun:
    """One job, from its claim to its end or to the runner's."""

    def __init__(
        self,
        service: FaceService,
        queue: JobQueue,
        presence: Presence,
        settings: RunnerSettings,
        job: Job,
        stopping: threading.Event,
        aside: SetAside,
    ) -> None:
        self._service = service
        self._queue = queue
        self._settings = settings
        self._job = job
        self._stopping = stopping
        self._aside = aside
        self._batches = BatchStore(service, queue, presence, job, photo_workers=settings.photo_workers)
        self._renew_at = 0.0
        self._jitter = random.Random()

    def run(self) -> None:
        """Returns once the job is over, given back or lost. What nobody foresaw is raised; the lease runs out then, and
        another worker tries.
        """
        failures, done = 0, -1
        while not self._stopping.is_set():
            try:
                self._attempt()
            except JobLostError:
                return
            except _ClosingError:
                break
            except (StoreError, BusyError, OverloadedError) as exc:
                failures = 1 if self._job.done > done else failures + 1
                done = self._job.done
                if failures >= _MOST_ATTEMPTS and not isinstance(exc, _OUTAGES):
                    self._fail(exc)
                    return
                self._stopping.wait(_pause(self._settings, failures, self._jitter))
            except FacewardError as exc:
                self._fail(exc)
                return
            else:
                return
        self._give_back()

    def _attempt(self) -> None:
        self._job = self._queue.reload(self._job)
        with self._payload() as file:
            reader = self._reader(file)
            if self._job.total is None:
                self._queue.renew(self._job, total=reader.count())
                self._job = self._queue.reload(self._job)
            intent = self._queue.intent(self._job)
            begun = progress = JobProgress.of(self._job)
            until = None if intent is None else intent.until
            most = self._settings.photos_at_once if self._job.kind == "archive" else self._settings.lines_at_once
            for batch in batches(reader.items(progress.done), most, until):
                self._tick()
                progress = self._batches.store(batch, progress, intent)
                intent = None
                self._consider(begun, progress)
        self._finish(progress)

    def _consider(self, begun: JobProgress, progress: JobProgress) -> None:
        if self._job.total is not None:
            read, stored = progress.done - begun.done, progress.stored_faces - begun.stored_faces
            self._aside.consider(read=read, stored=stored, left=self._job.total - progress.done)

    def _reader(self, file: BinaryIO) -> Archive | EmbeddingLines:
        if self._job.kind == "archive":
            return Archive(file, self._settings.archives, tick=self._tick)
        made_by = self._job.options.get("model_id", self._service.model_id)
        if made_by != self._service.model_id:
            raise ModelMismatchError(
                f"The embeddings were made by the model {made_by}; this service's is {self._service.model_id}. They can't "
                "be compared. Send the photos instead."
            )
        return EmbeddingLines(file, self._service.dimension, self._settings.lines, tick=self._tick)

    @contextlib.contextmanager
    def _payload(self) -> Iterator[BinaryIO]:
        with contextlib.ExitStack() as opened:
            try:
                file = opened.enter_context(tempfile.TemporaryFile(prefix="faceward-import-", dir=self._settings.spool))
                for piece in self._queue.payload(self._job):
                    self._tick()
                    file.write(piece)
                file.seek(0)
            except OSError as exc:
                raise OverloadedError(
                    f"The upload of {self._job.bytes} bytes can't be kept while it is imported: {exc.strerror}. Make room "
                    "in the directory of imports.spool, and send it again."
                ) from exc
            yield file

    def _tick(self) -> None:
        """Keep the lease, or stop where the runner closes."""
        if self._stopping.is_set():
            raise _ClosingError
        now = time.monotonic()
        if now >= self._renew_at:
            self._renew_at = now + self._queue.lease / 4
            self._queue.renew(self._job)

    def _finish(self, progress: JobProgress) -> None:
        if not progress.refused:
            self._queue.finish(self._job, "succeeded")
        elif progress.stored_faces or progress.skipped:
            self._queue.finish(self._job, "partial")
        else:
            message = f"None of the {progress.refused} items could be stored; the list of refusals says why for each."
            self._queue.finish(self._job, "failed", error_code="nothing_stored", message=message)

    def _fail(self, error: FacewardError) -> None:
        # Where the database can't hear it, the lease runs out, and the next worker says the same.
        with contextlib.suppress(StoreError, ConflictError):
            self._queue.finish(self._job, "failed", error_code=error.code, message=str(error))

    def _give_back(self) -> None:
        with contextlib.suppress(StoreError, ConflictError):
            self._queue.release(self._job)


def _pause(settings: RunnerSettings, failures: int, jitter: random.Random) -> float:
    first, longest = settings.retry_seconds
    return min(longest, first * 2.0 ** min(failures - 1, 20)) * jitter.uniform(0.5, 1.0)
