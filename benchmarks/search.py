"""Recall and latency of every search strategy against the size of a region, with the bounds beside them.

For each size a database of its own holds one region of synthetic people, drawn from the eigen-spectrum of real face
embeddings. Probes are new photos of enrolled people at a fixed similarity to the enrolled one. Recall@1 counts the probes
whose true nearest face (brute force over the float vectors) is above 0.40 and came back first.
"""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil
import psycopg
from numpy.typing import NDArray
from pgvector import Vector
from pgvector.psycopg import register_vector
from rich.console import Console
from rich.progress import Progress

import faceward
from faceward.retrieval import SketchKeeper
from faceward.settings import load_settings
from faceward.sketches import SketchCache, candidates_for, propose
from faceward.store.database import Database
from faceward.store.embedded import EmbeddedServer
from faceward.store.graph_index import GraphSettings
from faceward.store.schema import Schema
from faceward.store.scopes import ScopeReader
from faceward.store.search import FaceSearch, Graph
from faceward.store.watermarks import Watermark
from galleries import Gallery
from plots import plot_search
from report import machine, milliseconds, options, scratch_server, show, wide_console, write_rows

CLIENT, REGION = "bench", "A"
SIMILARITIES = (0.70, 0.58, 0.45)
COUNTED_FROM = 0.40
EF_SEARCH = (40, 100, 200, 400, 800)
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Probes:
    """similarity: to the enrolled photo. truth: position of the true nearest face; counted: whether it is above 0.40."""

    similarity: float
    rows: Rows
    truth: NDArray[np.int64]
    counted: NDArray[np.bool_]


