"""Finding faces: RFB-320 over the whole image, then over tiles where the image holds more than that pass can see.

The network sees 320 x 240 pixels and finds nearly every face of 18 pixels there, half of those of 12 (measured on LFW
faces pasted at each size). So an image much larger than that is scanned again in tiles at 1.85 times the scale, and
again, for as long as the last scan shows signs of faces too small for it. A portrait ends after the first pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from faceward.errors import PackDamagedError
from faceward.types import BGRImage, Box
from faceward.vision.runtimes import InferenceSession
from faceward.vision.tensors import InputConvention, image_tensor

INPUT = InputConvention(width=320, height=240, colour="rgb", mean=127.0, scale=128.0)
ANCHORS = 4420
SCORE_THRESHOLD = 0.65
"""The authors' value, as is the overlap of 0.4 above which two boxes are one face."""
OVERLAP = 0.4
_INSIDE = 0.7
"""A box of which so much lies in a surer one is a part of that face."""
_HINT = 0.3
"""A score that is no face yet, but a reason to look closer: 5 of 6 faces of 12 pixels reach it."""
_SMALL = 32
"""Pixels of the network's input. Where faces this small are seen there may be others too small to be seen."""
_STEP = 1.85
"""From one scale to the next: two tiles of 320 with their overlap cover 600 pixels, little less than 1.85 x 320."""
_TILE_OVERLAP = 40
_MOST_TILES = 64
_LARGE = 1600
"""Pixels of the original's longer side. Such an image is always scanned at a second scale."""


@dataclass(frozen=True, slots=True)
class Detection:
    """A face found. box: pixels of the image given, may reach beyond its border. confidence: 0..1."""

    box: Box
    confidence: float


@dataclass(frozen=True, slots=True)
class _View:
    """A part of the image in the network's input: input = image x scale + offset."""

    canvas: BGRImage
    scale: float
    x: float
    y: float
    open_edges: tuple[bool, bool, bool, bool] = (False, False, False, False)
    """Left, top, right, bottom: whether the image goes on there, so that a face may be cut."""


_Found = NDArray[np.float32]
"""Shape (n, 5): left, top, right, bottom in pixels of the image, score; best first."""


class FaceDetector:
    """Ultra-light RFB-320 (Linzaer, 2019), with passes of our own for tight crops, groups and large images.

    session: 1 x 3 x 240 x 320 RGB (x - 127) / 128 to scores 1 x 4420 x 2 and boxes 1 x 4420 x 4, corners in 0..1.
    Raises PackDamagedError for a model of other shapes.
    """

    def __init__(self, session: InferenceSession, *, threshold: float = SCORE_THRESHOLD) -> None:
        expected = ((1, ANCHORS, 2), (1, ANCHORS, 4))
        if session.input_shape != (1, 3, INPUT.height, INPUT.width) or session.output_shapes != expected:
            raise PackDamagedError(
                f"The detection model takes {session.input_shape} and gives {session.output_shapes}; RFB-320 takes "
                f"(1, 3, {INPUT.height}, {INPUT.width}) and gives {expected}."
            )
        self._session = session
        self._threshold = threshold

    def detect(self, pixels: BGRImage, *, original_longer_side: int | None = None) -> list[Detection]:
        """The faces of an image, surest first.

        original_longer_side: of the image before a reduced decode.
        """
        height, width = pixels.shape[:2]
        first = _letterbox(pixels, 0)
        found = self._look(first)
        if not self._has_face(found):
            # A tight crop fills the view with a face larger than any the network was taught.
            bordered = self._look(_letterbox(pixels, max(width, height) // 2))
            found = _merge([found, bordered])
        scale = first.scale
        large = (original_longer_side or max(width, height)) >= _LARGE
        for depth in range(16):
            needed = not self._has_face(found) or (large and depth == 0) or _shows_small(found, scale)
            scale = min(1.0, scale * _STEP)
            if not needed or scale < first.scale * 1.3 or _tile_count(width, height, scale) > _MOST_TILES:
                break
            found = _merge([found, *(self._look(view) for view in _tiles(pixels, scale))])
            if scale == 1.0:
                break
        return [
            Detection(Box(*(float(edge) for edge in row[:4])), float(row[4]))
            for row in found
            if row[4] >= self._threshold and _centred_inside(row, width, height)
        ]

    def _has_face(self, found: _Found) -> bool:
        return bool(len(found)) and float(found[0, 4]) >= self._threshold

    def _look(self, view: _View) -> _Found:
        scores, boxes = self._session.run(image_tensor(view.canvas, INPUT))
        sure = scores[0, :, 1]
        chosen = np.flatnonzero(sure > _HINT)
        found = np.empty((len(chosen), 5), np.float32)
        if not len(chosen):
            return found
        found[:, :4] = boxes[0, chosen]
        found[:, 0:4:2] *= INPUT.width
        found[:, 1:4:2] *= INPUT.height
        found[:, 4] = sure[chosen]
        if any(view.open_edges):
            found = found[_not_cut(found, view.open_edges)]
        found[:, 0:4:2] = (found[:, 0:4:2] - view.x) / view.scale
        found[:, 1:4:2] = (found[:, 1:4:2] - view.y) / view.scale
        return _suppress(found)


def _letterbox(pixels: BGRImage, border: int) -> _View:
    """The whole image in the network's input with its shape kept, and a black border of so many of its pixels."""
    height, width = pixels.shape[:2]
    scale = min(INPUT.width / (width + 2 * border), INPUT.height / (height + 2 * border))
    inner = (max(1, min(INPUT.width, round(width * scale))), max(1, min(INPUT.height, round(height * scale))))
    x, y = (INPUT.width - inner[0]) // 2, (INPUT.height - inner[1]) // 2
    canvas = np.zeros((INPUT.height, INPUT.width, 3), np.uint8)
    canvas[y : y + inner[1], x : x + inner[0]] = _shrink(pixels, inner)
    return _View(canvas, scale, x, y)


def _shrink(pixels: BGRImage, size: tuple[int, int]) -> BGRImage:
    # Bilinear sampling skips pixels where an image is made much smaller, and small faces fall between them.
    far = pixels.shape[1] > 1.5 * size[0]
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if far else cv2.INTER_LINEAR), np.uint8)


