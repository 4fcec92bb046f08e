"""Every face of a region against every other: how near its own person's others are, and which other person is nearest.

Exact products of blocks. One block is held in memory and the faces after it stream past, so that each pair meets once;
what is kept of a face is a few numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from faceward.evaluation.noise_model import Rows
from faceward.store.gallery_scan import FiledFaces, GallerySnapshot

NOBODY = -2.0
"""Less than any similarity."""

_TILE = 2_048
_SAMPLED = 32
_MOST_TILES = 512
_ENOUGH = 1_000
Ints: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]

Told = Callable[[int], None]
"""Told how many pairs were compared since the last time."""


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """What each face of a region met, in the order of its faces.

    own: the best similarity to another face of the same person. other: that to a face of another person, where it reaches
    the floor. Both are NOBODY where there is none. other_face: the id of that face, else 0; other_person: whose it is.
    """

    own: NDArray[np.float32] = field(repr=False)
    other: NDArray[np.float32] = field(repr=False)
    other_face: Ints = field(repr=False)
    other_person: Ints = field(repr=False)

    @classmethod
    def of(cls, faces: FiledFaces) -> Nearest:
        n = len(faces)
        return cls(
            np.full(n, NOBODY, np.float32), np.full(n, NOBODY, np.float32), np.zeros(n, np.int64), np.zeros(n, np.int64)
        )


@dataclass(slots=True)
class Strangers:
    """How alike strangers are, from a sample of the pairs that met. pairs: all of them."""

    pairs: int = 0
    _sample: list[NDArray[np.float32]] = field(default_factory=list)
    _tiles: int = 0
    _every: int = 1

    def add(self, scores: NDArray[np.float32], pairs: int) -> None:
        """Take a tile of similarities into the sample, NOBODY for those of one person."""
        self.pairs += pairs
        self._tiles += 1
        if self._tiles % self._every:
            return
        step = [max(1, side // _SAMPLED) for side in scores.shape]
        part = scores[:: step[0], :: step[1]].ravel()
        self._sample.append(part[part > NOBODY])
        if len(self._sample) == _MOST_TILES:  # every second one, and from now on half as often
            self._sample = self._sample[1::2]
            self._every *= 2

    def reach(self) -> float:
        """The similarity that, in two galleries of this kind and size, one pair of strangers reaches by chance.

        Their similarities are taken to be normal, with the median and the spread of the middle two thirds: a few persons
        who are enrolled twice don't move these. Of too few pairs nothing is known: NOBODY.
        """
        sample = np.concatenate(self._sample) if self._sample else np.empty(0, np.float32)
        if len(sample) < _ENOUGH:
            return NOBODY
        low, middle, high = np.quantile(sample, [0.1587, 0.5, 0.8413]).tolist()
        return float(middle - NormalDist().inv_cdf(0.5 / self.pairs) * (high - low) / 2)


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """Some faces of a region with their embeddings. at: their places among the region's faces. whose: tells persons apart."""

    rows: Rows
    at: Ints
    whose: Ints
    faces: FiledFaces
    met: Nearest

    def without(self, left_out: Mask) -> _Side:
        """left_out: of all faces of the region."""
        kept = ~left_out[self.at]
        if kept.all():
            return self
        return _Side(self.rows[kept], self.at[kept], self.whose[kept], self.faces, self.met)

    def parts(self) -> Iterator[_Side]:
        for start in range(0, len(self.rows), _TILE):
            cut = slice(start, start + _TILE)
            yield _Side(self.rows[cut], self.at[cut], self.whose[cut], self.faces, self.met)


def compare_region(
    snapshot: GallerySnapshot,
    region: str,
    faces: FiledFaces,
    floor: float,
    block: int,
    strangers: Strangers,
    told: Told,
) -> Nearest:
    """Every face of a region against all others of it. floor: the similarity from which on other persons matter.

    block: the most faces held in memory.
    """
    met = Nearest.of(faces)
    after = 0
    while after < (int(faces.ids[-1]) if len(faces) else 0):
        rows, ids = snapshot.block(region, after, min(block, len(faces)))
        parts = list(_side(rows, ids, faces, faces.persons, met).parts())
        for number, part in enumerate(parts):
            for other in parts[number:]:
                _meet(part, other, floor, strangers, told, one_region=True)
        after = int(ids[-1])
        if after < faces.ids[-1]:
            for rows, ids in snapshot.embeddings(region, after):
                for other in _side(rows, ids, faces, faces.persons, met).parts():
                    for part in parts:
                        _meet(part, other, floor, strangers, told, one_region=True)
    return met