class Bench:
    """One size: its database, service and probes, and the rows measured."""

    def __init__(self, console: Console, server: EmbeddedServer, faces: int, probes: int, progress: Progress) -> None:
        self.console = console
        self.faces = faces
        self.gallery = Gallery(faces)
        self.rows: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {"size": faces}
        self._progress = progress
        name = f"bench_{faces}"
        with psycopg.connect(server.url_of("postgres"), autocommit=True) as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        server.ensure_database(name)
        self.url = server.url_of(name)
        # The HNSW index comes later, so that what is measured first does not share memory with it.
        self.settings = load_settings(database={"url": self.url}, search={"hnsw_index": False})
        self.service = faceward.open_service(self.settings)
        self._fill()
        self.probes = [self._probes(similarity, probes) for similarity in SIMILARITIES]

    def close(self) -> None:
        self.service.close()

    # Preparation

    def _fill(self) -> None:
        task = self._progress.add_task(f"import {self.faces:,} faces", total=self.faces)
        start = time.perf_counter()
        self.service.import_embeddings(
            self._records(),
            client_id=CLIENT,
            progress=lambda report: self._progress.update(task, completed=report.persons),
        )
        self.facts["import_faces_per_s"] = round(self.faces / (time.perf_counter() - start))
        with psycopg.connect(self.url, autocommit=True) as owner:
            owner.execute("VACUUM ANALYZE")
            self.facts["database_bytes_per_face"] = round(
                owner.execute("SELECT pg_database_size(current_database())").fetchone()[0] / self.faces
            )
        self._progress.remove_task(task)

    def _records(self) -> Iterator[faceward.PersonRecord]:
        position = 0
        for block in self.gallery.enrolled():
            for embedding in block:
                yield faceward.PersonRecord(str(position), REGION, f"person {position}", embedding)
                position += 1

    def _probes(self, similarity: float, count: int) -> Probes:
        rows, _ = self.gallery.probes(count, similarity)
        best = np.full(count, -2.0, dtype=np.float32)
        truth = np.zeros(count, dtype=np.int64)
        offset = 0
        for block in self.gallery.enrolled():
            scores = rows @ block.T
            nearest = scores.argmax(axis=1)
            score = scores[np.arange(count), nearest]
            better = score > best
            best[better], truth[better] = score[better], nearest[better] + offset
            offset += len(block)
        return Probes(similarity, rows, truth, best > COUNTED_FROM)

    # Measuring

    def measure(
        self, method: str, search: Callable[[Rows], str | int | None], most: int | None = None, warm: int = 20
    ) -> None:
        """search: from one probe to the external id (or position) of the nearest face."""
        for probes in self.probes:
            rows = probes.rows[:most]
            task = self._progress.add_task(f"{self.faces:,} · {probes.similarity} · {method}", total=len(rows))
            for row in rows[:warm]:
                search(row)
            seconds, right, counted = [], 0, 0
            for row, truth, counts in zip(rows, probes.truth, probes.counted, strict=False):
                start = time.perf_counter()
                found = search(row)
                seconds.append(time.perf_counter() - start)
                counted += bool(counts)
                right += bool(counts) and found is not None and int(found) == int(truth)
                self._progress.advance(task)
            self._progress.remove_task(task)
            self.add(method, probes.similarity, right / counted if counted else None, seconds, counted)

    def add(self, method: str, similarity: float, recall: float | None, seconds: list[float], counted: int) -> None:
        self.rows.append(
            {
                "size": self.faces,
                "similarity": similarity,
                "method": method,
                "recall_at_1": None if recall is None else round(recall, 6),
                **milliseconds(seconds),
                "probes": len(seconds),
                "probes_counted": counted,
            }
        )

    def by(self, strategy: str) -> Callable[[Rows], str | None]:
        """Embedding in, typed matches out, as a caller sees it."""

        def search(row: Rows) -> str | None:
            found = self.service.search(
                row, region=REGION, client_id=CLIENT, threshold=COUNTED_FROM - 0.05, strategy=strategy
            )
            return found[0].external_id if found else None

        return search

    def sketched(self) -> None:
        """What a caller gets, and the memory it takes."""
        process = psutil.Process()
        gc.collect()
        before = process.memory_info().rss
        start = time.perf_counter()
        assert self.service.warm(REGION, client_id=CLIENT)
        self.facts["load_seconds"] = round(time.perf_counter() - start, 3)
        gc.collect()
        self.facts["memory_bytes_per_face"] = round((process.memory_info().rss - before) / self.faces, 1)
        self.measure("auto", self.by("auto"))
        self.measure("sketch", self.by("sketch"))

    def exact(self, most: int) -> None:
        """By SQL alone."""
        self.measure("exact", self.by("exact"), most)

    def bounds(self) -> None:
        """What no search around these parts can beat; the ratio of auto to scan + re-rank, each probe in turn."""
        with Database(self.url) as database, psycopg.connect(self.url, autocommit=True) as owner:
            register_vector(owner)
            cache: SketchCache[tuple[str, str], Watermark] = SketchCache(1 << 32)
            keeper = SketchKeeper(ScopeReader(database, self.service.model_id, 512), cache)
            entry = keeper.load((CLIENT, REGION))
            assert entry is not None
            sketch = entry.sketch
            most = candidates_for(self.faces)
            rerank = (
                "SELECT id FROM face_encodings WHERE client_id = %s AND id = ANY(%s) "
                "ORDER BY (embedding <=> %s) + 0 LIMIT 5"
            )
            owner.execute("SET enable_seqscan = off")
            ratios = []
            for probes in self.probes:
                scans, reranks, autos = [], [], []
                for row in probes.rows:
                    t0 = time.perf_counter()
                    sketch.search(row, most)
                    t1 = time.perf_counter()
                    ids = propose(sketch, row).ids.tolist()
                    t2 = time.perf_counter()
                    owner.execute(rerank, (CLIENT, ids, Vector(row)), prepare=True, binary=True).fetchall()
                    t3 = time.perf_counter()
                    self.service.search(row, region=REGION, client_id=CLIENT, threshold=COUNTED_FROM - 0.05)
                    t4 = time.perf_counter()
                    scans.append(t1 - t0)
                    reranks.append(t3 - t2)
                    autos.append(t4 - t3)
                self.add("bound: sketch scan", probes.similarity, None, scans, 0)
                self.add("bound: SQL re-rank", probes.similarity, None, reranks, 0)
                ratios.append(statistics.median(autos) / (statistics.median(scans) + statistics.median(reranks)))
            self.facts["auto_to_scan_and_rerank"] = [round(ratio, 3) for ratio in ratios]

    def flat(self, most: int) -> None:
        """FAISS over the float vectors in memory: exact, without a database, 2 KiB a face."""
        index = faiss.IndexFlatIP(512)
        for block in self.gallery.enrolled():
            index.add(block)
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        self.measure("bound: FAISS flat, in memory", lambda row: int(index.search(row[np.newaxis], 1)[1][0, 0]), most)
        faiss.omp_set_num_threads(threads)

    def graph(self, most: int) -> None:
        """pgvector's HNSW at the usual m = 16, ef_construction = 64, through the same statement and re-rank."""
        start = time.perf_counter()
        Schema(self.url).apply_graph(GraphSettings())
        self.facts["hnsw_build_seconds"] = round(time.perf_counter() - start, 1)
        with Database(self.url) as database:
            search = FaceSearch(database)

            def by(graph: Graph) -> Callable[[Rows], str | None]:
                def find(row: Rows) -> str | None:
                    (answer,) = search.search(CLIENT, [REGION], [row], [graph], model_id=self.service.model_id, top_k=1)
                    return answer.candidates[0].external_id if answer.candidates else None

                return find

            for ef_search in EF_SEARCH:
                self.measure(f"HNSW ef_search {ef_search}", by(Graph(40, ef_search, "off")), most)
            for order in ("relaxed_order", "strict_order"):
                self.measure(f"HNSW ef_search 40, iterative {order}", by(Graph(100, 40, order)), most)

    def throughput(self, seconds: float) -> None:
        """Searches a second by 1, 8 and 64 threads on this one region."""
        probes = self.probes[1]
        for threads in (1, 8, 64):
            durations: list[list[float]] = [[] for _ in range(threads)]
            errors: list[str] = []
            begin = time.perf_counter()
            workers = [
                threading.Thread(
                    target=self._search_until, args=(begin + seconds, probes.rows, number, durations[number], errors)
                )
                for number in range(threads)
            ]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            took = time.perf_counter() - begin
            done = [value for part in durations for value in part]
            self.add(f"auto, {threads} threads", probes.similarity, None, done, 0)
            self.rows[-1] |= {"searches_per_s": round(len(done) / took, 1), "errors": len(errors)}

    def _search_until(self, stop: float, rows: Rows, position: int, durations: list[float], errors: list[str]) -> None:
        while (start := time.perf_counter()) < stop:
            position += 31
            try:
                self.service.search(rows[position % len(rows)], region=REGION, client_id=CLIENT)
            except faceward.FacewardError as exc:
                errors.append(str(exc))
            durations.append(time.perf_counter() - start)


