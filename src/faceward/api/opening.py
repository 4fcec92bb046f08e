"""Opens the parts of the service from settings."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from typing import Any, TextIO

import structlog
from fastapi import FastAPI

from faceward.api.admission import WorkPool
from faceward.api.app import AppSettings, create_app
from faceward.api.authentication import Authenticator
from faceward.api.bodies import BodySettings
from faceward.api.metrics import Metrics
from faceward.api.observation import LogLine
from faceward.api.parts import ApiParts
from faceward.api.periodic import Periodic
from faceward.api.purge_watch import PurgeWatch
from faceward.api.rate_limit import RateLimiter
from faceward.api.recall_watch import RecallWatch
from faceward.api.remembered import Remembered
from faceward.factory import Parts, open_parts
from faceward.settings import Settings
from faceward.store.database import deadline


def build_app(settings: Settings) -> FastAPI:
    """The application on the database and models of the settings. Raises SettingsError, ModelError, StoreError."""
    given = settings.api
    threads = settings.model.threads or max(1, (os.cpu_count() or 1) // given.workers)
    with ExitStack() as opened:
        core = open_parts(_with_threads(settings, threads))
        opened.callback(core.close)
        at_once = threads + _AHEAD + _OF_OTHERS
        inference = WorkPool("inference", threads=at_once, queue=given.queue, seconds=given.deadline)
        opened.callback(inference.close)
        data = WorkPool("data", threads=given.data_threads, queue=8 * given.queue, seconds=given.deadline)
        opened.callback(data.close)
        long = WorkPool("long", threads=_LONG_THREADS, queue=given.queue, seconds=given.long_deadline)
        opened.callback(long.close)
        strangers = WorkPool("strangers", threads=_OF_STRANGERS, queue=8 * given.queue, seconds=given.deadline)
        opened.callback(strangers.close)
        metrics = Metrics(None if given.metrics_directory is None else str(given.metrics_directory))

        def gauges() -> None:
            refresh(metrics, core, inference, data, long, strangers)

        def page() -> bytes:
            gauges()
            return metrics.page()

        def checks() -> dict[str, str]:
            with deadline(_CHECK_SECONDS):
                return core.checks()

        readiness = Remembered(checks, _READY_SECONDS, time.monotonic)
        opened.callback(readiness.close)
        figures = Remembered(page, _PAGE_SECONDS, time.monotonic)
        opened.callback(figures.close)
        parts = ApiParts(
            service=core.service,
            administration=core.administration,
            imports=core.imports,
            authenticator=Authenticator(core.administration, data, strangers, time.monotonic),
            journal=core.journal,
            limiter=RateLimiter(given.rate_limit, share=1 / given.workers, clock=time.monotonic),
            inference=inference,
            data=data,
            long=long,
            metrics=metrics,
            checks=readiness,
            page=figures,
        )
        log = log_to(sys.stderr)
        recall = RecallWatch(lambda: core.audit, lambda: [scope for scope, _ in core.sketches.cache.entries()], metrics)
        purge = PurgeWatch(core.service, core.administration, log)
        background = [
            Periodic("recall audit", recall.look, log, seconds=given.audit_seconds),
            Periodic("purge", purge.look, log, seconds=settings.retention.purge_seconds),
            Periodic(
                "log retention", core.journal.expire, log, seconds=_RETENTION_SECONDS, first=_RETENTION_SECONDS / 10
            ),
        ]
        if given.metrics_directory is not None:
            # A worker that nobody asks for its figures still has those of now among the ones that another shows for all.
            background.append(Periodic("gauges", lambda _: gauges(), log, seconds=1.0))
        for each in background:
            opened.callback(each.close)
            each.start()
        core.runner.start()
        return create_app(
            parts,
            AppSettings(
                bodies=BodySettings(given.max_body, given.max_import, given.max_held, given.body_seconds),
                origins=given.cors_origins,
                tls=given.tls_certificate is not None,
            ),
            log,
            opened.pop_all().close,
        )


_READY_SECONDS = 1.0
_CHECK_SECONDS = 10.0
"""After which a database that does not answer counts as away."""
_PAGE_SECONDS = 0.2
_RETENTION_SECONDS = 3600.0
_LONG_THREADS = 3
_OF_STRANGERS = 2
"""Threads that look for keys that were not seen before."""
_AHEAD = 1
"""Threads beyond the images worked on at once: while one waits for the database another has its image computed."""
_OF_OTHERS = 1
"""The thread that one client is never given: whoever is alone has as many as are of use."""


def refresh(metrics: Metrics, core: Parts, *pools: WorkPool) -> None:
    """Set the gauges to what is so now."""
    metrics.set("pool_waiting", {pool.name: pool.waiting for pool in pools})
    metrics.set("pool_running", {pool.name: pool.running for pool in pools})
    metrics.set("database_connections", core.database.pool_status())
    if core.decisions is not None:
        metrics.set("decisions_waiting", {"": core.decisions.waiting})
        metrics.set("decisions_written", {"": core.decisions.written})
        metrics.set("decisions_lost", {"": core.decisions.lost})
    metrics.set("jobs_running", {"": core.runner.running})
    sketches = [entry for _, entry in core.sketches.cache.entries()]
    metrics.set("sketch_bytes", {"": sum(entry.sketch.nbytes for entry in sketches)})
    metrics.set("sketch_faces", {"": sum(len(entry.sketch) for entry in sketches)})
    metrics.set("sketch_scopes", {"": len(sketches)})
    metrics.set("sketch_oldest_seconds", {"": core.sketches.oldest_seconds()})


def log_to(stream: TextIO) -> LogLine:
    """A line of JSON for each event, of the level info where the event names none."""
    logger = structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
    )

    def line(event: str, *, level: str = "info", **fields: Any) -> None:
        getattr(logger, level)(event, **fields)

    return line


def _with_threads(settings: Settings, threads: int) -> Settings:
    return settings.model_copy(update={"model": settings.model.model_copy(update={"threads": threads})})
