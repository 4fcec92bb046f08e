"""How long `faceward gallery check` takes: exact products of blocks, against a search for each stored face.

For each size a database of its own holds one region of synthetic people with two photos each. The check is run whole. The
other way, every face as a probe of the service's own search without itself, is timed on a sample and scaled up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import faceward
from faceward.factory import open_gallery_check, open_parts
from faceward.retrieval import Retriever, SketchKeeper
from faceward.settings import Settings, load_settings
from faceward.sketches import SketchCache
from faceward.store.database import Database
from faceward.store.embedded import EmbeddedServer
from faceward.store.gallery import Gallery as PeopleOf
from faceward.store.gallery_scan import GalleryScanner
from faceward.store.scopes import ScopeReader
from faceward.store.search import FaceSearch
from faceward.vision import PackManifest
from galleries import Gallery
from report import milliseconds, options, scratch_server, show, wide_console, write_rows

CLIENT, REGION = "bench", "A"


def records(gallery: Gallery) -> Iterator[faceward.PersonRecord]:
    position = 0
    rng = np.random.default_rng(5)
    for block in gallery.persons():
        photos = [gallery.model.photos(block, rng, 0.88) for _ in range(2)]
        for pair in zip(*photos, strict=True):
            yield faceward.PersonRecord(str(position), REGION, f"person {position}", list(pair))
            position += 1


def searched(settings: Settings, manifest: PackManifest, sample: int) -> dict[str, Any]:
    """Stored faces as probes without themselves, in batches of 16; and one by one, as an enrolment looks for duplicates."""
    model_id, dimension = manifest.model_id, manifest.embedding.dimension
    with Database(settings.database.url) as database:
        keeper = SketchKeeper(ScopeReader(database, model_id, dimension), SketchCache(1 << 30, dimension))
        retriever = Retriever(
            FaceSearch(database), PeopleOf(database, model_id), keeper, model_id=model_id, dimension=dimension
        )
        retriever.warm(CLIENT, REGION)
        with GalleryScanner(database, model_id, dimension).open(CLIENT) as snapshot:
            rows, ids = snapshot.block(REGION, 0, sample)

        def find(first: int, count: int) -> float:
            start = time.perf_counter()
            cut = slice(first, first + count)
            retriever.find(CLIENT, [REGION], list(rows[cut]), top_k=5, floor=0.38, without=ids[cut].tolist())
            return time.perf_counter() - start

        find(0, 16)
        batches = sum(find(first, 16) for first in range(0, len(rows), 16)) / len(rows)
        single = [find(n, 1) for n in range(min(len(rows), 300))]
        keeper.close()
    return {
        "searches_timed": len(rows),
        "search_ms": round(batches * 1e3, 3),
        "enrolment_search": milliseconds(single),
    }


def measure(server: EmbeddedServer, faces: int, sample: int) -> dict[str, Any]:
    name = f"bench_{faces}"
    server.ensure_database(name)
    settings = load_settings(database={"url": server.url_of(name)}, search={"hnsw_index": False})
    gallery = Gallery(faces // 2)
    with open_parts(settings) as parts:
        parts.service.import_embeddings(records(gallery), client_id=CLIENT)
        manifest = parts.manifest
    start = time.perf_counter()
    with open_gallery_check(settings, manifest) as checker:
        report = checker.run(CLIENT)
    blocks = time.perf_counter() - start
    by_search = searched(settings, manifest, sample)
    return {
        "size": faces,
        "blocks_s": round(blocks, 2),
        "million_pairs_per_s": round(report.pairs / blocks / 1e6, 1),
        "searches_s": round(by_search["search_ms"] * faces / 1e3, 1),
        **by_search,
        "by_chance": round(report.regions[0].by_chance or 0, 3),
        "found": dict(report.counts),
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
    columns = [name for name in rows[0] if not isinstance(rows[0][name], dict)]
    show(wide_console(), "Gallery check", columns, [[row[name] for name in columns] for row in rows])
    write_rows(arguments.json, rows)


if __name__ == "__main__":
    main()
