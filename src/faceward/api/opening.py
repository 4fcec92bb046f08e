"""Opens the parts of the service from settings."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from typing import TextIO

import structlog
from fastapi import FastAPI

from faceward.api.admission import WorkPool
from faceward.api.app import AppSettings, create_app
from faceward.api.authentication import Authenticator
from faceward.api.bodies import BodySettings
from faceward.api.metrics import Metrics
from faceward.api.observation import LogLine
from faceward.api.parts import ApiParts
from faceward.api.rate_limit import RateLimiter
from faceward.errors import ModelError, StoreError
from faceward.factory import Parts, open_parts
from faceward.settings import Settings, load_settings
from faceward.store.schema import check_database


def build_app(settings: Settings) -> FastAPI:
    """The application on the database and models of the settings. Raises SettingsError, ModelError, StoreError."""
    given = settings.api
    threads = settings.model.threads or max(1, (os.cpu_count() or 1) // given.workers)
    with ExitStack() as opened:
        core = open_parts(_with_threads(settings, threads))
        opened.callback(core.close)
        inference = WorkPool("inference", threads=threads + _AHEAD, queue=given.queue, seconds=given.deadline)
        opened.callback(inference.close)
        data = WorkPool("data", threads=given.data_threads, queue=8 * given.queue, seconds=given.deadline)
        opened.callback(data.close)
        metrics = Metrics(None if given.metrics_directory is None else str(given.metrics_directory))
        parts = ApiParts(
            service=core.service,
            administration=core.administration,
            imports=core.imports,
            authenticator=Authenticator(core.administration, data, time.monotonic),
            limiter=RateLimiter(given.rate_limit, share=1 / given.workers, clock=time.monotonic),
            inference=inference,
            data=data,
            metrics=metrics,
            checks=lambda: readiness(core),
            gauges=lambda: refresh(metrics, core, inference, data),
        )
        core.runner.start()
        return create_app(
            parts,
            AppSettings(
                bodies=BodySettings(given.max_body, given.max_import, given.max_held, given.body_seconds),
                origins=given.cors_origins,
                tls=given.tls_certificate is not None,
            ),
            log_to(sys.stderr),
            opened.pop_all().close,
        )


_AHEAD = 1
"""Threads beyond the images worked on at once: while one waits for the database another has its image computed."""


def readiness(core: Parts) -> dict[str, str]:
    """What the service needs, each "ok" or the code of what is wrong."""
    try:
        check_database(core.database, core.manifest.model_id, core.manifest.embedding.dimension)
    except (StoreError, ModelError) as exc:
        return {"database": exc.code, "models": "ok"}
    return {"database": "ok", "models": "ok"}


def refresh(metrics: Metrics, core: Parts, *pools: WorkPool) -> None:
    """Set the gauges to what is so now."""
    metrics.set("pool_waiting", {pool.name: pool.waiting for pool in pools})
    metrics.set("pool_running", {pool.name: pool.running for pool in pools})
    metrics.set("database_connections", core.database.pool_status())
    metrics.set("jobs_running", {"": core.runner.running})
    sketches = [entry for _, entry in core.sketches.cache.entries()]
    metrics.set("sketch_bytes", {"": sum(entry.sketch.nbytes for entry in sketches)})
    metrics.set("sketch_faces", {"": sum(len(entry.sketch) for entry in sketches)})
    metrics.set("sketch_scopes", {"": len(sketches)})
    now = time.monotonic()
    metrics.set("sketch_oldest_seconds", {"": max((now - entry.loaded_at for entry in sketches), default=0.0)})


def log_to(stream: TextIO) -> LogLine:
    """A line of JSON for each event."""
    logger = structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
    )
    return logger.info  # type: ignore[no-any-return]


def _with_threads(settings: Settings, threads: int) -> Settings:
    return settings.model_copy(update={"model": settings.model.model_copy(update={"threads": threads})})


def worker_app() -> FastAPI:
    """The application of one of several worker processes, which inherit the settings in their environment."""
    return build_app(load_settings())
