"""The pictures of the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

SHOWN = {
    "auto": ("faceward (auto)", "#0b6e4f", "o", "-"),
    "exact": ("exact SQL", "#3a7ca5", "s", "-"),
    "HNSW ef_search 40": ("HNSW, ef_search 40", "#e08e45", "v", "--"),
    "HNSW ef_search 200": ("HNSW, ef_search 200", "#d1603d", "^", "--"),
    "HNSW ef_search 800": ("HNSW, ef_search 800", "#a31621", "D", "--"),
    "bound: FAISS flat, in memory": ("FAISS flat, in memory", "#8d99ae", "x", ":"),
}


def plot_search(rows: list[dict[str, Any]], path: Path, machine: dict[str, Any], similarity: float = 0.58) -> None:
    """Latency and recall against the size of the region, for one similarity."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    for method, (label, colour, marker, line) in SHOWN.items():
        points = sorted(
            (row["size"], row["p50_ms"], row["recall_at_1"])
            for row in rows
            if row["method"] == method and row["similarity"] == similarity
        )
        if not points:
            continue
        sizes, latency, recall = zip(*points, strict=True)
        style = {"color": colour, "marker": marker, "linestyle": line, "label": label}
        left.plot(sizes, latency, **style)
        right.plot(sizes, recall, **style)
    left.set(xscale="log", yscale="log", xlabel="faces in the region", ylabel="median latency of a search, ms")
    right.set(xscale="log", xlabel="faces in the region", ylabel="recall@1", ylim=(0, 1.04))
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8)
    figure.suptitle(
        f"Probes at cosine {similarity} to their enrolled photo · {machine['processor']}, {machine['cores']} cores",
        fontsize=9,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
