"""From a photo to a person: accuracy and isolation on real photos, and what each stage costs beside the bare models.

Takes any DIR/person/*.jpg. The first photo of each person is enrolled in region A of one client, the others are identified
in that region; and where all but this person are enrolled, in another region and by another client: the open-set searches,
of which the share that finds anybody is the FPIR.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import faceward
from faceward.settings import Settings, load_settings
from faceward.vision import ModelPack, PackStore, open_session
from plots import plot_bars
from report import options, scratch_server, show, write_json

THRESHOLD = 0.35
CLIENT, OTHER_CLIENT = "bench", "bench-other"
STAGES = ("decode", "detect", "landmarks", "quality", "embed", "search")


@dataclass
class Times:
    """Seconds of each stage, one list for each photo's sum."""

    stages: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    total: list[float] = field(default_factory=list)

    def recorder(self) -> tuple[Callable[[str, float], None], Callable[[float], None]]:
        sums: dict[str, float] = defaultdict(float)

        def stage(name: str, seconds: float) -> None:
            sums[name] += seconds

        def finish(total: float) -> None:
            for name in STAGES:
                self.stages[name].append(sums[name])
            self.total.append(total)

        return stage, finish


def people(directory: Path) -> dict[str, list[Path]]:
    found = {
        person.name: sorted(path for path in person.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        for person in sorted(directory.iterdir())
        if person.is_dir()
    }
    return {name: photos for name, photos in found.items() if len(photos) > 1}


def enroll(service: faceward.FaceService, faces: dict[str, list[Path]]) -> None:
    """The people in region A of the client. For each of them a region that holds all the others, and one of the other client:
    whom a search there finds is somebody else, or came from where the search may not look.
    """
    first = {
        name: service.faces_to_store(photos[0], several_faces="largest")[0].embedding for name, photos in faces.items()
    }
    rng = np.random.default_rng(0)
    stranger = faceward.PersonRecord("stranger", "A", "Stranger", rng.standard_normal(service.dimension))
    people = [faceward.PersonRecord(name, "A", name, embedding) for name, embedding in first.items()]
    without = [
        record._replace(region=elsewhere(name))
        for name in faces
        for record in (stranger, *people)
        if record.external_id != name
    ]
    for client_id, records in ((CLIENT, [*people, *without]), (OTHER_CLIENT, without)):
        report = service.import_embeddings(records, client_id=client_id)
        assert report.persons == len(records), report


def elsewhere(name: str) -> str:
    """The region where everybody is enrolled but this person."""
    return f"not {name}"[:50]


def identify(
    service: faceward.FaceService, faces: dict[str, list[Path]], models: BareModels, rounds: int
) -> tuple[dict[str, Any], Times]:
    """One face counts for each photo: the largest. The bare models run in turn with the photos, so that both meet the
    machine in the same state.
    """
    probes = [(name, photo) for name, photos in faces.items() for photo in photos[1:]]
    right = accepted_right = accepted_wrong = 0
    found_elsewhere = {CLIENT: 0, OTHER_CLIENT: 0}
    for name, photo in probes:
        for found in service.recognize(photo, region="A", client_id=CLIENT, threshold=THRESHOLD).faces[:1]:
            nearest = found.candidates[0]
            right += nearest.name == name
            accepted_right += found.match is not None and found.match.name == name
            accepted_wrong += found.match is not None and found.match.name != name
        for client_id in found_elsewhere:
            answer = service.recognize(photo, region=elsewhere(name), client_id=client_id, threshold=THRESHOLD)
            found_elsewhere[client_id] += any(face.match for face in answer.faces[:1])
    times = Times()
    for _ in range(rounds):
        for _, photo in probes:
            stage, finish = times.recorder()
            start = time.perf_counter()
            service.recognize(photo, region="A", client_id=CLIENT, threshold=THRESHOLD, max_faces=1, stages=stage)
            finish(time.perf_counter() - start)
            models.run()
    count = len(probes)
    return {
        "persons": len(faces),
        "probes": count,
        "rank1": right / count,
        "accepted_right": accepted_right / count,
        "accepted_wrong": accepted_wrong / count,
        "other_region": found_elsewhere[CLIENT],
        "other_client": found_elsewhere[OTHER_CLIENT],
    }, times


class BareModels:
    """Each model alone, on an input that is ready: the bound of any pipeline around them."""

    def __init__(self, pack: ModelPack, settings: Settings) -> None:
        self._models = []
        for name, path, runs in (
            ("detect", pack.detector, 1),
            ("landmarks", pack.landmarks, 2),
            ("embed", pack.embedder, 1),
        ):
            session = open_session(path, runtime=settings.model.runtime, threads=1)
            shape = [max(1, size or 1) for size in session.input_shape]  # a free batch size is one photo
            batch = np.random.default_rng(0).random(shape, dtype=np.float32)
            self._models.append((name, session, batch, runs))
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def run(self) -> None:
        """What one photo with one face needs: the landmark model works twice, the second time around its own points."""
        for name, session, batch, runs in self._models:
            start = time.perf_counter()
            for _ in range(runs):
                session.run(batch)
            self.seconds[name].append(time.perf_counter() - start)

    def milliseconds(self) -> dict[str, float]:
        return {name: round(statistics.median(values) * 1e3, 4) for name, values in self.seconds.items()}


def main() -> None:
    parser = options((__doc__ or "").partition("\n")[0])
    parser.add_argument("--faces", type=Path, required=True, metavar="DIR", help="DIR/person/*.jpg")
    parser.add_argument("--rounds", type=int, default=3, help="times that each photo is timed")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        # One core for this process and, since it is started from here, for PostgreSQL.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    faces = people(arguments.faces)
    if not faces:
        sys.exit(f"{arguments.faces} holds no directory of a person with two photos.")
    if arguments.quick:
        faces = {name: photos[:4] for name, photos in faces.items()}
    settings = load_settings()
    pack = PackStore(settings.home).get(settings.model.pack)
    models = BareModels(pack, settings)
    with scratch_server() as server:
        server.ensure_database()
        with faceward.open_service(settings=load_settings(database={"url": server.url})) as service:
            enroll(service, faces)
            figures, times = identify(service, faces, models, 1 if arguments.quick else arguments.rounds)
    model_ms = sum(models.milliseconds().values())
    total_ms = statistics.median(times.total) * 1e3
    stage_ms = {name: round(statistics.median(values) * 1e3, 4) for name, values in times.stages.items()}
    figures |= {
        "photos_per_s": round(1e3 / total_ms, 1),
        "total_ms": round(total_ms, 4),
        "stage_ms": stage_ms,
        "model_ms": round(model_ms, 4),
        "models": models.milliseconds(),
        "ratio": round(total_ms / model_ms, 3),
    }
    console = Console()
    show(
        console,
        f"{figures['persons']} people, {figures['probes']} photos, threshold {THRESHOLD}",
        ("", "value"),
        [
            ("nearest person is the right one (rank-1)", f"{figures['rank1']:.4f}"),
            ("right and accepted", f"{figures['accepted_right']:.4f}"),
            ("wrong and accepted", f"{figures['accepted_wrong']:.4f}"),
            ("found in a region of the others", figures["other_region"]),
            ("found by a client of the others", figures["other_client"]),
            *((f"{name} ms", f"{value:.3f}") for name, value in stage_ms.items()),
            ("photo to answer, ms", f"{total_ms:.3f}"),
            ("bare models, ms", f"{model_ms:.3f}"),
            ("ratio", f"{figures['ratio']:.3f}"),
            ("photos/s on one core", f"{figures['photos_per_s']:.1f}"),
        ],
    )
    write_json(arguments.json, figures)
    bars = {**stage_ms, "photo to answer": figures["total_ms"], "bare models": figures["model_ms"]}
    plot_bars(arguments.plot, f"From a photo to a person on one core ({figures['ratio']:.2f} x the models)", bars, "ms")


if __name__ == "__main__":
    main()
