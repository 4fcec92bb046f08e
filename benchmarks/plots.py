"""The pictures of the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

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
    _save(figure, path)


def plot_bars(path: Path | None, title: str, values: dict[str, float], unit: str) -> None:
    """One bar for each figure, the first at the top. Nothing where path is None."""
    if path is None:
        return
    figure, axes = plt.subplots(figsize=(8, 0.7 + 0.36 * len(values)), constrained_layout=True)
    bars = axes.barh(list(values), list(values.values()), color="#0b6e4f")
    labels = [f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" for value in values.values()]
    axes.bar_label(bars, labels=labels, padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel=unit, title=title)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def plot_lines(
    path: Path | None, title: str, lines: dict[str, list[tuple[float, float]]], across: str, up: str
) -> None:
    """Logarithmic both ways. Nothing where path is None."""
    if path is None:
        return
    figure, axes = plt.subplots(figsize=(8, 4.5), constrained_layout=True)
    for label, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel=across, ylabel=up, title=title)
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
