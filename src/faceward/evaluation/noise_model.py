"""Embeddings that are spread as those of real faces are, drawn from an eigen-spectrum and holding no face's data.

The figures are in `face_spectrum.json`: the eigenvalues of real embeddings around their own person's mean, and how
similar a photo is to its person's mean. A person is a direction of that spectrum; a photo is the person's direction
turned by a random angle towards another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.float32]
"""Unit rows, float32, shape (n, dimension)."""

SPECTRUM = Path(__file__).with_name("face_spectrum.json")


@dataclass(frozen=True, slots=True, eq=False)
class NoiseModel:
    """The spectrum, turned into the axes of one random basis.

    scales: shape (dimension,), the standard deviation along each axis of the basis. basis: shape (dimension,
    dimension), orthonormal rows. levels, similarities: the quantiles of a photo's cosine to its person's mean.
    """

    scales: NDArray[np.float32] = field(repr=False)
    basis: NDArray[np.float32] = field(repr=False)
    levels: NDArray[np.float64] = field(repr=False)
    similarities: NDArray[np.float64] = field(repr=False)

    @classmethod
    def load(cls, seed: int = 0, path: Path = SPECTRUM) -> NoiseModel:
        """Read a spectrum. seed: of the random basis; galleries and probes that meet must share it."""
        figures = json.loads(path.read_text(encoding="utf-8"))
        eigenvalues = np.asarray(figures["eigenvalues"], dtype=np.float64)
        quantiles: Mapping[str, float] = figures["photo_to_own_mean"]["quantiles"]
        levels = sorted((float(level), similarity) for level, similarity in quantiles.items())
        square = np.random.default_rng([seed, 0]).standard_normal((len(eigenvalues), len(eigenvalues)))
        return cls(
            scales=np.sqrt(eigenvalues).astype(np.float32),
            basis=np.linalg.qr(square)[0].astype(np.float32),
            levels=np.array([level for level, _ in levels]),
            similarities=np.array([similarity for _, similarity in levels]),
        )

    @property
    def dimension(self) -> int:
        return len(self.scales)

    def persons(self, count: int, rng: np.random.Generator) -> Rows:
        """The directions of that many persons, as embeddings."""
        return self._directions(count, rng) @ self.basis

    def photos(self, persons: Rows, rng: np.random.Generator, similarity: float | None = None) -> Rows:
        """One photo of each person.

        similarity: its cosine to the person's direction; drawn from the spectrum's quantiles where it is None.
        """
        if similarity is None:
            drawn = rng.spawn(1)[0].random(
                len(persons)
            )  # a stream of its own: the first rows of a longer call are equal
            return self.near(persons, np.interp(drawn, self.levels, self.similarities), rng)
        return self.near(persons, similarity, rng)

    def near(self, embeddings: Rows, similarity: float | NDArray[np.float64], rng: np.random.Generator) -> Rows:
        """For each embedding another one at exactly that cosine, in a random direction of the spectrum.

        similarity: one for all, or one for each, -1..1.
        """
        cosine = np.broadcast_to(np.asarray(similarity, dtype=np.float32), len(embeddings))[:, np.newaxis]
        other = self._directions(len(embeddings), rng) @ self.basis
        other -= np.einsum("ij,ij->i", other, embeddings)[:, np.newaxis] * embeddings
        other *= np.sqrt(1 - cosine * cosine) / np.linalg.norm(other, axis=1, keepdims=True)
        other += cosine * embeddings
        return other

    def _directions(self, count: int, rng: np.random.Generator) -> Rows:
        """Unit rows in the axes of the basis."""
        rows = rng.standard_normal((count, self.dimension), dtype=np.float32)
        rows *= self.scales
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows
