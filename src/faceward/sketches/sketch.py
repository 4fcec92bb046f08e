"""The sign bits of a gallery, scanned by FAISS 4-bit fast-scan and scored against the un-quantised probe.

The score of a face is the sum of the probe's values, each with the sign that the face's embedding has there: the inner
product of the probe and the face's signs. That is an inner product with a product quantiser of d/4 sub-vectors of 4
dimensions, whose 16 centroids are the 16 sign patterns, so FAISS's kernel for such quantisers (André, Kermarrec and
Le Scouarnec, "Cache locality is not enough", VLDB 2015) does the work, and nothing is trained.

What the kernel costs in exactness: it rounds the probe's look-up tables to 8 bits. The rounding depends on the probe
alone, so a face has the same score wherever and whenever it was added.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from faceward.errors import InvalidEmbeddingError, SketchTooLargeError

_BLOCK = 32
"""Faces that FAISS interleaves; the packed bytes of one block do not depend on any other block."""
_CHUNK = 8192
"""Faces packed at a time: they fit the second-level cache, and they alone exist twice while a sketch is built."""
_TAIL = 65_536
"""Most faces whose plain codes are kept beside the packed ones, so that later faces can join their segment."""
_STREAMED_BYTES = 16 << 20
"""A segment of this size or more is taken not to be in the processor's cache."""
_STREAMING_KERNEL = 15
"""FAISS's `implem`: on AVX-512 the default (13) is 1.5 times faster from cache, and half as fast from memory."""
_MOST_TIES = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The best faces of a sketch for one probe, best first.

    ids: int64, shape (k,). scores: float32, shape (k,): the inner product of the probe and the face's signs, falling.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)


