"""Images with faces at known places, put together from the sample photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from faceward.types import Box

Image = np.ndarray[Any, np.dtype[np.uint8]]


class Scene(Protocol):
    def __call__(self, width: int, height: int, sizes: Sequence[float]) -> tuple[Image, list[Box]]:
        """An image of the size with one face for each size (the height of its box), apart from each other."""


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    common = max(0.0, width) * max(0.0, height)
    return common / (one.area + other.area - common)