def compare_again(
    snapshot: GallerySnapshot,
    region: str,
    faces: FiledFaces,
    met: Nearest,
    again: Mask,
    left_out: Mask,
    floor: float,
    block: int,
) -> None:
    """Look for the nearest of other persons anew for some faces, among those that are not left out."""
    met.other[again], met.other_face[again], met.other_person[again] = NOBODY, 0, 0
    places = np.flatnonzero(again)
    for start in range(0, len(places), block):
        at = places[start : start + block]
        held = _Side(snapshot.rows_of(region, faces.ids[at]), at, faces.persons[at], faces, met)
        for rows, ids in snapshot.embeddings(region):
            passing = _side(rows, ids, faces, faces.persons, met).without(left_out)
            for part in held.parts():
                scores = part.rows @ passing.rows.T
                scores[_of_one_person(part.whose, passing.whose)] = NOBODY
                _keep_nearest(part, passing, scores, floor)


@dataclass(frozen=True, slots=True, eq=False)
class Elsewhere:
    """One of two regions that are compared. whose: tells persons apart, also of both regions. met: what the faces met in
    other regions. left_out: faces that take no part.
    """

    region: str
    faces: FiledFaces
    whose: Ints
    met: Nearest
    left_out: Mask

    def side(self, rows: Rows, ids: Ints) -> _Side:
        return _side(rows, ids, self.faces, self.whose, self.met).without(self.left_out)


def compare_regions(
    snapshot: GallerySnapshot,
    one: Elsewhere,
    other: Elsewhere,
    floor: float,
    block: int,
    strangers: Strangers,
    told: Told,
) -> None:
    """Every face of one region against all of another."""
    after = 0
    while after < (int(one.faces.ids[-1]) if len(one.faces) else 0):
        rows, ids = snapshot.block(one.region, after, min(block, len(one.faces)))
        parts = list(one.side(rows, ids).parts())
        for batch in snapshot.embeddings(other.region):
            for passing in other.side(*batch).parts():
                for part in parts:
                    _meet(part, passing, floor, strangers, told, one_region=False)
        after = int(ids[-1])


def _side(rows: Rows, ids: Ints, faces: FiledFaces, whose: Ints, met: Nearest) -> _Side:
    at = np.searchsorted(faces.ids, ids)
    return _Side(rows, at, whose[at], faces, met)


def _meet(a: _Side, b: _Side, floor: float, strangers: Strangers, told: Told, *, one_region: bool) -> None:
    """Compare two parts, or a part with itself, and keep what is nearest."""
    scores = a.rows @ b.rows.T
    i, j = _of_one_person(a.whose, b.whose)
    if one_region:
        itself = a.at[i] == b.at[j]
        own = np.where(itself, np.float32(NOBODY), scores[i, j])
        np.maximum.at(a.met.own, a.at[i], own)
        np.maximum.at(b.met.own, b.at[j], own)
    scores[i, j] = NOBODY
    share = 2 if a is b else 1  # a part that meets itself holds each pair twice
    strangers.add(scores, (scores.size - len(i)) // share)
    _keep_nearest(a, b, scores, floor)
    _keep_nearest(b, a, scores.T, floor)
    told(scores.size // share)


def _keep_nearest(a: _Side, b: _Side, scores: NDArray[np.float32], floor: float) -> None:
    if not scores.size:
        return
    best = scores.max(axis=1)
    nearer = np.flatnonzero((best >= floor) & (best > a.met.other[a.at]))
    if len(nearer):
        at, found = a.at[nearer], b.at[scores[nearer].argmax(axis=1)]
        a.met.other[at] = best[nearer]
        a.met.other_face[at] = b.faces.ids[found]
        a.met.other_person[at] = b.faces.persons[found]


def _of_one_person(a: Ints, b: Ints) -> tuple[Ints, Ints]:
    """All places (i, j) with a[i] == b[j]."""
    order = np.argsort(b, kind="stable")
    ordered = b[order]
    first = np.searchsorted(ordered, a, "left")
    counts = np.searchsorted(ordered, a, "right") - first
    i = np.repeat(np.arange(len(a)), counts)
    run = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)
    return i, order[np.repeat(first, counts) + run]
