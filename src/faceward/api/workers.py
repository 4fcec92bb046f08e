"""Several processes that serve one port, and the one above them that replaces those that die."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from faceward.api.metrics import MULTIPROCESS_DIRECTORY
from faceward.api.observation import LogLine
from faceward.api.opening import log_to
from faceward.api.serving import serve_here, until_stopped
from faceward.errors import FacewardError
from faceward.settings import Settings

_PAUSES = (0.5, 30.0)
_ENDING = (signal.SIGINT, signal.SIGTERM)
_MARGIN_SECONDS = 15.0
"""Beyond stop_seconds, for an import's batch under way and for closing what is open."""


class WorkerFailedError(FacewardError):
    """A worker process could not start; its words."""


def serve_by_workers(settings: Settings, listener: socket.socket, log: LogLine, on_started: Callable[[], None]) -> None:
    """Serve by api.workers processes until SIGINT or SIGTERM. on_started: called when the first of them answers.

    Raises WorkerFailedError where a worker of the start can't serve.
    """
    with _metrics_directory() as directory:
        api = settings.api.model_copy(update={"metrics_directory": directory})
        workers = _Workers(settings.model_copy(update={"api": api}), directory, listener, log, on_started)
        try:
            workers.run()
        finally:
            workers.stop()


@contextlib.contextmanager
def _metrics_directory() -> Iterator[Path]:
    """The workers' Prometheus client reads where it is from their environment, when it is imported."""
    with tempfile.TemporaryDirectory(prefix="faceward-metrics-") as directory:
        os.environ[MULTIPROCESS_DIRECTORY] = directory
        try:
            yield Path(directory)
        finally:
            del os.environ[MULTIPROCESS_DIRECTORY]


@dataclass(eq=False, slots=True)
class _Worker:
    """channel: brings None once it answers requests, or why it can't."""

    process: SpawnProcess
    channel: Connection
    ready: bool = False


class _Workers:
    def __init__(
        self,
        settings: Settings,
        directory: Path,
        listener: socket.socket,
        log: LogLine,
        on_started: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._listener = listener
        self._log = log
        self._on_started = on_started
        self._workers: list[_Worker] = []
        self._serving = False
        self._failures = 0
        self._start_at = 0.0

    def run(self) -> None:
        """Returns never; a signal ends it. Raises WorkerFailedError."""
        while True:
            while len(self._workers) < self._settings.api.workers and time.monotonic() >= self._start_at:
                self._start()
            news = [worker.channel for worker in self._workers if not worker.ready]
            ends = [worker.process.sentinel for worker in self._workers]
            missing = len(self._workers) < self._settings.api.workers
            wait([*news, *ends], max(0.0, self._start_at - time.monotonic()) if missing else None)
            for worker in list(self._workers):
                self._look(worker)

    def stop(self) -> None:
        """End all: what they are at is finished, for as long as the settings say."""
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)  # it is under way; until_stopped puts back what was before
        # First this end of the port: the last worker's end closes it, after those who have connected were taken on.
        self._listener.close()
        for worker in self._workers:
            worker.process.terminate()
        until = time.monotonic() + self._settings.api.stop_seconds + _MARGIN_SECONDS
        for worker in self._workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                self._log("worker", level="warning", state="killed", pid=worker.process.pid)
                worker.process.kill()
                worker.process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(self._settings, self._listener, theirs), name="faceward-worker")
        # Held back while there is a process that nobody knows of. It inherits that, and so hears SIGINT, which a terminal
        # sends to all, not at all, and SIGTERM once it can end cleanly.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        process.start()
        self._workers.append(_Worker(process, ours))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._log("worker", state="started", pid=process.pid)

    def _look(self, worker: _Worker) -> None:
        words = None
        if not worker.ready and worker.channel.poll():
            with contextlib.suppress(EOFError):
                words = worker.channel.recv()
                worker.ready = words is None
        if worker.ready and not self._serving:
            self._serving = True
            self._on_started()
        if worker.ready:
            self._failures = 0
        if words is None and worker.process.is_alive():
            return
        worker.process.join()
        self._workers.remove(worker)
        worker.channel.close()
        mark_process_dead(worker.process.pid, str(self._directory))
        self._log("worker", level="warning", state="died", pid=worker.process.pid, status=worker.process.exitcode)
        if worker.ready:
            return
        if not self._serving:
            raise WorkerFailedError(words or f"A worker process ended with status {worker.process.exitcode}.")
        # The database may be away: what was served once is served again when it is back.
        first, longest = _PAUSES
        self._start_at = time.monotonic() + min(longest, first * 2.0**self._failures)
        self._failures += 1


def _work(settings: Settings, listener: socket.socket, channel: Connection) -> None:
    """A worker process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with until_stopped(), channel:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        try:
            serve_here(settings, listener, log_to(sys.stderr), lambda: channel.send(None))
        except FacewardError as exc:
            channel.send(str(exc))
            sys.exit(1)


def _end_with_parent() -> None:
    """Where the process above is killed nobody would end this one."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker is started by another process"
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
