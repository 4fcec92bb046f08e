"""What the service tells Prometheus. No label names a client, a region or a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

MULTIPROCESS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""Where several worker processes of one server share their figures; the Prometheus client reads it when it is imported."""

_Mode: TypeAlias = Literal["livesum", "livemax", "livemostrecent"]

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """The figures of one process, or of all workers of a server where they share a directory.

    shared: the directory of MULTIPROCESS_DIRECTORY, or None.
    """

    def __init__(self, shared: str | None = None) -> None:
        self._shared = shared
        self._registry = CollectorRegistry()
        registry = None if shared else self._registry
        self.requests = Counter(
            "faceward_requests_total", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "faceward_request_seconds", "Seconds of a request.", ("route",), buckets=_SECONDS, registry=registry
        )
        self.stage_seconds = Histogram(
            "faceward_stage_seconds",
            "Seconds of a stage of recognition.",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.faces = Counter("faceward_faces_total", "Faces decided on.", ("decision",), registry=registry)
        self._gauges = {
            name: Gauge(
                f"faceward_{name}", text, labels, registry=registry, multiprocess_mode=_OF_WORKERS.get(name, "livesum")
            )
            for name, (text, labels) in _GAUGES.items()
        }

    def stage(self, name: str, seconds: float) -> None:
        self.stage_seconds.labels(name).observe(seconds)

    def set(self, name: str, values: Mapping[str, float]) -> None:
        """Set a gauge, one value for each label; the label "" is that of a gauge without one."""
        gauge = self._gauges[name]
        for label, value in values.items():
            (gauge.labels(label) if label else gauge).set(value)

    def page(self) -> bytes:
        """As Prometheus reads it."""
        if self._shared is None:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, self._shared)
        return generate_latest(registry)


_GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "pool_waiting": ("Requests that wait for a thread.", ("pool",)),
    "pool_running": ("Requests that a thread works on.", ("pool",)),
    "database_connections": ("Connections to the database.", ("state",)),
    "sketch_bytes": ("Memory of the sketches.", ()),
    "sketch_faces": ("Faces in the sketches.", ()),
    "sketch_scopes": ("Regions whose sketch is in memory.", ()),
    "sketch_oldest_seconds": (
        "Seconds since the least fresh sketch in use was read; its searches also read all newer rows.",
        (),
    ),
    "recall": ("Recall@1 of the last audit.", ("strategy",)),
    "recall_lower": ("Lower end of the recall's 95 % interval.", ("strategy",)),
    "recall_upper": ("Upper end of the recall's 95 % interval.", ("strategy",)),
    "decisions_waiting": ("Decisions that wait to be written to their log.", ()),
    "decisions_written": ("Decisions written since the start.", ()),
    "decisions_lost": ("Decisions that could not be written since the start, as in a long outage of the database.", ()),
    "jobs_running": ("Imports under way.", ()),
}

_OF_WORKERS: Mapping[str, _Mode] = {
    "sketch_oldest_seconds": "livemax",
    "recall": "livemostrecent",
    "recall_lower": "livemostrecent",
    "recall_upper": "livemostrecent",
}
"""How the gauges of several workers become one; left out: their sum."""