def main() -> None:
    parser = options((__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default="1000,10000,100000,1000000", help="faces of the region, comma separated")
    parser.add_argument("--probes", type=int, default=2000, help="for each similarity")
    parser.add_argument("--slow-probes", type=int, help="for exact SQL and FAISS flat at 300,000 faces and more")
    parser.add_argument(
        "--hnsw-up-to", type=int, default=100_000, help="largest size for which the HNSW index is built"
    )
    parser.add_argument("--directory", type=Path, help="keep the databases here instead of in a temporary directory")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    count, seconds = (200, 1.0) if arguments.quick else (arguments.probes, 5.0)
    rows: list[dict[str, Any]] = []
    facts: list[dict[str, Any]] = []
    console = wide_console()
    console.print(machine())
    with scratch_server(arguments.directory) as server, Progress(console=console, transient=True) as progress:
        for size in sizes:
            bench = Bench(console, server, size, count, progress)
            slow = min(count, arguments.slow_probes or count) if size >= 300_000 else count
            bench.sketched()
            bench.bounds()
            if size == 100_000 or (arguments.quick and size == max(sizes)):
                bench.throughput(seconds)
            bench.flat(slow)
            bench.exact(slow)
            if size <= arguments.hnsw_up_to:
                bench.graph(count)
            rows += bench.rows
            facts.append(bench.facts)
            bench.close()
            # After each size, so that an interrupted run has something to show.
            write_rows(arguments.json, [*rows, *({"method": "facts", **fact} for fact in facts)])
    show(
        console,
        "Recall@1 of probes with a true nearest similarity above 0.40, and latency of one search",
        ("method", "faces", "similarity", "recall@1", "p50 ms", "p95 ms", "probes"),
        [
            (
                row["method"],
                f"{row['size']:,}",
                f"{row['similarity']:.2f}",
                "" if row["recall_at_1"] is None else f"{row['recall_at_1']:.4f}",
                f"{row['p50_ms']:.2f}",
                f"{row['p95_ms']:.2f}",
                row["probes"],
            )
            for row in rows
        ],
    )
    names = list(dict.fromkeys(name for fact in facts for name in fact))
    show(console, "Each size", names, [[fact.get(name, "") for name in names] for fact in facts])
    threaded = [row for row in rows if "searches_per_s" in row]
    names = ["method", "searches_per_s", "p50_ms", "p95_ms", "p99_ms", "errors"]
    show(console, "Throughput of one region", names, [[row[name] for name in names] for row in threaded])
    if arguments.plot:
        plot_search(rows, arguments.plot, machine())


if __name__ == "__main__":
    main()
