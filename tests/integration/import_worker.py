"""A process that runs imports until it is killed: import_worker.py CONFIG [die-after-storing]."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import NoReturn

from faceward.factory import open_parts
from faceward.jobs import JobRunner, RunnerSettings
from faceward.settings import load_settings
from faceward.store.job_queue import JobQueue
from faceward.store.jobs import JobStore
from faceward.store.presence import Presence

LEASE = 1.0


class DyingQueue(JobQueue):
    """Its process ends when a batch is stored and not yet reported."""

    def report(self, *_: object) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def main(config: str, how: str = "") -> None:
    with open_parts(load_settings(config)) as parts:
        kind = DyingQueue if how == "die-after-storing" else JobQueue
        queue = kind(parts.database, JobStore(parts.database), lease=LEASE)
        runner = JobRunner(parts.service, queue, Presence(parts.database), RunnerSettings(poll_seconds=0.05))
        runner.start()
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
