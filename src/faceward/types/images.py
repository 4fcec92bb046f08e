"""Images and the faces found in them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

Embedding: TypeAlias = NDArray[np.float32]
"""Shape (dimension,), float32, unit length."""

BGRImage: TypeAlias = NDArray[np.uint8]
"""Shape (height, width, 3), uint8, blue-green-red as OpenCV reads it."""

ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | NamedImage | BinaryIO | NDArray[Any]"
)
"""A path, encoded image bytes, an open binary file, or an array in OpenCV's BGR convention."""


@dataclass(frozen=True, slots=True)
class NamedImage:
    """Encoded image bytes with the name that their sender gave the file. Errors say it, to the sender alone."""

    data: bytes = field(repr=False)
    name: str


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the original image; right and bottom are exclusive."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def area(self) -> float:
        return max(0.0, self.width) * max(0.0, self.height)

    def as_tuple(self) -> tuple[float, float, float, float]:
        return (self.left, self.top, self.right, self.bottom)


@dataclass(frozen=True, slots=True)
class Crop:
    """The part of a sent photo that was kept. box: in pixels of the sent photo. scale: pixels kept for each of its own."""

    box: Box
    scale: float = 1.0

    def place(self, box: Box) -> Box:
        """Where a box of the sent photo is in what was kept."""
        left, top, scale = self.box.left, self.box.top, self.scale
        return Box(
            (box.left - left) * scale, (box.top - top) * scale, (box.right - left) * scale, (box.bottom - top) * scale
        )


@dataclass(frozen=True, slots=True)
class Quality:
    """How fit a face is for recognition.

    score: 0 (useless) to 1 (a good portrait). reasons: what lowered it, of "small", "blurred", "turned", "dark",
    "bright", "low_contrast" and "clipped"; empty where nothing did.
    """

    score: float
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face found in an image.

    box: pixels of the original image. landmarks: shape (5, 2) float32, x and y in pixels of the original image: left
    eye, right eye, nose tip, left and right mouth corner as the viewer sees them. confidence: of the detector, 0..1.
    embedding: shape (dimension,) float32, unit length.
    """

    box: Box
    landmarks: NDArray[np.float32]
    confidence: float
    quality: Quality
    embedding: Embedding = field(repr=False)
