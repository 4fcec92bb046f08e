"""Write the tables of README.md and of the documents from what the benchmarks left in docs/benchmarks.

`python benchmarks/tables.py` rewrites what stands between the markers; a test fails where a document and the figures part
ways.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "benchmarks"
SHORT = ("auto", "HNSW ef_search 40", "HNSW ef_search 200", "HNSW ef_search 800")
SIMILARITY = 0.58
SKETCH_BYTES = 72
DOCUMENTS = ("search", "operations", "api", "migrating-from-sqlite", "changing-the-model")


def tables() -> dict[str, str]:
    """Each table by the name of its marker."""
    searches = json.loads((FIGURES / "search.json").read_text(encoding="utf-8"))
    recognition = json.loads((FIGURES / "recognize.json").read_text(encoding="utf-8"))
    sizing = json.loads((FIGURES / "sizing.json").read_text(encoding="utf-8"))
    load = json.loads((FIGURES / "api_load.json").read_text(encoding="utf-8"))
    imported = json.loads((FIGURES / "import_sqlite.json").read_text(encoding="utf-8"))
    changed = json.loads((FIGURES / "reembed.json").read_text(encoding="utf-8"))
    return {
        "search": short_table(searches),
        "search figures": long_table(searches),
        "threads": thread_table(searches),
        "sizes": size_table(searches),
        "recognition": recognition_table(recognition),
        "sizing": sizing_table(sizing),
        "load": load_table(load),
        "import": import_table(imported),
        "reembed": reembed_table(changed),
    }


def documents() -> dict[Path, str]:
    """The documents as they must read."""
    made = tables()
    texts = {}
    for path in (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in DOCUMENTS)):
        text = path.read_text(encoding="utf-8")
        for name, table in made.items():
            pattern = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)"
            text = re.sub(pattern, lambda found, table=table: f"{found[1]}{table}{found[2]}", text, flags=re.S)
        texts[path] = text
    return texts


def short_table(rows: list[dict[str, Any]]) -> str:
    sizes = sorted({row["size"] for row in rows if row["method"] == "auto"})
    lines = ["| faces in the region | " + " | ".join(_name(method) for method in SHORT) + " |", "|--:" * 5 + "|"]
    for size in sizes:
        cells = []
        for method in SHORT:
            row = _find(rows, size, method)
            cells.append(f"**{row['recall_at_1']:.4f}** · {_ms(row['p50_ms'])}" if row else "not measured")
        lines.append(f"| {size:,} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _small_print(rows), ""])


def long_table(rows: list[dict[str, Any]]) -> str:
    lines = ["| method | faces | similarity | recall@1 | p50 | p95 | probes |", "|---|--:|--:|--:|--:|--:|--:|"]
    for row in rows:
        if "similarity" in row and "searches_per_s" not in row:
            recall = "" if row["recall_at_1"] is None else f"{row['recall_at_1']:.4f}"
            lines.append(
                f"| {row['method']} | {row['size']:,} | {row['similarity']:.2f} | {recall} | {_ms(row['p50_ms'])} | "
                f"{_ms(row['p95_ms'])} | {row['probes']:,} |"
            )
    return "\n".join([*lines, "", _small_print(rows), ""])


def thread_table(rows: list[dict[str, Any]]) -> str:
    lines = ["| | faces | searches/s | p50 | p99 | errors |", "|---|--:|--:|--:|--:|--:|"]
    lines += [
        f"| {row['method']} | {row['size']:,} | {row['searches_per_s']:,.0f} | {_ms(row['p50_ms'])} | {_ms(row['p99_ms'])} | "
        f"{row['errors']} |"
        for row in rows
        if "searches_per_s" in row
    ]
    return "\n".join([*lines, ""])


def size_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| faces | import, faces/s | database, bytes a face | sketch loaded in | memory, bytes a face | "
        "auto / (scan + re-rank) | HNSW built in |",
        "|--:" * 7 + "|",
    ]
    for fact in (row for row in rows if row["method"] == "facts"):
        built = fact.get("hnsw_build_seconds")
        ratios = ", ".join(f"{ratio:.2f}" for ratio in fact["auto_to_scan_and_rerank"])
        lines.append(
            f"| {fact['size']:,} | {fact['import_faces_per_s']:,} | {fact['database_bytes_per_face']:,} | "
            f"{fact['load_seconds']:.2f} s | {fact['memory_bytes_per_face']:,.0f} | {ratios} | "
            f"{'not built' if built is None else f'{built:,.0f} s'} |"
        )
    return "\n".join([*lines, ""])


def recognition_table(figures: dict[str, Any]) -> str:
    machine = figures["machine"]
    stages = ", ".join(f"{name} {_ms(value)}" for name, value in figures["stage_ms"].items())
    return (
        f"On {figures['probes']} LFW photos of {figures['persons']} people, one photo each enrolled, threshold 0.35: "
        f"{figures['accepted_right']:.0%} found and right, {figures['accepted_wrong']:.0%} wrong, "
        f"{figures['other_region']} found in a region where the others are enrolled, {figures['other_client']} by another "
        "client. "
        f"{figures['photos_per_s']:.0f} photos/s from file to answer on one core of a {machine['processor']} "
        f"({stages}), {figures['ratio']:.2f} times the bare models.\n"
    )


def sizing_table(figures: dict[str, Any]) -> str:
    weights = dict(figures["bytes_per_face"])
    graph = weights.pop("idx_embedding_hnsw")
    table = weights.pop("face_encodings")
    rows = {
        "table of faces, without photos": table,
        "table of persons, and all indexes but HNSW": sum(weights.values()),
        "HNSW index, where it is wanted": graph,
        "a backup's file": figures["backup_bytes_per_face"],
        "sketch in memory, in each process": SKETCH_BYTES,
    }
    lines = ["| | bytes a face | a million faces |", "|---|--:|--:|"]
    lines += [f"| {name} | {weight:,.0f} | {weight / 1000:,.2f} GB |" for name, weight in rows.items()]
    faces, machine = figures["faces"], figures["machine"]
    times = ", ".join(
        f"{name} {figures[key]:,.0f} s"
        for name, key in (
            ("import", "import_seconds"),
            ("backup", "backup_seconds"),
            ("backup with its check", "checked_backup_seconds"),
            ("restore", "restore_seconds"),
            ("HNSW index", "hnsw_build_seconds"),
        )
    )
    return "\n".join(
        [
            *lines,
            "",
            f"Of a region of {faces:,} faces, one for each person, after a VACUUM ({machine['processor']}, {machine['cores']} "
            f"cores): {times}.",
            "",
        ]
    )


def load_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| connections | requests/s | of the bare pipeline | p50 | p95 | p99 | slowest 503 | errors, unanswered |",
        "|--:" * 8 + "|",
    ]
    machine = next(row for row in rows if row.get("method") == "machine")
    for row in rows:
        if "connections" in row:
            slowest = _ms(row["slowest_503_ms"]) if row["refused_503"] else "none"
            lines.append(
                f"| {row['connections']:,} | {row['requests_per_s']:.1f} | {row['ratio']:.2f} | {_ms(row['p50_ms'])} | "
                f"{_ms(row['p95_ms'])} | {_ms(row['p99_ms'])} | {slowest} | {row['errors'] + row['unanswered']} |"
            )
    return "\n".join(
        [*lines, "", f"{machine['processor']}, {machine['cores']} cores for server, clients and database.", ""]
    )


def import_table(figures: dict[str, Any]) -> str:
    lines = [
        "| embeddings stored as | read and checked (`--dry-run`), rows/s | imported, one a person, rows/s "
        "| three a person, rows/s | of a bare COPY | memory |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    several = {row["encoding"]: row for row in figures["encodings"] if row["faces_each"] > 1}
    lines += [
        f"| {row['encoding']} | {row['reading_per_s']:,} | {row['import_per_s']:,} | "
        f"{several[row['encoding']]['import_per_s']:,} | {row['of_bare_copy']:.2f} | {row['rss_mib']} MiB |"
        for row in figures["encodings"]
        if row["faces_each"] == 1
    ]
    machine = figures["machine"]
    return "\n".join(
        [
            *lines,
            "",
            f"{figures['faces']:,} embeddings of 512 numbers, without the HNSW index, medians of {figures['rounds']} runs; "
            f"{machine['processor']}, {machine['cores']} cores, PostgreSQL beside it.",
            "",
        ]
    )


def reembed_table(figures: dict[str, Any]) -> str:
    lines = ["| | filled, photos/s | recognised, photos/s | p50 | p95 |", "|---|--:|--:|--:|--:|"]
    for row in figures["runs"]:
        filled = f"{row['filled_per_s']:.1f}" if "filled_per_s" in row else ""
        recognised = (
            (f"{row['recognised_per_s']:.1f}", _ms(row["p50_ms"]), _ms(row["p95_ms"]))
            if "recognised_per_s" in row
            else ("", "", "")
        )
        lines.append(f"| {row['run']} | {filled} | {' | '.join(recognised)} |")
    machine = figures["machine"]
    return "\n".join(
        [
            *lines,
            "",
            f"{figures['faces']:,} faces, of LFW photos; {figures['seconds']:g} s each, one worker, `--nice` as it is by "
            f"default, and one caller who recognises without a pause. {machine['processor']}, {machine['cores']} cores, "
            "PostgreSQL beside it.",
            "",
        ]
    )


def _small_print(rows: list[dict[str, Any]]) -> str:
    machine = next(row for row in rows if row["method"] == "machine")
    probes = max(row["probes"] for row in rows if row.get("method") == "auto")
    return (
        f"Recall@1 against brute force, and median latency of one search; probes at cosine {SIMILARITY} to the enrolled "
        f"photo and {probes:,} of them for each figure, unless the table says otherwise; galleries drawn from the "
        f"eigen-spectrum of real embeddings. {machine['processor']}, {machine['cores']} cores, PostgreSQL 18 with pgvector "
        "beside it."
    )


def _find(rows: list[dict[str, Any]], size: int, method: str) -> dict[str, Any] | None:
    fitting = (row for row in rows if row["method"] == method and row["size"] == size)
    return next((row for row in fitting if row["similarity"] == SIMILARITY), None)


def _name(method: str) -> str:
    return "faceward (auto)" if method == "auto" else method


def _ms(value: float) -> str:
    return f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"


if __name__ == "__main__":
    for path, text in documents().items():
        path.write_text(text, encoding="utf-8")
