"""Does the exact search stay an index-only scan while people are enrolled? With the table's autovacuum settings, and without.

An index-only scan looks up each row that vacuum has not marked visible. A region of 100,000 faces is filled; then people are
enrolled in batches, as during a busy day, with pauses as long as the server's autovacuum needs to look; each round tells the
rows looked up and the latency of the exact search's first stage.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import psycopg
from numpy.typing import NDArray
from pgvector import Vector
from pgvector.psycopg import register_vector

import faceward
from faceward.settings import load_settings
from faceward.sketches import LOWEST_SIMILARITY, hamming_bound
from faceward.store.embedded import EmbeddedServer
from faceward.store.search import SignBits
from galleries import Gallery
from plots import plot_bars
from report import options, scratch_server, show, wide_console, write_json

CLIENT, REGION = "bench", "A"
SETTINGS = (
    "autovacuum_vacuum_insert_threshold",
    "autovacuum_vacuum_insert_scale_factor",
    "autovacuum_vacuum_scale_factor",
    "autovacuum_analyze_scale_factor",
)


def records(embeddings: Iterator[NDArray[Any]], first: int) -> Iterator[faceward.PersonRecord]:
    position = first
    for block in embeddings:
        for embedding in block:
            yield faceward.PersonRecord(str(position), REGION, f"person {position}", embedding)
            position += 1


def first_stage(owner: psycopg.Connection[Any], probes: NDArray[Any]) -> dict[str, float]:
    """Median milliseconds, and the rows that the index alone could not answer."""
    source = SignBits(hamming_bound(LOWEST_SIMILARITY))
    parameters = {"client_id": CLIENT, "regions": [REGION], **source.parameters}
    seconds = []
    for probe in probes:
        start = time.perf_counter()
        owner.execute(source.sql, {**parameters, "probe": Vector(probe)}, prepare=True).fetchall()
        seconds.append(time.perf_counter() - start)
    explained = owner.execute(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {source.sql}", {**parameters, "probe": Vector(probes[0])}
    ).fetchone()
    assert explained is not None
    return {
        "p50_ms": round(statistics.median(seconds) * 1e3, 3),
        "rows_looked_up": heap_fetches(explained[0][0]["Plan"]),
    }


def heap_fetches(plan: dict[str, Any]) -> int:
    here = int(plan.get("Heap Fetches", 0))
    return here + sum(heap_fetches(child) for child in plan.get("Plans", ()))


def run(server: EmbeddedServer, faces: int, rounds: int, own_settings: bool) -> list[dict[str, Any]]:
    name = "own" if own_settings else "default"
    server.ensure_database(name)
    gallery = Gallery(faces + rounds * faces // 20)
    probes, _ = gallery.probes(20, 0.58)
    results = []
    with (
        faceward.open_service(
            load_settings(database={"url": server.url_of(name)}, search={"hnsw_index": False})
        ) as service,
        psycopg.connect(server.url_of(name), autocommit=True) as owner,
    ):
        register_vector(owner)
        owner.execute("SET enable_seqscan = off")
        owner.execute("SET jit = off")
        if not own_settings:
            owner.execute(f"ALTER TABLE face_encodings RESET ({', '.join(SETTINGS)})")
        blocks = list(records(gallery.enrolled(), 0))
        service.import_embeddings(blocks[:faces], client_id=CLIENT)
        owner.execute("VACUUM ANALYZE face_encodings")
        results.append({"settings": name, "moment": f"{faces:,} faces, vacuumed", **first_stage(owner, probes)})
        for number in range(rounds):
            start = faces + number * faces // 20
            service.import_embeddings(blocks[start : start + faces // 20], client_id=CLIENT)
            results.append({"settings": name, "moment": f"{faces // 20:,} more", **first_stage(owner, probes)})
            time.sleep(40)
            results.append({"settings": name, "moment": "40 s later", **first_stage(owner, probes)})
    return results


def main() -> None:
    arguments = options((__doc__ or "").partition("\n")[0]).parse_args()
    faces, rounds = (20_000, 1) if arguments.quick else (100_000, 3)
    with scratch_server() as server:
        rows = [row for own in (False, True) for row in run(server, faces, rounds, own)]
    columns = list(rows[0])
    show(wide_console(), "First stage of the exact search", columns, [[row[name] for name in columns] for row in rows])
    write_json(arguments.json, {"rounds": rows})
    bars = {f"{i + 1}. {row['settings']}: {row['moment']}": row["rows_looked_up"] for i, row in enumerate(rows)}
    plot_bars(arguments.plot, "Rows that the index alone could not answer", bars, "rows")


if __name__ == "__main__":
    main()