def _tile_grid(width: int, height: int, scale: float) -> tuple[int, int]:
    columns = math.ceil((width * scale - _TILE_OVERLAP) / (INPUT.width - _TILE_OVERLAP))
    rows = math.ceil((height * scale - _TILE_OVERLAP) / (INPUT.height - _TILE_OVERLAP))
    return max(1, columns), max(1, rows)


def _tile_count(width: int, height: int, scale: float) -> int:
    columns, rows = _tile_grid(width, height, scale)
    return columns * rows


def _tiles(pixels: BGRImage, scale: float) -> Iterator[_View]:
    height, width = pixels.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    level = pixels if scale == 1.0 else _shrink(pixels, size)
    columns, rows = _tile_grid(width, height, scale)
    for top in _starts(size[1], INPUT.height, rows):
        for left in _starts(size[0], INPUT.width, columns):
            part = level[top : top + INPUT.height, left : left + INPUT.width]
            canvas = np.zeros((INPUT.height, INPUT.width, 3), np.uint8)
            canvas[: part.shape[0], : part.shape[1]] = part
            edges = (left > 0, top > 0, left + INPUT.width < size[0], top + INPUT.height < size[1])
            yield _View(canvas, scale, -left, -top, edges)


def _starts(length: int, tile: int, count: int) -> list[int]:
    if count == 1:
        return [0]
    return [round(index * (length - tile) / (count - 1)) for index in range(count)]


def _not_cut(found: _Found, open_edges: tuple[bool, bool, bool, bool]) -> NDArray[np.bool_]:
    """Faces that an inner edge of a tile does not cut; the tile beside it shows the others whole."""
    left, top, right, bottom = open_edges
    kept = np.ones(len(found), np.bool_)
    if left:
        kept &= found[:, 0] > 1
    if top:
        kept &= found[:, 1] > 1
    if right:
        kept &= found[:, 2] < INPUT.width - 1
    if bottom:
        kept &= found[:, 3] < INPUT.height - 1
    return kept


def _shows_small(found: _Found, scale: float) -> bool:
    return bool(np.any((found[:, 3] - found[:, 1]) * scale < _SMALL))


def _centred_inside(row: NDArray[np.float32], width: int, height: int) -> bool:
    return bool(0 <= row[0] + row[2] <= 2 * width and 0 <= row[1] + row[3] <= 2 * height)


def _merge(parts: list[_Found]) -> _Found:
    return _suppress(np.concatenate(parts))


def _suppress(found: _Found) -> _Found:
    """Greedy non-maximum suppression: of boxes that are one face, the surest stays."""
    found = found[np.argsort(-found[:, 4], kind="stable")]
    areas = (found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1])
    found, areas = found[areas > 0], areas[areas > 0]
    kept = []
    while len(found):
        best = found[0]
        kept.append(best)
        overlap = np.minimum(found[:, 2:4], best[2:4]) - np.maximum(found[:, :2], best[:2])
        common = np.maximum(overlap[:, 0], 0) * np.maximum(overlap[:, 1], 0)
        union = areas + areas[0] - common
        apart = (common <= OVERLAP * union) & (common <= _INSIDE * np.minimum(areas, areas[0]))
        apart[0] = False
        found, areas = found[apart], areas[apart]
    return np.array(kept, np.float32).reshape(-1, 5)
