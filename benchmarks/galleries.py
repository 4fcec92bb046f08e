"""Galleries and probes for the benchmarks: the same numbers for the same seed, in blocks of bounded memory.

The noise model and its figures are those of the package (`faceward.evaluation`), so that an audit of a real gallery
and these benchmarks ask alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from faceward.evaluation.noise_model import NoiseModel, Rows

BLOCK = 16_384


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """`faces` persons with one enrolled photo each. Face i is the same for every size of gallery of the same seed."""

    faces: int
    seed: int = 0
    model: NoiseModel = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", NoiseModel.load(self.seed))

    def persons(self) -> Iterator[Rows]:
        """The persons' own directions, block by block: float32 (up to 16384, dimension)."""
        for block, count in self._blocks():
            yield self.model.persons(count, self._rng("persons", block))

    def enrolled(self) -> Iterator[Rows]:
        """The enrolled photos, block by block: float32 (up to 16384, dimension)."""
        for block, _ in self._blocks():
            yield self.block(block)

    def block(self, block: int) -> Rows:
        """The enrolled photos of one block: faces 16384 * block and on."""
        count = min(BLOCK, self.faces - block * BLOCK)
        persons = self.model.persons(count, self._rng("persons", block))
        return self.model.photos(persons, self._rng("photos", block))

    def probes(self, count: int, similarity: float, blocks: int = 8) -> tuple[Rows, NDArray[np.int64]]:
        """New photos of enrolled people: each at exactly that cosine to its enrolled photo.

        Returns the probes and the positions of their faces in the gallery. The faces are drawn from a few blocks that
        lie evenly over the gallery, so that no more of it has to be made again.
        """
        rng = self._rng("probes", round(similarity * 1000))
        all_blocks = -(-self.faces // BLOCK)
        chosen = np.unique(np.linspace(0, all_blocks - 1, blocks).round().astype(int))
        shares = np.diff(np.linspace(0, count, len(chosen) + 1).round().astype(int))
        probes, positions = [], []
        for block, share in zip(chosen.tolist(), shares.tolist(), strict=True):
            enrolled = self.block(block)
            rows = rng.choice(len(enrolled), share, replace=share > len(enrolled))
            probes.append(self.model.near(enrolled[rows], similarity, rng))
            positions.append(rows.astype(np.int64) + block * BLOCK)
        return np.concatenate(probes), np.concatenate(positions)

    def _blocks(self) -> Iterator[tuple[int, int]]:
        for block in range(-(-self.faces // BLOCK)):
            yield block, min(BLOCK, self.faces - block * BLOCK)

    def _rng(self, stream: str, block: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *stream.encode(), block])