def sign_codes(embeddings: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The bits of pgvector's `binary_quantize`: 1 where a value is above 0, the most significant bit first.

    embeddings: shape (..., dimension), the dimension a multiple of 8. Returns uint8, shape (..., dimension / 8).
    """
    return np.packbits(embeddings > 0, axis=-1)


def sketch_bytes(faces: int, dimension: int = 512) -> int:
    """The memory of a sketch in bytes: d/8 for each face in whole blocks, 8 for its id, and the centroids."""
    return -(-faces // _BLOCK) * _BLOCK * (dimension // 8) + 8 * faces + 64 * dimension


class SketchBuilder:
    """Builds a sketch from a stream of batches, without ever holding the gallery twice.

    dimension: of the embeddings, a multiple of 8. expected: how many faces will come, as well as is known; room for
    them is reserved at once, and more of them may come. max_bytes: SketchTooLargeError is raised as soon as the sketch
    would need more.
    """

    def __init__(self, dimension: int, expected: int, max_bytes: int | None = None) -> None:
        if dimension <= 0 or dimension % 8:
            raise ValueError(f"dimension = {dimension}: sketches need a positive multiple of 8.")
        if expected < 0:
            raise ValueError(f"expected = {expected}: a number of faces is not negative.")
        self._dimension = dimension
        self._expected = expected
        self._max_bytes = max_bytes
        self._segments: list[_Segment] = []
        self._check_size(expected)

    def add(self, codes: NDArray[np.uint8], ids: NDArray[np.int64]) -> None:
        """Add faces, each id once.

        codes: uint8, shape (n, dimension / 8), as `sign_codes` makes them. ids: int64, shape (n,). Both are copied.
        """
        if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != self._dimension // 8:
            raise ValueError(f"codes must be uint8 (n, {self._dimension // 8}), not {codes.dtype} {codes.shape}.")
        if ids.dtype != np.int64 or ids.shape != codes.shape[:1]:
            raise ValueError(f"ids must be int64 ({codes.shape[0]},), not {ids.dtype} {ids.shape}.")
        self._check_size(len(self) + len(ids))
        taken = 0
        while taken < len(ids):
            if not self._segments or not self._segments[-1].room:
                self._segments.append(_Segment(self._dimension, self._next_capacity(len(ids) - taken)))
            taken += self._segments[-1].add(codes[taken:], ids[taken:])

    def build(self) -> Sketch:
        """Finish the sketch. The builder is empty afterwards."""
        segments, self._segments = self._segments, []
        for segment in segments:
            segment.finish()
        return Sketch(self._dimension, tuple(segments))

    def __len__(self) -> int:
        return sum(len(segment) for segment in self._segments)

    def _next_capacity(self, waiting: int) -> int:
        held = len(self)
        return max(self._expected - held, waiting, min(held // 8, 1 << 20))

    def _check_size(self, faces: int) -> None:
        needed = sketch_bytes(faces, self._dimension)
        if self._max_bytes is not None and needed > self._max_bytes:
            raise SketchTooLargeError(faces, needed, self._max_bytes)


class Sketch:
    """The sign bits and ids of a gallery. Never changes: any number of threads may search it at once.

    A search runs on the calling thread alone, without Python's global lock.
    """

    def __init__(
        self,
        dimension: int,
        segments: tuple[_Segment, ...] = (),
        tail: tuple[NDArray[np.uint8], NDArray[np.int64]] | None = None,
    ) -> None:
        self.dimension = dimension
        self._segments = tuple(segment for segment in segments if len(segment))
        self._tail = tail

    def __len__(self) -> int:
        return sum(len(segment) for segment in self._segments)

    @property
    def nbytes(self) -> int:
        """The memory this sketch holds, in bytes."""
        tail = sum(array.nbytes for array in self._tail) if self._tail else 0
        return sum(segment.nbytes for segment in self._segments) + tail

    def search(self, probe: NDArray[np.float32], k: int) -> Candidates:
        """The k best faces for one probe, or all where there are fewer.

        probe: shape (dimension,), the embedding as it is, not its signs. Raises InvalidEmbeddingError for another shape
        or values that are not finite or all zero.

        Equal scores are in the order of their ids, and the answer does not depend on the order in which faces were
        added, unless more than 4096 faces share the score of the last one: then it is open which of those are in.
        """
        return self.search_many(np.asarray(probe, dtype=np.float32)[np.newaxis], k)[0]

    def search_many(self, probes: NDArray[np.float32], k: int) -> list[Candidates]:
        """As `search`, for several probes, shape (n, dimension): faster than one after the other."""
        rows = np.ascontiguousarray(probes, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.dimension:
            raise InvalidEmbeddingError(
                f"A probe must be {self.dimension} numbers; this one has the shape {rows.shape[1:]}."
            )
        if not np.isfinite(rows).all():
            raise InvalidEmbeddingError("A probe must be finite numbers; this one holds NaN or infinity.")
        if not rows.any(axis=1).all():
            raise InvalidEmbeddingError("A probe must have a direction; this one is all zeros.")
        if k <= 0:
            raise ValueError(f"k = {k}: ask for at least one candidate.")
        if not len(rows):
            return []
        with _on_this_thread_alone(len(rows)):
            return self._search(rows, k)

    def _search(self, rows: NDArray[np.float32], k: int) -> list[Candidates]:
        # A few more than k show whether a run of equal scores ends inside the answer, or is cut arbitrarily by FAISS.
        wanted = k + 16 + k // 8
        found = [segment.search(rows, wanted) for segment in self._segments]
        if not found:
            return [Candidates(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in rows]
        answers = []
        for row in range(len(rows)):
            answer, whole = _merge([(scores[row], ids[row]) for scores, ids in found], self._segments, k)
            ties = wanted
            while not whole and ties < wanted + _MOST_TIES:
                ties = min(4 * ties, wanted + _MOST_TIES)
                again = [segment.search(rows[row : row + 1], ties) for segment in self._segments]
                answer, whole = _merge([(scores[0], ids[0]) for scores, ids in again], self._segments, k)
            answers.append(answer)
        return answers

    def contains(self, ids: NDArray[np.int64]) -> bool:
        """Whether any of these faces is in the sketch."""
        return any(segment.contains(ids).any() for segment in self._segments)

    def extended(self, codes: NDArray[np.uint8], ids: NDArray[np.int64]) -> Sketch:
        """A new sketch with these faces as well; all but the newest of this one's memory is shared by both.

        An id names one embedding for ever: faces whose id is here already are left out. Arguments as of
        `SketchBuilder.add`.
        """
        known = np.zeros(len(ids), dtype=bool)
        for segment in self._segments:
            known |= segment.contains(ids)
        frozen = self._segments
        codes, ids = codes[~known], ids[~known]
        if self._tail is not None:
            frozen = self._segments[:-1]
            codes, ids = np.concatenate([self._tail[0], codes]), np.concatenate([self._tail[1], ids])
        builder = SketchBuilder(self.dimension, len(ids))
        builder.add(codes, ids)
        tail = (codes, ids) if 0 < len(ids) <= _TAIL else None
        return Sketch(self.dimension, (*frozen, *builder.build()._segments), tail)


@dataclass(slots=True, eq=False)
class _Segment:
    """Packed codes and ids with room for `capacity` faces; frozen once finished."""

    dimension: int
    capacity: int
    _index: Any = field(init=False)
    _packer: Any = field(init=False)
    _packed: NDArray[np.uint8] = field(init=False)
    _ids: NDArray[np.int64] = field(init=False)
    _chunk: NDArray[np.uint8] = field(init=False)
    _waiting: int = field(init=False, default=0)
    _filled: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        sub_vectors = self.dimension // 4
        centroids = _centroids(self.dimension)
        self._packer = faiss.IndexPQ(self.dimension, sub_vectors, 4, faiss.METRIC_INNER_PRODUCT)
        self._index = faiss.IndexPQFastScan(self.dimension, sub_vectors, 4, faiss.METRIC_INNER_PRODUCT, _BLOCK)
        for index in (self._packer, self._index):
            faiss.copy_array_to_vector(centroids, index.pq.centroids)
            index.is_trained = True
        blocks = -(-self.capacity // _BLOCK)
        size = blocks * _BLOCK * self.dimension // 8
        self._index.codes.resize(size)
        # Memory that FAISS owns: pages that no face was written to are never touched.
        self._packed = faiss.rev_swig_ptr(self._index.codes.get(), size)
        self._ids = np.empty(self.capacity, dtype=np.int64)
        self._chunk = np.empty((min(_CHUNK, self.capacity), self.dimension // 8), dtype=np.uint8)

    def __len__(self) -> int:
        return self._filled + self._waiting

    @property
    def room(self) -> int:
        return self.capacity - len(self)

    @property
    def nbytes(self) -> int:
        return sketch_bytes(len(self), self.dimension)

    def add(self, codes: NDArray[np.uint8], ids: NDArray[np.int64]) -> int:
        """Take as many of the faces as there is room for in the chunk; returns how many."""
        count = min(len(ids), len(self._chunk) - self._waiting, self.room)
        # FAISS has the first sub-vector in the low half of a byte; the first bits of a code are in the high half.
        part = codes[:count]
        self._chunk[self._waiting : self._waiting + count] = (part << 4) | (part >> 4)
        self._ids[len(self) : len(self) + count] = ids[:count]
        self._waiting += count
        if self._waiting == len(self._chunk) or not self.room:
            self._pack()
        return count

    def finish(self) -> None:
        if self._waiting:
            self._pack()
        self._ids = self._ids[: self._filled]
        self._index.ntotal = self._filled
        self._index.ntotal2 = -(-self._filled // _BLOCK) * _BLOCK
        if self.nbytes >= _STREAMED_BYTES:
            self._index.implem = _STREAMING_KERNEL
        self._packer = None
        self._chunk = self._chunk[:0].copy()

    def _pack(self) -> None:
        self._packer.reset()
        self._packer.add_sa_codes(self._chunk[: self._waiting])
        piece = faiss.IndexPQFastScan(self._packer, _BLOCK)
        size = -(-self._waiting // _BLOCK) * _BLOCK * self.dimension // 8
        start = self._filled * self.dimension // 8
        self._packed[start : start + size] = faiss.rev_swig_ptr(piece.codes.get(), size)
        self._filled += self._waiting
        self._waiting = 0

    def search(self, rows: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The scores, falling, and the ids of the k best, or of all; both of shape (len(rows), at most k)."""
        scores, positions = self._index.search(rows, min(k, self._filled))
        found = self._ids[positions]
        # FAISS leaves out the faces that have the lowest score there can be: the probe's sign nowhere.
        for row in np.flatnonzero(positions[:, -1] < 0):
            kept = np.count_nonzero(positions[row] >= 0)
            left_out = np.sort(np.delete(self._ids, positions[row, :kept]))
            found[row, kept:] = left_out[: found.shape[1] - kept]
            scores[row, kept:] = -np.abs(rows[row]).sum()
        return scores, found

    def contains(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.isin(ids, self._ids)


def _merge(
    parts: list[tuple[NDArray[np.float32], NDArray[np.int64]]], segments: tuple[_Segment, ...], k: int
) -> tuple[Candidates, bool]:
    """The k best of all segments, and whether every face that ties with the last of them was among the parts."""
    scores = np.concatenate([part[0] for part in parts])
    ids = np.concatenate([part[1] for part in parts])
    order = np.lexsort((ids, -scores))[:k]
    last = scores[order[-1]]
    whole = all(
        len(part) == len(segment) or part[-1] < last for (part, _), segment in zip(parts, segments, strict=True)
    )
    return Candidates(ids[order], scores[order]), whole


def _centroids(dimension: int) -> NDArray[np.float32]:
    """The 16 sign patterns of 4 dimensions, for each sub-vector: float32, flat, as FAISS keeps them."""
    patterns = np.unpackbits(np.arange(16, dtype=np.uint8)[:, np.newaxis], axis=1)[:, 4:]
    signs = patterns.astype(np.float32) * 2 - 1
    return np.tile(signs.ravel(), dimension // 4)


@contextmanager
def _on_this_thread_alone(probes: int) -> Iterator[None]:
    """Keep FAISS from spreading several probes over OpenMP threads; one probe never leaves its thread.

    The number of OpenMP threads belongs to the calling thread, so no other thread sees the change.
    """
    if probes == 1:
        yield
        return
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
