"""How many stored photos a second does a change of the model embed anew, and what does recognition lose meanwhile?

Takes any DIR/person/*.jpg. The photos are enrolled, and kept as they were sent, in as many regions as make a gallery. Then
`faceward reembed` fills in a process of its own, by a copy of the pack under another name, while one caller recognises
photos in this process as fast as they are answered: each alone, both, and both with the filling's throttle.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

import faceward
from faceward.factory import open_reembedding
from faceward.photo_import import PhotoRecord
from faceward.settings import Settings, load_settings
from faceward.vision import ModelPack, PackStore
from plots import plot_bars
from recognize import people
from report import milliseconds, options, scratch_server, show, wide_console, write_json

CLIENT = "bench"
OTHER_PACK = "anew-1"


@dataclass(frozen=True)
class Run:
    """recognising: photos are recognised. pause: seconds that the filling rests after a photo; None: nothing is filled."""

    name: str
    recognising: bool
    pause: float | None


RUNS = (
    Run("recognition alone", True, None),
    Run("filling alone", False, 0.0),
    Run("both", True, 0.0),
    Run("both, --pause 0.05", True, 0.05),
    Run("both, --pause 0.2", True, 0.2),
)


def home_with_two_packs(home: Path, pack: ModelPack, own: Path) -> Path:
    """A home that has the pack twice, under two names, and the models that were compiled before."""
    (own / "packs").mkdir(parents=True)
    (own / "packs" / pack.name).symlink_to(PackStore(home).directory(pack.name))
    (home / "compiled").mkdir(exist_ok=True)
    (own / "compiled").symlink_to(home / "compiled")
    folder = own / OTHER_PACK
    shutil.copytree(PackStore(home).directory(pack.name), folder)
    manifest = pack.manifest.model_dump(mode="json") | {"name": OTHER_PACK}
    (folder / "faceward-pack.json").write_text(json.dumps(manifest))
    PackStore(own).add(folder)
    return own


def enroll(service: faceward.FaceService, photos: list[Path], regions: int) -> int:
    """Returns how many faces there are."""
    records = (
        PhotoRecord(f"region {region}", str(number), f"{photo.parent.name} {number}", photo.read_bytes())
        for region in range(regions)
        for number, photo in enumerate(photos)
    )
    return service.import_photos(
        records, client_id=CLIENT, workers=os.cpu_count() or 1, several_faces="largest"
    ).enrolled


@contextlib.contextmanager
def filling(settings: Settings, config: Path, pause: float | None) -> Iterator[None]:
    """`faceward reembed` is at work inside the block, and what it made is thrown away afterwards."""
    if pause is None:
        yield
        return
    program = [sys.executable, "-c", "from faceward.cli import main; main()", "--config", str(config)]
    process = subprocess.Popen(
        [*program, "reembed", "--pack", OTHER_PACK, "--pause", str(pause)],
        env={**os.environ, "FACEWARD_HOME": str(settings.home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()
        with open_reembedding(settings) as parts:
            parts.change.abandon()


class Made:
    """How many faces the second table has, at the moments at which that grew."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self.seen: list[tuple[float, int]] = []

    def look(self) -> None:
        found = self._connection.execute("SELECT to_regclass('face_encodings_next')").fetchone()
        if found == (None,):
            return
        ((count,),) = self._connection.execute("SELECT count(*) FROM face_encodings_next").fetchall()
        if count and (not self.seen or count > self.seen[-1][1]):
            self.seen.append((time.perf_counter(), count))

    def per_second(self) -> float:
        """From the first batch to the last one that was seen."""
        (begun, first), (ended, last) = self.seen[0], self.seen[-1]
        return round((last - first) / (ended - begun), 1)


def measure(
    run: Run, service: faceward.FaceService, probes: list[bytes], settings: Settings, config: Path, seconds: float
) -> dict[str, Any]:
    latencies: list[float] = []
    with (
        psycopg.connect(settings.database.url, autocommit=True) as connection,
        filling(settings, config, run.pause),
    ):
        made = Made(connection)
        while run.pause is not None and not made.seen:
            made.look()
            time.sleep(0.05)
        begun = looked = time.perf_counter()
        while time.perf_counter() < begun + seconds:
            if run.recognising:
                start = time.perf_counter()
                service.recognize(probes[len(latencies) % len(probes)], region="region 0", client_id=CLIENT)
                latencies.append(time.perf_counter() - start)
            else:
                time.sleep(0.05)
            if run.pause is not None and time.perf_counter() > looked + 0.2:
                made.look()
                looked = time.perf_counter()
        elapsed = time.perf_counter() - begun
    row: dict[str, Any] = {"run": run.name, "pause": run.pause}
    if run.pause is not None:
        row["filled_per_s"] = made.per_second()
    if run.recognising:
        row |= {"recognised_per_s": round(len(latencies) / elapsed, 1), **milliseconds(latencies)}
    return row


def main() -> None:
    parser = options((__doc__ or "").partition("\n")[0])
    parser.add_argument("--faces", type=Path, required=True, metavar="DIR", help="DIR/person/*.jpg")
    parser.add_argument("--regions", type=int, default=40, help="regions in which each photo is enrolled")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each run; the gallery has to last so long")
    arguments = parser.parse_args()
    photos = [photo for found in people(arguments.faces).values() for photo in found]
    if not photos:
        sys.exit(f"{arguments.faces} holds no directory of a person with two photos.")
    regions, seconds = (8, 8.0) if arguments.quick else (arguments.regions, arguments.seconds)
    usual = load_settings()
    pack = PackStore(usual.home).get(usual.model.pack)
    with tempfile.TemporaryDirectory(prefix="faceward-bench-") as folder, scratch_server() as server:
        home = home_with_two_packs(usual.home, pack, Path(folder) / "home")
        server.ensure_database()
        given: dict[str, Any] = {"database": {"url": server.url}, "images": {"store": "original"}}
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(given))
        settings = load_settings(home=home, **given)
        with faceward.open_service(settings=settings) as service:
            faces = enroll(service, photos, regions)
            probes = [photo.read_bytes() for photo in photos]
            rows = [measure(run, service, probes, settings, config, seconds) for run in RUNS]
    show(
        wide_console(),
        f"{faces:,} faces with their photos, {seconds:g} s each, one worker",
        ("", "filled/s", "recognised/s", "p50 ms", "p95 ms", "p99 ms"),
        [
            (
                row["run"],
                *(row.get(name, "") for name in ("filled_per_s", "recognised_per_s", "p50_ms", "p95_ms", "p99_ms")),
            )
            for row in rows
        ],
    )
    write_json(arguments.json, {"faces": faces, "seconds": seconds, "runs": rows})
    bars = {f"filled, {row['run']}": row["filled_per_s"] for row in rows if "filled_per_s" in row}
    bars |= {f"recognised, {row['run']}": row["recognised_per_s"] for row in rows if "recognised_per_s" in row}
    plot_bars(arguments.plot, "A change of the model while recognition goes on", bars, "photos/s")


if __name__ == "__main__":
    main()
