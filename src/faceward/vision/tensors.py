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
    if convention.layout == "nhwc":
        ordered = pixels[:, :, ::-1] if convention.colour == "rgb" else pixels
        planes = ordered.astype(np.float32)
    else:
        planes = np.empty((3, *pixels.shape[:2]), np.float32)
        order = (2, 1, 0) if convention.colour == "rgb" else (0, 1, 2)
        cv2.split(pixels.astype(np.float32), [planes[channel] for channel in order])
    planes -= convention.mean
    planes *= 1.0 / convention.scale
    return planes[np.newaxis]
