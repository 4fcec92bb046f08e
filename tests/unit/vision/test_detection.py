from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import Scene, overlap

from faceward.errors import PackDamagedError
from faceward.types import Box
from faceward.vision.detection import INPUT, Detection, FaceDetector, _Candidate, _suppress, _tile_grid, _tiles, _View
from faceward.vision.model_packs import ModelPack
from faceward.vision.runtimes import InferenceSession, open_session


class Counted:
    """A session that counts its runs."""

    def __init__(self, session: InferenceSession) -> None:
        self._session = session
        self.runs = 0
        self.runtime = session.runtime
        self.input_shape = session.input_shape
        self.output_shapes = session.output_shapes

    def run(self, array: np.ndarray[Any, np.dtype[np.float32]]) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
        self.runs += 1
        return self._session.run(array)

    def close(self) -> None:
        self._session.close()


@pytest.fixture(scope="module")
def session(pack: ModelPack) -> Counted:
    return Counted(open_session(pack.detector))


@pytest.fixture(scope="module")
def detector(session: Counted) -> FaceDetector:
    return FaceDetector(session)


def boxes_of(detections: list[Detection]) -> list[Box]:
    return [detection.box for detection in detections]


def test_a_portrait_takes_one_pass(detector: FaceDetector, session: Counted, scene: Scene) -> None:
    image, boxes = scene(640, 480, [240])
    session.runs = 0
    (found,) = detector.detect(image)
    assert overlap(found.box, boxes[0]) > 0.6
    assert found.confidence > 0.95
    assert session.runs == 1


@pytest.mark.parametrize(
    ("width", "height", "sizes"),
    [
        (640, 480, [40]),
        (640, 480, [60, 60, 60]),
        (1280, 960, [60] * 20),
        (1920, 1080, [45] * 20),
        (4000, 3000, [60]),
        (4000, 3000, [60, 80, 120, 200]),
        (3000, 4000, [90, 150]),
        (6000, 800, [90] * 5),
        (800, 5000, [90] * 5),
        (1600, 1200, [500, 60, 60, 60]),
    ],
)
def test_small_faces_are_found_once_each(
    detector: FaceDetector, scene: Scene, width: int, height: int, sizes: list[float]
) -> None:
    image, boxes = scene(width, height, sizes)
    found = boxes_of(detector.detect(image))
    for box in boxes:
        assert max(overlap(box, other) for other in found) > 0.45
    assert len(found) == len(boxes)


def test_the_many_passes_are_bounded(detector: FaceDetector, session: Counted, scene: Scene) -> None:
    image, _ = scene(6000, 4500, [])
    session.runs = 0
    detector.detect(image)
    assert session.runs < 100


def test_a_tight_crop_shows_its_face(detector: FaceDetector, photos: dict[str, Path]) -> None:
    image = cv2.imread(str(photos["obama.jpg"]))
    assert image is not None
    whole = detector.detect(np.asarray(image, np.uint8))[0].box
    top, bottom, left, right = (round(edge) for edge in (whole.top, whole.bottom, whole.left, whole.right))
    crop = np.asarray(image[top:bottom, left:right], np.uint8)
    for size in ((112, 112), (right - left, bottom - top), (900, 1200)):
        (found,) = detector.detect(np.asarray(cv2.resize(crop, size), np.uint8))
        assert overlap(found.box, Box(0, 0, *size)) > 0.5


def test_a_crop_inside_the_face_is_seen_with_a_border(
    detector: FaceDetector, session: Counted, photos: dict[str, Path]
) -> None:
    image = cv2.imread(str(photos["astronaut.png"]))
    assert image is not None
    session.runs = 0
    assert len(detector.detect(np.asarray(image[88:151, 203:250], np.uint8))) == 1
    assert session.runs == 2


def test_a_face_that_a_tile_cuts_is_left_to_the_next_tile() -> None:
    canvas = np.zeros((INPUT.height, INPUT.width, 3), np.uint8)
    edges = [(0.0, 0.4, 0.2, 0.6), (0.4, 0.0, 0.6, 0.2), (0.8, 0.4, 1.0, 0.6), (0.4, 0.8, 0.6, 1.0)]
    for side, box in enumerate(edges):
        inner = _View(canvas, 1.0, 0, 0, (side == 0, side == 1, side == 2, side == 3))
        assert [inner.cuts(*other) for other in edges] == [index == side for index in range(4)]
        assert not _View(canvas, 1.0, 0, 0).cuts(*box)
        assert not inner.cuts(0.4, 0.4, 0.6, 0.6)


@pytest.mark.parametrize("colour", [0, 128, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (240, 320), (2000, 2000)])
def test_an_image_without_face_or_form(detector: FaceDetector, colour: int, shape: tuple[int, int]) -> None:
    assert detector.detect(np.full((*shape, 3), colour, np.uint8)) == []


def test_another_model_is_refused(pack: ModelPack) -> None:
    with pytest.raises(PackDamagedError, match=r"takes \(1, 1, 64, 64\).*RFB-320 takes \(1, 3, 240, 320\)"):
        FaceDetector(open_session(pack.landmarks))


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), scale=st.floats(0.05, 1.0))
def test_tiles_cover_the_image_and_overlap(width: int, height: int, scale: float) -> None:
    columns, rows = _tile_grid(width, height, scale)
    if columns * rows > 40:
        return
    pixels = np.zeros((height, width, 3), np.uint8)
    views = list(_tiles(pixels, scale))
    assert len(views) == columns * rows
    for axis, side, length in ((0, INPUT.width, width), (1, INPUT.height, height)):
        starts = sorted({round(-(view.x, view.y)[axis]) for view in views})
        assert starts[0] == 0
        assert starts[-1] + side >= round(length * scale)
        assert all(after - before <= side - 38 for before, after in itertools.pairwise(starts))
    inner = [view for view in views if any(view.open_edges)]
    assert bool(inner) == (len(views) > 1)


edge = st.floats(0, 300)
candidates = st.lists(st.builds(_Candidate, edge, edge, edge, edge, st.floats(0.3, 1)), max_size=40)


@given(candidates)
def test_suppression_keeps_the_surest_of_each_face(found: list[_Candidate]) -> None:
    kept = _suppress(found)
    real = [one for one in found if one.right > one.left and one.bottom > one.top]
    assert set(kept) <= set(real)
    assert [one.score for one in kept] == sorted((one.score for one in kept), reverse=True)
    assert not real or kept[0].score == max(one.score for one in real)
    assert _suppress(kept) == kept
    for index, one in enumerate(kept):
        for other in kept[:index]:
            assert overlap(Box(*one[:4]), Box(*other[:4])) <= 0.4 + 1e-6
