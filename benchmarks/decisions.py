"""What does it cost a recognition that its decision is kept? The same photos with audit.decisions on and off, by turns.

Two services on one database, one that keeps decisions and one that does not, recognise the same photo in turns of some tens;
their processor time is compared as well as their latency, since the writing is done beside the recognition. What PostgreSQL
takes for it is timed by itself, batch by batch.
"""

from __future__ import annotations

import datetime as dt
import statistics
import time
from typing import Any

import psycopg

import faceward
from faceward.settings import load_settings
from faceward.store.database import Database
from faceward.store.decision_log import Compared, DecisionStore, NewDecision
from faceward.store.embedded import EmbeddedServer
from faceward.vision import fetch_sample_photos
from galleries import Gallery
from report import options, scratch_server, show, wide_console, write_json

CLIENT, REGION = "bench", "A"
TURN = 50
BATCH = 500


def turn(service: faceward.FaceService, photo: bytes) -> tuple[list[float], float]:
    """Milliseconds of each recognition, and of processor time for each, what runs beside it included."""
    processor, times = time.process_time(), []
    for _ in range(TURN):
        start = time.perf_counter()
        service.recognize(photo, region=REGION, client_id=CLIENT)
        times.append(1e3 * (time.perf_counter() - start))
    return times, 1e3 * (time.process_time() - processor) / TURN


def written(server: EmbeddedServer, person_ids: list[int]) -> dict[str, float]:
    """Microseconds for each decision with five candidates, in batches as the service writes them; one connection."""
    with Database(server.url_of("decisions")) as database:
        store, times = DecisionStore(database), []
        for _ in range(20):
            now = dt.datetime.now(dt.UTC)
            batch = [
                NewDecision(
                    CLIENT, now, "key:bench", "recognize", (REGION,), 0.4, "pack", "match",
                    tuple(Compared(person_ids[(number + place) % len(person_ids)], 1, 0.5) for place in range(5)),
                )
                for number in range(BATCH)
            ]  # fmt: skip
            start = time.perf_counter()
            store.write(CLIENT, batch)
            times.append(1e6 * (time.perf_counter() - start) / BATCH)
    return {
        "least_us": round(min(times), 1),
        "p50_us": round(statistics.median(times), 1),
        "most_us": round(max(times), 1),
    }


def run(server: EmbeddedServer, faces: int, turns: int) -> list[dict[str, Any]]:
    server.ensure_database("decisions")
    settings = load_settings(
        database={"url": server.url_of("decisions")}, search={"hnsw_index": False}, model={"threads": 1}
    )
    photo = fetch_sample_photos(settings.home)["obama.jpg"].read_bytes()
    off, on = (
        settings.model_copy(update={"audit": settings.audit.model_copy(update={"decisions": name})})
        for name in ("off", "on")
    )
    with faceward.open_service(off) as without, faceward.open_service(on) as keeping:
        gallery = Gallery(faces)
        keeping.import_embeddings(
            (
                faceward.PersonRecord(f"{number}-{place}", REGION, "Somebody", embedding)
                for number, block in enumerate(gallery.enrolled())
                for place, embedding in enumerate(block)
            ),
            client_id=CLIENT,
        )
        services = {"off": without, "on": keeping}
        latency: dict[str, list[float]] = {name: [] for name in services}
        processor: dict[str, list[float]] = {name: [] for name in services}
        for service in services.values():
            service.warm(REGION, client_id=CLIENT)
            turn(service, photo)
        for number in range(turns):
            for name in ("off", "on") if number % 2 else ("on", "off"):
                times, used = turn(services[name], photo)
                latency[name] += times
                processor[name].append(used)
    rows = [
        {
            "decisions": name,
            "recognitions": len(latency[name]),
            "p50_ms": round(statistics.median(latency[name]), 3),
            "p95_ms": round(sorted(latency[name])[int(0.95 * len(latency[name]))], 3),
            "mean_ms": round(statistics.fmean(latency[name]), 3),
            "processor_ms": round(statistics.median(processor[name]), 3),
        }
        for name in services
    ]
    for row in rows:
        row["p50_ratio"] = round(row["p50_ms"] / rows[0]["p50_ms"], 4)
        row["processor_ratio"] = round(row["processor_ms"] / rows[0]["processor_ms"], 4)
    return rows


def main() -> None:
    arguments = options((__doc__ or "").partition("\n")[0]).parse_args()
    faces, turns = (2_000, 4) if arguments.quick else (10_000, 40)
    with scratch_server() as server:
        rows = run(server, faces, turns)
        with psycopg.connect(server.url_of("decisions")) as owner:
            ids = [row[0] for row in owner.execute("SELECT id FROM persons ORDER BY id LIMIT 1000")]
        batches = written(server, ids)
    columns = list(rows[0])
    show(
        wide_console(),
        "Recognition with and without its decision kept",
        columns,
        [[row[name] for name in columns] for row in rows],
    )
    show(wide_console(), f"A decision in a batch of {BATCH}", list(batches), [list(batches.values())])
    write_json(arguments.json, {"rounds": rows, "written": batches})


if __name__ == "__main__":
    main()
