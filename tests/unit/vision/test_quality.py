from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceward.types import Box, Quality
from faceward.vision.alignment import ARCFACE_TEMPLATE
from faceward.vision.analyzer import FaceAnalyzer
from faceward.vision.quality import FaceMeasures, measure, rate

TEMPLATE = np.array(ARCFACE_TEMPLATE, np.float32)
GOOD = FaceMeasures(size=150, sharpness=0.13, turn=0.1, brightness=130, contrast=37, outside=0)
Image = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def portrait(analyzer: FaceAnalyzer, photos: dict[str, Path]) -> Image:
    """A face of 135 pixels, as the photos have that the limits were set on."""
    pixels = analyzer.decode(photos["obama.jpg"]).pixels
    factor = 135 / analyzer.analyze(pixels)[0].box.height
    return np.asarray(cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)


def test_good_photos_have_no_fault(analyzer: FaceAnalyzer, photos: dict[str, Path]) -> None:
    for name in ("obama.jpg", "obama2.jpg", "obama3.jpg", "biden.jpg", "astronaut.png"):
        assert analyzer.analyze(photos[name])[0].quality == Quality(1.0, ())


@pytest.mark.parametrize(
    ("reason", "degrade"),
    [
        ("small", lambda image: cv2.resize(image, None, fx=0.17, fy=0.17, interpolation=cv2.INTER_AREA)),
        ("blurred", lambda image: cv2.GaussianBlur(image, (0, 0), 4)),
        ("blurred", lambda image: cv2.blur(image, (15, 1))),
        ("blurred", lambda image: cv2.blur(image, (1, 15))),
        ("dark", lambda image: image // 6),
        ("bright", lambda image: np.clip(image * 2.0 + 20, 0, 255)),
        ("low_contrast", lambda image: 128 + (image.astype(np.float32) - 128) / 6),
        ("clipped", lambda image: image[:, : round(0.6 * image.shape[1])]),
    ],
)
def test_what_is_wrong_with_a_photo_is_named(
    analyzer: FaceAnalyzer, portrait: Image, reason: str, degrade: Callable[[Image], Image]
) -> None:
    quality = analyzer.analyze(np.asarray(degrade(portrait), np.uint8))[0].quality
    assert reason in quality.reasons[:2]
    assert quality.score < 0.8


def test_the_score_falls_as_a_photo_gets_worse(analyzer: FaceAnalyzer, portrait: Image) -> None:
    scores = [analyzer.analyze(cv2.GaussianBlur(portrait, (0, 0), sigma))[0].quality.score for sigma in (0.1, 2, 3, 5)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == 1.0
    assert scores[-1] < 0.6


@pytest.mark.parametrize("sigma", [8, 11, 14])
def test_a_face_blurred_beyond_recognition_is_not_taken_for_a_sharp_one(
    analyzer: FaceAnalyzer, photos: dict[str, Path], sigma: int
) -> None:
    """What rounding to whole grey values leaves is not detail, however little contrast there is to compare it with."""
    pixels = analyzer.decode(photos["obama.jpg"]).pixels
    smaller = cv2.resize(pixels, (600, 600 * pixels.shape[0] // pixels.shape[1]))
    quality = analyzer.analyze(cv2.GaussianBlur(smaller, (0, 0), sigma))[0].quality
    assert quality.score < 0.3
    assert quality.reasons == ("blurred",)


def test_a_tilted_head_is_not_turned(analyzer: FaceAnalyzer, portrait: Image) -> None:
    height, width = portrait.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 3), 30, 1)
    tilted = np.asarray(cv2.warpAffine(portrait, turn, (width, height), borderValue=(90, 90, 90)), np.uint8)
    assert "turned" not in analyzer.analyze(tilted)[0].quality.reasons


@given(angle=st.floats(-math.pi, math.pi), scale=st.floats(0.1, 10), shift=st.floats(-50, 50))
def test_turn_does_not_depend_on_tilt_size_or_place(angle: float, scale: float, shift: float) -> None:
    face = TEMPLATE + np.array([[0, 0], [0, 0], [9, 3], [0, 0], [0, 0]], np.float32)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    moved = (face @ np.array([[cos, sin], [-sin, cos]]) + shift).astype(np.float32)
    crop = np.zeros((112, 112, 3), np.uint8)
    one, other = (
        measure(crop, landmarks, Box(40, 40, 90, 90), (300, 300), TEMPLATE).turn for landmarks in (face, moved)
    )
    assert one == pytest.approx(other, abs=1e-3)
    assert one == pytest.approx(0.27, abs=0.1)


def test_a_profile_is_turned() -> None:
    profile = TEMPLATE + np.array([[0, 0], [-25, 0], [-35, 0], [0, 0], [-25, 0]], np.float32)
    crop = np.full((112, 112, 3), 128, np.uint8)
    quality = rate(measure(crop, profile, Box(40, 40, 90, 90), (300, 300), TEMPLATE))
    assert "turned" in quality.reasons


def test_landmarks_on_one_line_are_no_reason_to_fail() -> None:
    flat = np.array([[10, 10], [20, 10], [15, 10], [10, 10], [20, 10]], np.float32)
    crop = np.zeros((112, 112, 3), np.uint8)
    assert measure(crop, flat, Box(0, 0, 0, 0), (300, 300), TEMPLATE).turn == 1.0


@pytest.mark.parametrize(("left", "outside"), [(0, 0.0), (-100, 1.0), (-56, 0.5)])
def test_the_share_outside_the_image(left: float, outside: float) -> None:
    landmarks = TEMPLATE + np.array([left, 0], np.float32)
    box = Box(20 + left, 20, 90 + left, 110)
    found = measure(np.zeros((112, 112, 3), np.uint8), landmarks, box, (112, 112), TEMPLATE).outside
    assert found == pytest.approx(outside, abs=0.06)


measures = st.builds(
    FaceMeasures,
    size=st.floats(0, 4000),
    sharpness=st.floats(0, 3),
    turn=st.floats(0, 5),
    brightness=st.floats(0, 255),
    contrast=st.floats(0, 128),
    outside=st.floats(0, 1),
)


@given(measures)
def test_every_score_is_in_range_and_explained(found: FaceMeasures) -> None:
    quality = rate(found)
    assert 0 <= quality.score <= 1
    assert quality.score > 0.4 or quality.reasons
    assert set(quality.reasons) <= {"small", "blurred", "turned", "dark", "bright", "low_contrast", "clipped"}


def test_no_fault_is_full_score() -> None:
    assert rate(GOOD) == Quality(1.0, ())
