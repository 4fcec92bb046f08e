"""From pixels to the numbers a network expects, and the convention that says which those are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from faceward.types import BGRImage

ColourOrder: TypeAlias = Literal["bgr", "rgb"]
Layout: TypeAlias = Literal["nchw", "nhwc"]


@dataclass(frozen=True, slots=True)
class InputConvention:
    """How a network wants its picture: (pixel - mean) / scale, in this order of colours and axes."""

    width: int
    height: int
    colour: ColourOrder
    mean: float
    scale: float
    layout: Layout = "nchw"


def image_tensor(pixels: BGRImage, convention: InputConvention) -> NDArray[np.float32]:
    """The batch of one that the network takes. pixels: BGR uint8 of the convention's size."""
    factor = 1.0 / convention.scale
    offset = -convention.mean * factor
    planes = cv2.split(pixels)
    ordered = planes[::-1] if convention.colour == "rgb" else planes
    tensor = np.empty((3, *pixels.shape[:2]), np.float32)
    for plane, target in zip(ordered, tensor, strict=True):
        # One pass over the pixels that converts, scales and shifts; the second image counts for nothing.
        cv2.addWeighted(plane, factor, plane, 0.0, offset, dst=target, dtype=cv2.CV_32F)
    if convention.layout == "nhwc":
        tensor = np.ascontiguousarray(tensor.transpose(1, 2, 0))
    return tensor[np.newaxis]
