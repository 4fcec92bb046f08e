"""Finding faces: RFB-320 over the whole image, then over tiles where the image holds more than that pass can see.

The network sees 320 x 240 pixels and finds nearly every face of 18 pixels there, half of those of 12 (measured on LFW
faces pasted at each size). So an image much larger than that is scanned again in tiles at 1.85 times the scale, and
again, for as long as the last scan shows signs of faces too small for it. A portrait ends after the first pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

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
_EDGE = 1 / 240
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

    def cuts(self, left: float, top: float, right: float, bottom: float) -> bool:
        """Whether an inner edge of a tile cuts the face (0..1 of the input); the tile beside it shows it whole."""
        beyond = (left < _EDGE, top < _EDGE, right > 1 - _EDGE, bottom > 1 - _EDGE)
        return any(cut and inner for cut, inner in zip(beyond, self.open_edges, strict=True))


class _Candidate(NamedTuple):
    """A box that may be a face, in pixels of the image."""

    left: float
    top: float
    right: float
    bottom: float
    score: float

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)


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
            found = _suppress(found + self._look(_letterbox(pixels, max(width, height) // 2)))
        scale = first.scale
        large = (original_longer_side or max(width, height)) >= _LARGE
        while not self._has_face(found) or large or _shows_small(found, scale):
            large = False
            scale = min(1.0, scale * _STEP)
            if scale < first.scale * 1.3 or _tile_count(width, height, scale) > _MOST_TILES:
                break
            for view in _tiles(pixels, scale):
                found = found + self._look(view)
            found = _suppress(found)
            if scale == 1.0:
                break
        return [
            Detection(Box(*candidate[:4]), candidate.score)
            for candidate in found
            if candidate.score >= self._threshold and _centred_inside(candidate, width, height)
        ]

    def _has_face(self, found: list[_Candidate]) -> bool:
        return bool(found) and found[0].score >= self._threshold

    def _look(self, view: _View) -> list[_Candidate]:
        scores, boxes = self._session.run(image_tensor(view.canvas, INPUT))
        sure = scores[0, :, 1]
        chosen = np.flatnonzero(sure > _HINT)
        # From here on there are about ten boxes for each face: too few for numpy to be the faster way.
        kx, ky = INPUT.width / view.scale, INPUT.height / view.scale
        x, y = view.x / view.scale, view.y / view.scale
        return _suppress(
            [
                _Candidate(left * kx - x, top * ky - y, right * kx - x, bottom * ky - y, score)
                for (left, top, right, bottom), score in zip(
                    boxes[0, chosen].tolist(), sure[chosen].tolist(), strict=True
                )
                if not view.cuts(left, top, right, bottom)
            ]
        )


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


def _shows_small(found: list[_Candidate], scale: float) -> bool:
    return any((candidate.bottom - candidate.top) * scale < _SMALL for candidate in found)


def _centred_inside(candidate: _Candidate, width: int, height: int) -> bool:
    x, y = candidate.left + candidate.right, candidate.top + candidate.bottom
    return 0 <= x <= 2 * width and 0 <= y <= 2 * height


def _suppress(found: list[_Candidate]) -> list[_Candidate]:
    """Greedy non-maximum suppression: of boxes that are one face, the surest stays. Returns them surest first."""
    kept: list[_Candidate] = []
    for candidate in sorted(found, key=lambda one: one.score, reverse=True):
        empty = candidate.right <= candidate.left or candidate.bottom <= candidate.top
        if not empty and not any(_same_face(candidate, other) for other in kept):
            kept.append(candidate)
    return kept


def _same_face(one: _Candidate, other: _Candidate) -> bool:
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    if width <= 0 or height <= 0:
        return False
    common = width * height
    return common > OVERLAP * (one.area + other.area - common) or common > _INSIDE * min(one.area, other.area)
