from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceward.errors import PackDamagedError
from faceward.types import Box
from faceward.vision.alignment import (
    ARCFACE_TEMPLATE,
    LandmarkFinder,
    align,
    five_points,
    similarity_transform,
)
from faceward.vision.analyzer import FaceAnalyzer
from faceward.vision.images import decode_image
from faceward.vision.model_packs import ModelPack
from faceward.vision.runtimes import open_session

TEMPLATE = np.array(ARCFACE_TEMPLATE, np.float32)


@given(
    angle=st.floats(-math.pi, math.pi),
    scale=st.floats(0.05, 20),
    x=st.floats(-1000, 1000),
    y=st.floats(-1000, 1000),
)
def test_a_similarity_is_found_exactly(angle: float, scale: float, x: float, y: float) -> None:
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    moved = (TEMPLATE @ np.array([[cos, sin], [-sin, cos]]) + (x, y)).astype(np.float32)
    assert np.allclose(similarity_transform(TEMPLATE, moved), [[cos, -sin, x], [sin, cos, y]], atol=0.01)


@given(st.integers(0, 10_000))
def test_no_other_similarity_is_nearer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = rng.uniform(0, 100, (5, 2)).astype(np.float32)
    target = rng.uniform(0, 100, (5, 2)).astype(np.float32)
    best = similarity_transform(source, target)

    def error(matrix: np.ndarray) -> float:
        return float(np.square(source @ matrix[:, :2].T + matrix[:, 2] - target).sum())

    for _ in range(20):
        (a, b), (tx, ty) = rng.normal(0, 0.02, 2), rng.normal(0, 1, 2)
        other = best + np.array([[a, -b, tx], [b, a, ty]])
        assert error(best) <= error(other) + 1e-6


def test_points_that_are_one_point_have_no_similarity() -> None:
    with pytest.raises(ValueError, match="one point"):
        similarity_transform(np.ones((5, 2), np.float32), TEMPLATE)


def test_five_points_are_means_of_the_68() -> None:
    points = np.arange(136, dtype=np.float32).reshape(68, 2)
    expected = [points[[37, 38, 40, 41]].mean(0), points[[43, 44, 46, 47]].mean(0), points[30]]
    expected += [points[[48, 60]].mean(0), points[[54, 64]].mean(0)]
    assert np.allclose(five_points(points), expected)


def test_align_puts_the_landmarks_where_the_template_says() -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    landmarks = TEMPLATE * 1.7 + (90, 40)
    for x, y in landmarks:
        cv2.circle(image, (round(float(x)), round(float(y))), 4, (255, 255, 255), -1)
    crop = align(image, landmarks, TEMPLATE, (112, 112))
    assert crop.shape == (112, 112, 3)
    for x, y in TEMPLATE:
        assert crop[round(float(y)), round(float(x))].min() > 200


def test_landmarks_lie_on_the_face_whatever_the_box(pack: ModelPack, photos: dict[str, Path]) -> None:
    finder = LandmarkFinder(open_session(pack.landmarks))
    image = decode_image(photos["astronaut.png"]).pixels
    points = five_points(finder.find(image, Box(184, 63, 268, 175)))
    seen_by_eye = np.array([[204, 102], [246, 103]])
    assert np.abs(points[:2] - seen_by_eye).max() < 4
    moved = five_points(finder.find(image, Box(188, 60, 272, 178)))
    assert np.abs(points - moved).max() < 5


def test_a_turned_face_is_turned_upright(analyzer: FaceAnalyzer, photos: dict[str, Path]) -> None:
    image = decode_image(photos["obama.jpg"]).pixels
    upright = analyzer.analyze(image)[0]
    height, width = image.shape[:2]
    for angle in (-25, 25):
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
        turned = analyzer.analyze(np.asarray(cv2.warpAffine(image, turn, (width, height)), np.uint8))[0]
        assert float(turned.embedding @ upright.embedding) > 0.85
        expected = upright.landmarks @ turn[:, :2].T + turn[:, 2]
        assert np.abs(turned.landmarks - expected).max() < 15


def test_another_model_is_refused(pack: ModelPack) -> None:
    with pytest.raises(PackDamagedError, match="landmark model takes"):
        LandmarkFinder(open_session(pack.detector))
