"""How many embeddings a second does import-sqlite bring in, for each way in which old systems store them?

The whole import, against what bounds it in the same run: a bare COPY of the same rows as binary into a table of the same
columns without indexes, checks or row-level security, by two connections. Beside it what reading and checking alone take.
Everything on this machine: the importer, PostgreSQL and the file. Without the HNSW index, which a large import sets aside.
With one embedding a person, which is the most work for each, and with three.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import pickle
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg
from numpy.typing import NDArray

import faceward
from faceward.importers import RegionAssignment, SourceImport, SqliteSource, plan_import, run_import
from faceward.service import FaceService
from faceward.settings import load_settings
from faceward.store.bulk import NewPerson
from faceward.store.copy_rows import COPY, STAGING, copy_blocks
from faceward.store.embedded import EmbeddedServer
from galleries import Gallery
from plots import plot_bars
from report import options, scratch_server, show, wide_console, write_json


def npy(vector: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, vector)
    return stream.getvalue()


ENCODINGS: dict[str, Callable[[NDArray[np.float32]], object]] = {
    "raw float32": lambda v: v.tobytes(),
    ".npy": npy,
    "base64": lambda v: base64.b64encode(v.tobytes()).decode(),
    "raw float64": lambda v: v.astype("<f8").tobytes(),
    "pickled": pickle.dumps,
    "JSON of float32": lambda v: json.dumps([float(str(x)) for x in v]),
    "JSON of float64": lambda v: json.dumps(v.tolist()),
}


FACES_EACH = 1, 3


def write_file(path: Path, faces: int, each: int, encode: Callable[[NDArray[np.float32]], object]) -> None:
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("CREATE TABLE persons (id INTEGER PRIMARY KEY, name TEXT)")
        old.execute("CREATE TABLE face_encodings (id INTEGER PRIMARY KEY, person_id INTEGER, embedding)")
        old.executemany("INSERT INTO persons VALUES (?, ?)", ((n, f"Person {n}") for n in range(-(-faces // each))))
        rows = ((n // each, encode(vector)) for n, vector in enumerate(embeddings(faces)))
        old.executemany("INSERT INTO face_encodings (person_id, embedding) VALUES (?, ?)", rows)


def embeddings(faces: int) -> Iterator[NDArray[np.float32]]:
    for block in Gallery(faces).enrolled():
        yield from block[:faces]


def postmaster(server: EmbeddedServer) -> psutil.Process:
    return psutil.Process(int((server.pgdata / "postmaster.pid").read_text().split()[0]))


def bare_copy(url: str, faces: int) -> float:
    """Rows a second."""
    halves: list[list[bytes]] = []
    for half in (0, 1):
        rows = (
            (NewPerson(str(n), "A", f"Person {n}", ()), v) for n, v in enumerate(embeddings(faces)) if n % 2 == half
        )
        halves.append(list(copy_blocks(rows, lambda _: None)))
    table = STAGING.replace("TEMPORARY ", "").replace("ON COMMIT DROP", "")

    def copy(blocks: list[bytes]) -> None:
        with psycopg.connect(url) as connection, connection.cursor() as cursor, cursor.copy(COPY) as copying:
            for block in blocks:
                copying.write(block)

    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(table)
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(copy, halves))
    taken = time.perf_counter() - start
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("DROP TABLE import_staging")
        owner.execute("CHECKPOINT")  # or what is left of it is written while the import is timed
    return faces / taken


def measure(service: FaceService, path: Path, client: str, server: psutil.Process) -> dict[str, float]:
    wanted = SourceImport(RegionAssignment("A"), client_id=client, same_model=True)
    seconds, work = {}, {}
    for name in ("reading", "import", "again"):
        with SqliteSource(path) as source:
            start, worked = time.perf_counter(), processor_seconds(server)
            account = plan_import(wanted, source, 512) if name == "reading" else run_import(wanted, source, service)
            seconds[name] = time.perf_counter() - start
            work[name] = processor_seconds(server) - worked
    assert account.faces.present == account.faces.read
    faces = account.faces.read
    return {
        **{f"{name}_per_s": round(faces / taken) for name, taken in seconds.items()},
        **{f"{name}_cpu_us": round(work[name] / faces * 1e6, 1) for name in ("reading", "import")},
    }


def processor_seconds(server: psutil.Process) -> float:
    """Spent by this process and by PostgreSQL: what a rate can be on processors that nobody else uses."""
    spent = 0.0
    for process in (psutil.Process(), server, *server.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            spent += times.user + times.system
    return spent


def measured(server: EmbeddedServer, path: Path, faces: int) -> dict[str, float]:
    """One round, into a new database."""
    database = "imported"
    server.ensure_database(database)
    try:
        settings = load_settings(database={"url": server.url_of(database)}, search={"hnsw_index": False})
        with faceward.open_service(settings) as service:
            bound = bare_copy(server.url_of(database), faces)
            figures = measure(service, path, "bench", postmaster(server))
    finally:
        server.drop_database(database)
    peak = psutil.Process().memory_info().rss / 2**20
    return {
        **figures,
        "bare_copy_per_s": round(bound),
        "of_bare_copy": round(figures["import_per_s"] / bound, 3),
        "rss_mib": round(peak),
    }


def main() -> None:
    parser = options((__doc__ or "").partition("\n")[0])
    parser.add_argument("--faces", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, of which the medians are told")
    parser.add_argument("--encoding", choices=ENCODINGS, action="append", help="may be repeated; left out: all")
    arguments = parser.parse_args()
    faces = 5_000 if arguments.quick else arguments.faces
    rows: list[dict[str, Any]] = []
    wanted = [(name, each) for each in FACES_EACH for name in arguments.encoding or ENCODINGS]
    with scratch_server() as server, tempfile.TemporaryDirectory(prefix="faceward-bench-") as place:
        for name, each in wanted:
            path = Path(place) / "old.db"
            write_file(path, faces, each, ENCODINGS[name])
            os.sync()  # as an old file, which nobody is still writing to the disk
            rounds = [measured(server, path, faces) for _ in range(arguments.rounds)]
            path.unlink()
            figures = {figure: statistics.median(one[figure] for one in rounds) for figure in rounds[0]}
            rates = [round(one["import_per_s"]) for one in rounds]
            rows.append({"encoding": name, "faces_each": each, **figures, "slowest": min(rates), "fastest": max(rates)})
    columns = list(rows[0])
    show(
        wide_console(),
        f"{faces:,} embeddings",
        columns,
        [[row[name] for name in columns] for row in rows],
    )
    write_json(arguments.json, {"faces": faces, "rounds": arguments.rounds, "encodings": rows})
    bars = {row["encoding"]: row["import_per_s"] for row in rows if row["faces_each"] == 1}
    plot_bars(arguments.plot, "import-sqlite: embeddings a second", bars, "a second")


if __name__ == "__main__":
    main()
