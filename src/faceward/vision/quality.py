"""How fit a face is for recognition, from cheap measures on what the analysis has at hand anyway.

Each measure gives a factor from 0 to 1 that is 1 where nothing is wrong; the score is their product, and a reason is
named where its factor is below 0.8. The limits were set on LFW photos made smaller, softer, darker, brighter and
flatter step by step, at the points where the similarity to another photo of the same person begins to fall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2

from faceward.types import BGRImage, Box, Quality
from faceward.vision.alignment import Points

_NAMED_BELOW = 0.8


@dataclass(frozen=True, slots=True)
class FaceMeasures:
    """What the score is made of.

    size: height of the face's box in pixels of the original. sharpness: mean absolute Laplacian of the aligned grey
    crop over its contrast. turn: how far the nose lies from the middle of the eyes and mouth, in eye distances (0 frontal).
    brightness: mean grey value of the face, 0..255. contrast: standard deviation of it. outside: share of the box that
    lies beyond the image's border, 0..1.
    """

    size: float
    sharpness: float
    turn: float
    brightness: float
    contrast: float
    outside: float


def measure(crop: BGRImage, landmarks: Points, box: Box, image_size: tuple[int, int]) -> FaceMeasures:
    """Measure a face.

    crop: aligned, BGR uint8. landmarks: five, in any unit of length. box: pixels of the original, may reach beyond it.
    image_size: width and height of the original.
    """
    height, width = crop.shape[:2]
    # The middle of the crop is skin, eyes and mouth; hair and background lie outside it.
    face = cv2.cvtColor(crop[height // 4 : height * 15 // 16, width // 5 : width * 4 // 5], cv2.COLOR_BGR2GRAY)
    (brightness,), (contrast,) = (values[0] for values in cv2.meanStdDev(face))
    edges = cv2.Laplacian(face, cv2.CV_16S)
    sharpness = float(cv2.norm(edges, cv2.NORM_L1)) / face.size / max(float(contrast), 1.0)
    inner_width = max(0.0, min(box.right, image_size[0]) - max(box.left, 0.0))
    inner_height = max(0.0, min(box.bottom, image_size[1]) - max(box.top, 0.0))
    outside = 1.0 - inner_width * inner_height / box.area if box.area else 1.0
    return FaceMeasures(
        size=box.height,
        sharpness=sharpness,
        turn=_turn(landmarks),
        brightness=float(brightness),
        contrast=float(contrast),
        outside=outside,
    )


def rate(measures: FaceMeasures) -> Quality:
    """The score and the reasons, in the order of what they cost."""
    factors = {
        "small": _rising(measures.size, 20.0, 80.0),
        "blurred": _rising(measures.sharpness, 0.05, 0.2),
        "turned": _falling(measures.turn, 0.35, 0.9),
        "dark": _rising(measures.brightness, 15.0, 60.0),
        "bright": _falling(measures.brightness, 200.0, 250.0),
        "low_contrast": _rising(measures.contrast, 5.0, 20.0),
        "clipped": _falling(measures.outside, 0.05, 0.5),
    }
    score = math.prod(factors.values())
    named = sorted((factor, reason) for reason, factor in factors.items() if factor < _NAMED_BELOW)
    return Quality(score=score, reasons=tuple(reason for _, reason in named))


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
