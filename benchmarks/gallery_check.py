"""How long `faceward gallery check` takes: exact products of blocks, against a search for each stored face.

For each size a database of its own holds one region of synthetic people with two photos each. The check is run whole. The
other way, every face as a probe of the service's own search without itself, is timed on a sample and scaled up.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import faceward
from faceward.factory import open_gallery_check, open_parts
from faceward.settings import Settings, load_settings
from faceward.store.embedded import EmbeddedServer
from galleries import Gallery
from report import options, scratch_server, show, wide_console, write_rows

CLIENT, REGION = "bench", "A"


def records(gallery: Gallery) -> Iterator[faceward.PersonRecord]:
    position = 0
    rng = np.random.default_rng(5)
    for block in gallery.persons():
        photos = [gallery.model.photos(block, rng, 0.88) for _ in range(2)]
        for pair in zip(*photos, strict=True):
            yield faceward.PersonRecord(str(position), REGION, f"person {position}", list(pair))
            position += 1


def searched(settings: Settings, gallery: Gallery, sample: int) -> float:
    """Seconds for one stored face as a probe, in batches of 16, the sketch loaded before."""
    with open_parts(settings) as parts:
        retriever = parts.service._retriever
        parts.service.warm(REGION, client_id=CLIENT)
        rows = next(gallery.persons())[:sample]
        start = time.perf_counter()
        for first in range(0, len(rows), 16):
            probes = list(rows[first : first + 16])
            retriever.find(CLIENT, [REGION], probes, top_k=2, floor=0.38, without=[1] * len(probes))
        return (time.perf_counter() - start) / len(rows)


def measure(server: EmbeddedServer, faces: int, sample: int) -> dict[str, Any]:
    name = f"bench_{faces}"
    server.ensure_database(name)
    settings = load_settings(database={"url": server.url_of(name)}, search={"hnsw_index": False})
    gallery = Gallery(faces // 2)
    with open_parts(settings) as parts:
        parts.service.import_embeddings(records(gallery), client_id=CLIENT)
        manifest = parts.manifest
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with open_gallery_check(settings, manifest) as checker:
        report = checker.run(CLIENT)
    blocks = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    each = searched(settings, gallery, sample)
    return {
        "size": faces,
        "blocks_s": round(blocks, 2),
        "million_pairs_per_s": round(report.pairs / blocks / 1e6, 1),
        "memory_grown_mib": round(grown),
        "searches_s": round(each * faces, 1),
        "search_ms": round(each * 1e3, 3),
        "searches_timed": sample,
        "found": dict(report.counts),
        "by_chance": round(report.regions[0].by_chance or 0, 3),
    }


def main() -> None:
    parser = options((__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default="10000,100000")
    parser.add_argument("--sample", type=int, default=1000, help="faces searched for")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sizes, arguments.sample = "2000", 100
    with scratch_server() as server:
        rows = [measure(server, int(size), arguments.sample) for size in arguments.sizes.split(",")]
    columns = [name for name in rows[0] if name != "found"]
    show(wide_console(), "Gallery check", columns, [[row[name] for name in columns] for row in rows])
    write_rows(arguments.json, rows)


if __name__ == "__main__":
    main()
