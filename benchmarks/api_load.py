"""What the REST API adds to the pipeline: requests a second and latency with 1, 50 and 1,000 connections.

The server and its clients are processes of their own on this machine. Photos of 640 x 480 with one face are looked for among
100,000 faces. The bare pipeline is FaceService.recognize on the same photos and database, without HTTP, by as many threads as
there are cores; it takes turns with the load, so that both meet the machine in the same state.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import faceward
from faceward.factory import open_records, pack_store
from faceward.settings import load_settings
from faceward.vision import fetch_sample_photos
from galleries import Gallery
from plots import plot_bars
from report import machine, options, scratch_server, show, wide_console, write_rows

HERE = Path(__file__).resolve().parent
REGION, CLIENT = "A", "bench"
WIDTH, HEIGHT = 640, 480
ENROLLED = {"obama.jpg": "Barack Obama", "biden.jpg": "Joe Biden", "astronaut.png": "Eileen Collins"}
PROBES = ("obama.jpg", "obama2.jpg", "obama3.jpg", "biden.jpg")


def write_photos(photos: dict[str, Path], directory: Path) -> list[Path]:
    """The photos at 640 x 480, the rest of the frame grey."""
    written = []
    for name in PROBES:
        image = cv2.imread(str(photos[name]))
        scale = min(WIDTH / image.shape[1], HEIGHT / image.shape[0])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        frame = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
        top, left = (HEIGHT - small.shape[0]) // 2, (WIDTH - small.shape[1]) // 2
        frame[top : top + small.shape[0], left : left + small.shape[1]] = small
        written.append(directory / f"{Path(name).stem}.jpg")
        cv2.imwrite(str(written[-1]), frame, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return written


def fill(service: faceward.FaceService, photos: dict[str, Path], faces: int) -> None:
    for name, person in ENROLLED.items():
        service.enroll(photos[name], name=person, region=REGION, client_id=CLIENT, several_faces="largest")
    rows = (row for block in Gallery(faces).enrolled() for row in block)
    service.import_embeddings(
        (faceward.PersonRecord(str(number), REGION, f"person {number}", row) for number, row in enumerate(rows)),
        client_id=CLIENT,
    )


class Bare:
    """The pipeline without HTTP."""

    def __init__(self, service: faceward.FaceService, photos: list[Path]) -> None:
        self._service = service
        self._photos = [photo.read_bytes() for photo in photos]

    def per_second(self, threads: int, seconds: float) -> float:
        until = time.perf_counter() + seconds
        done = [0] * threads

        def work(number: int) -> None:
            while time.perf_counter() < until:
                photo = self._photos[done[number] % len(self._photos)]
                self._service.recognize(photo, region=REGION, client_id=CLIENT, top_k=1, max_faces=1)
                done[number] += 1

        start = time.perf_counter()
        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(done) / (time.perf_counter() - start)


@contextlib.contextmanager
def served(database_url: str, workers: int) -> Iterator[str]:
    """`faceward serve` on this database; its URL."""
    environment = {**os.environ, "FACEWARD_DATABASE__URL": database_url, "FACEWARD_API__RATE_LIMIT": "0"}
    program = Path(sys.executable).with_name("faceward")
    command = [str(program), "serve", "--port", "0", "--workers", str(workers)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"serves (\S+),", line):
                    yield found[1]
                    break
            else:
                log.seek(0)
                sys.exit(f"the server did not start:\n{log.read()[-2000:]}")
        finally:
            process.terminate()
            process.wait(60)


def load(url: str, key: str, photos: Path, connections: int, seconds: float) -> dict[str, Any]:
    """One round of clients. Throughput and latency are those after the rise of the load; all else is of the whole round."""
    command = [sys.executable, str(HERE / "load_clients.py"), "--url", url, "--key", key, "--region", REGION]
    command += ["--photos", str(photos), "--connections", str(connections), "--seconds", str(seconds)]
    command += ["--rise", str(seconds / 4)]
    done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    answered, beside = ({int(status): taken for status, taken in done[name].items()} for name in ("answered", "beside"))
    good, refused = answered.pop(200, []), [*answered.pop(503, []), *beside.pop(503, [])]
    others = sum(map(len, answered.values())) + sum(len(taken) for status, taken in beside.items() if status != 200)
    lost = sum(done["lost"].values())
    p50, p95, p99 = np.percentile(np.asarray(good) * 1e3, [50, 95, 99])
    return {
        "requests_per_s": len(good) / seconds,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "answered": len(good),
        "refused_503": len(refused),
        "slowest_503_ms": max(refused, default=0.0) * 1e3,
        "errors": others + lost,
        "unanswered": done["sent"] - len(good) - len(beside.get(200, [])) - len(refused) - others,
    }


def main() -> None:
    parser = options((__doc__ or "").partition("\n")[0])
    parser.add_argument("--connections", default="1,50,1000", help="comma separated")
    parser.add_argument("--faces", type=int, default=100_000, help="faces of the region")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3, help="of each number of connections; the median counts")
    parser.add_argument("--workers", type=int, default=1, help="processes of the server")
    arguments = parser.parse_args()
    faces, seconds, rounds = (
        (2_000, 2.0, 1) if arguments.quick else (arguments.faces, arguments.seconds, arguments.rounds)
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    console = wide_console()
    console.print(machine())
    with contextlib.ExitStack() as stack:
        photos = fetch_sample_photos(load_settings().home)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faceward-bench-")))
        small = write_photos(photos, directory)
        server = stack.enter_context(scratch_server())
        server.ensure_database()
        settings = load_settings(database={"url": server.url}, search={"hnsw_index": False})
        service = stack.enter_context(faceward.open_service(settings))
        fill(service, photos, faces)
        with open_records(settings, pack_store(settings).get(settings.model.pack).manifest) as records:
            records.administration.ensure_first_key()
            key = records.administration.create_key(CLIENT, "recognizer").secret
        url = stack.enter_context(served(server.url, arguments.workers))
        bare = Bare(service, small)
        bare.per_second(cores, 1.0)
        load(url, key, directory, 1, 1.0)
        rows = []
        for connections in (int(number) for number in arguments.connections.split(",")):
            turns = []
            for _ in range(rounds):
                alone = bare.per_second(1 if connections == 1 else cores, seconds / 2)
                turn = load(url, key, directory, connections, seconds)
                turns.append({**turn, "bare_per_s": alone, "ratio": turn["requests_per_s"] / alone})
            sums = {
                name: sum(turn[name] for turn in turns) for name in ("answered", "refused_503", "errors", "unanswered")
            }
            medians = {
                name: round(statistics.median(turn[name] for turn in turns), 3) for name in turns[0] if name not in sums
            }
            medians["slowest_503_ms"] = round(max(turn["slowest_503_ms"] for turn in turns), 1)
            rows.append({"connections": connections, **medians, **sums})
    show(
        console,
        f"POST /v1/recognize, 640 x 480, one face, {faces:,} faces, {arguments.workers} process(es)",
        list(rows[0]),
        [list(row.values()) for row in rows],
    )
    write_rows(arguments.json, rows)
    bars = {f"{row['connections']} connections": row["requests_per_s"] for row in rows}
    bars["bare pipeline"] = statistics.median(
        row["bare_per_s"] for row in rows if row["connections"] > 1 or len(rows) == 1
    )
    plot_bars(arguments.plot, f"Recognitions a second over HTTP, {faces:,} faces, {cores} cores", bars, "requests/s")


if __name__ == "__main__":
    main()
