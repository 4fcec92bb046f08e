"""The part of a photo that is worth keeping of a face: enough around it to find and embed it again, and little of the rest."""

from __future__ import annotations

import cv2

from faceward.errors import DamagedImageError
from faceward.types import BGRImage, Box, Crop
from faceward.vision.images import DecodedImage

_MARGIN = 0.75
"""Of the box's longer side, on each side: detectors need to see that a face ends."""
_MOST_PIXELS = 1024
"""Of the crop's longer side. The face then has about 400, and models take 112 to 224."""
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


def crop_around(image: DecodedImage, face: Box) -> tuple[bytes, Crop]:
    """A JPEG of the face and its surroundings, and which part of the original image it is.

    face: pixels of the original image, upright, as analysis gives it. The crop is upright, and carries nothing else of the
    file, such as where and when it was taken. It is reduced where it is larger than 1024 pixels.
    """
    margin = _MARGIN * max(face.width, face.height)
    if image.scale * (max(face.width, face.height) + 2 * margin) < _MOST_PIXELS:
        image = image.at_full_scale()
    scale = image.scale
    height, width = image.pixels.shape[:2]
    left, top = max(0, int((face.left - margin) * scale)), max(0, int((face.top - margin) * scale))
    right = min(width, int((face.right + margin) * scale) + 1)
    bottom = min(height, int((face.bottom + margin) * scale) + 1)
    crop = _reduced(image.pixels[top:bottom, left:right])
    done, encoded = cv2.imencode(".jpg", crop, _JPEG)
    if not done:
        raise DamagedImageError("The face can't be cut out of the photo and encoded.")
    kept = Box(left / scale, top / scale, right / scale, bottom / scale)
    return encoded.tobytes(), Crop(kept, crop.shape[1] / kept.width)


def _reduced(crop: BGRImage) -> BGRImage:
    height, width = crop.shape[:2]
    factor = _MOST_PIXELS / max(height, width)
    if factor >= 1:
        return crop
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(crop, size, interpolation=cv2.INTER_AREA).astype("uint8", copy=False)
