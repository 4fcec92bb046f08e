"""What does a face weigh in each table and index, and how long do a backup, its check and a restore take?

A region of 100,000 faces, one for each person, without photos, is imported as users do it; every relation of the database is
measured after a VACUUM. Then the HNSW index is built, and the database is backed up, checked and restored by the commands' own
code. The plain copy of the table by PostgreSQL (COPY to nowhere) in the same run says how much of that is the embeddings' text.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

import faceward
from faceward.factory import Deployment
from faceward.settings import load_settings
from galleries import Gallery
from plots import plot_bars
from report import options, show, wide_console, write_json

RELATIONS = """
SELECT c.relname, pg_total_relation_size(c.oid) - CASE WHEN c.relkind = 'r' THEN pg_indexes_size(c.oid) ELSE 0 END
FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i') ORDER BY 2 DESC
"""


def records(gallery: Gallery) -> Iterator[faceward.PersonRecord]:
    position = 0
    for block in gallery.enrolled():
        for embedding in block:
            yield faceward.PersonRecord(str(position), "A", f"person {position}", embedding)
            position += 1


def relations(url: str, faces: int) -> dict[str, float]:
    """Bytes a face of each table and index that grows with the faces."""
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("VACUUM (ANALYZE)")
        found = owner.execute(RELATIONS).fetchall()
    return {name: round(size / faces, 1) for name, size in found if size / faces >= 1}


def seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return round(time.perf_counter() - start, 2)


def measure(place: Path, faces: int) -> dict[str, Any]:
    settings = load_settings(data=place / "postgres", home=load_settings().home, search={"hnsw_index": False})
    with faceward.open_service(settings) as service:
        imported = seconds(lambda: service.import_embeddings(records(Gallery(faces))))
    with closing(Deployment(settings)) as deployment:
        plain = relations(deployment.url, faces)
        backups, restoration, file = deployment.backups(), deployment.restoration(), place / "faces.backup"
        with psycopg.connect(deployment.url) as owner:
            copied = seconds(lambda: owner.execute("COPY face_encodings TO PROGRAM 'cat > /dev/null'"))
        written = seconds(lambda: backups.write(file, check=False))
        size = file.stat().st_size
        checked = seconds(lambda: backups.write(file, replace=True))
        restored = seconds(lambda: restoration.run(file, replace=True))
        with_graph = load_settings(data=place / "postgres", search={"hnsw_index": True})
        graph = Deployment(with_graph)
        with closing(graph):
            built = seconds(lambda: graph.schema.apply_graph(graph.graph))
            hnsw = relations(graph.url, faces)["idx_embedding_hnsw"]
    return {
        "faces": faces,
        "import_seconds": imported,
        "bytes_per_face": {**plain, "idx_embedding_hnsw": hnsw},
        "backup_bytes_per_face": round(size / faces, 1),
        "bound_copy_seconds": copied,
        "backup_seconds": written,
        "checked_backup_seconds": checked,
        "restore_seconds": restored,
        "hnsw_build_seconds": built,
        "backup_to_copy": round(written / copied, 2),
    }


def main() -> None:
    given = options(__doc__ or "").parse_args()
    with tempfile.TemporaryDirectory(prefix="faceward-bench-", ignore_cleanup_errors=True) as place:
        figures = measure(Path(place), 5_000 if given.quick else 100_000)
    console = wide_console()
    weights = list(figures["bytes_per_face"].items())
    show(console, f"{figures['faces']:,} faces", ("relation", "bytes a face"), weights)
    others = [(name, value) for name, value in figures.items() if name != "bytes_per_face"]
    show(console, "Backup and restore", ("", "figure"), others)
    write_json(given.json, figures)
    plot_bars(given.plot, f"What one of {figures['faces']:,} faces weighs", dict(weights), "bytes")


if __name__ == "__main__":
    main()
