"""How fit a face is for recognition, from cheap measures on what the analysis has at hand anyway.

Each measure gives a factor from 0 to 1 that is 1 where nothing is wrong; a reason is named where its factor is below
0.8. The limits were set on 100 LFW photos made smaller, softer, darker, brighter, flatter and cut, so that the score
follows the similarity to other photos of the same person: about 0.9 where a tenth of it is lost, 0.5 where half is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from faceward.types import BGRImage, Box, Quality
from faceward.vision.alignment import Points, similarity_transform

_NAMED_BELOW = 0.8
# What rounding to whole grey values leaves of a second difference where there is nothing to see: sqrt(6 / 12 * 2 / pi).
# Over the little contrast of a face that is blurred beyond recognition it would pass for detail.
_ROUNDING = 0.57
# The part of an aligned crop that is face, from brow to chin; hair and background lie outside it.
_TOP, _LEFT, _RIGHT = 0.25, 0.2, 0.8


@dataclass(frozen=True, slots=True)
class FaceMeasures:
    """What the score is made of.

    size: height of the face's box in pixels of the original. sharpness: mean absolute second difference of the
    aligned grey face over its contrast, across or down, whichever is less. turn: how far the nose lies from the
    middle of eyes and mouth, sideways in eye distances and up or down in heights of that part (0 frontal).
    brightness: mean grey value of the face, 0..255. contrast: standard deviation of it. outside: share of the
    aligned face that lies beyond the image's border, 0..1.
    """

    size: float
    sharpness: float
    turn: float
    brightness: float
    contrast: float
    outside: float


def measure(crop: BGRImage, landmarks: Points, box: Box, image_size: tuple[int, int], template: Points) -> FaceMeasures:
    """Measure a face.

    crop: aligned, BGR uint8. landmarks: five, in pixels of the original. box: in pixels of the original, may reach beyond
    it. image_size: width and height of the original. template: where the landmarks lie in the crop.
    """
    height, width = crop.shape[:2]
    face = cv2.cvtColor(crop[int(_TOP * height) :, int(_LEFT * width) : int(_RIGHT * width)], cv2.COLOR_BGR2GRAY)
    (brightness,), (contrast,) = (values[0] for values in cv2.meanStdDev(face))
    # Motion softens one direction only, so the softer one counts.
    across, down = (cv2.norm(cv2.Sobel(face, cv2.CV_16S, x, 2 - x, ksize=1), cv2.NORM_L1) for x in (2, 0))
    detail = min(across, down) / face.size
    return FaceMeasures(
        size=box.height,
        sharpness=math.sqrt(max(0.0, detail * detail - _ROUNDING * _ROUNDING)) / max(float(contrast), 1.0),
        turn=_turn(landmarks),
        brightness=float(brightness),
        contrast=float(contrast),
        outside=_outside(landmarks, box, image_size, template, (width, height)),
    )


def rate(measures: FaceMeasures) -> Quality:
    """The score and the reasons, in the order of what they cost."""
    small = _rising(measures.size, 8.0, 44.0)
    blurred = _rising(measures.sharpness, 0.015, 0.06)
    turned = _falling(measures.turn, 0.3, 0.9)
    dark = _rising(measures.brightness, 0.0, 35.0)
    bright = _falling(measures.brightness, 215.0, 258.0)
    low_contrast = _rising(measures.contrast, 0.0, 9.0)
    clipped = _falling(measures.outside, 0.05, 0.6)
    factors = {
        "small": small,
        "blurred": blurred,
        "turned": turned,
        "dark": dark,
        "bright": bright,
        "low_contrast": low_contrast,
        "clipped": clipped,
    }
    # A small face is soft and a dark one is flat: the same loss, seen twice, counts once.
    score = min(small, blurred) * min(dark, bright, low_contrast) * turned * clipped
    named = sorted((factor, reason) for reason, factor in factors.items() if factor < _NAMED_BELOW)
    return Quality(score=score, reasons=tuple(reason for _, reason in named))


def _outside(
    landmarks: Points, box: Box, image_size: tuple[int, int], template: Points, crop_size: tuple[int, int]
) -> float:
    """The share of the face's part of the crop that the image does not hold, sampled on a grid."""
    margin = 0.25 * box.height
    (width, height), (crop_width, crop_height) = image_size, crop_size
    across = margin <= box.left and box.right <= width - margin
    if across and margin <= box.top and box.bottom <= height - margin:
        return 0.0
    back = similarity_transform(template, landmarks)
    columns = np.linspace(_LEFT * crop_width, _RIGHT * crop_width, 12)
    rows = np.linspace(_TOP * crop_height, crop_height, 12)
    grid = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    points = grid @ back[:, :2].T + back[:, 2]
    held = np.all((points >= 0) & (points <= image_size), axis=1)
    return 1.0 - float(held.mean())


def _turn(landmarks: Points) -> float:
    """Sideways: the nose against the middle between eyes and mouth; up and down: against its usual height between them.

    Both are taken along the axes of the face, so that a tilted head counts as upright: alignment turns it back.
    """
    (lx, ly), (rx, ry), (nx, ny), (ax, ay), (bx, by) = landmarks.tolist()
    eyes_x, eyes_y, mouth_x, mouth_y = (lx + rx) / 2, (ly + ry) / 2, (ax + bx) / 2, (ay + by) / 2
    length = math.hypot(mouth_x - eyes_x, mouth_y - eyes_y)
    if length == 0.0:
        return 1.0
    down_x, down_y = (mouth_x - eyes_x) / length, (mouth_y - eyes_y) / length
    across_x, across_y = down_y, -down_x
    eye_distance = abs((rx - lx) * across_x + (ry - ly) * across_y)
    middle_x, middle_y = (eyes_x + mouth_x) / 2, (eyes_y + mouth_y) / 2
    sideways = abs((nx - middle_x) * across_x + (ny - middle_y) * across_y) / max(eye_distance, 0.2 * length)
    upward = abs((nx - eyes_x) * down_x + (ny - eyes_y) * down_y) / length - 0.5
    return math.hypot(sideways, upward)


def _rising(value: float, none: float, full: float) -> float:
    return min(1.0, max(0.0, (value - none) / (full - none)))


def _falling(value: float, full: float, none: float) -> float:
    return min(1.0, max(0.0, (none - value) / (none - full)))
