"""The part of a photo that is kept holds the face, and the models find the same one in it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from faceward.types import Box
from faceward.vision import FaceAnalyzer, crop_around, decode_image
from faceward.vision.images import DecodedImage


@pytest.mark.parametrize("name", ["obama.jpg", "obama2.jpg", "biden.jpg", "astronaut.png"])
def test_the_face_is_found_again_and_is_the_same(analyzer: FaceAnalyzer, photos: dict[str, Path], name: str) -> None:
    image = analyzer.decode(photos[name])
    (face, *_) = analyzer.analyze_decoded(image)
    data, crop = crop_around(image, face.box)
    (again, *_) = analyzer.analyze(data)
    assert float(face.embedding @ again.embedding) > 0.95
    here = crop.place(face.box)
    assert again.box.as_tuple() == pytest.approx(here.as_tuple(), abs=0.15 * here.height)
    assert crop.box.left <= face.box.left < face.box.right <= crop.box.right
    assert crop.box.top <= face.box.top < face.box.bottom <= crop.box.bottom


def test_most_of_the_photo_is_left_out(analyzer: FaceAnalyzer, photos: dict[str, Path]) -> None:
    pixels = cv2.imread(str(photos["obama2.jpg"]))
    assert pixels is not None
    wide = np.full((1500, 3000, 3), 90, np.uint8)
    wide[: min(1500, pixels.shape[0]), : min(3000, pixels.shape[1])] = pixels[:1500, :3000]
    encoded = cv2.imencode(".jpg", wide)[1].tobytes()
    image = analyzer.decode(encoded)
    (face, *_) = analyzer.analyze_decoded(image)
    data, crop = crop_around(image, face.box)
    assert crop.box.area < 7 * face.box.area
    assert max(decode_image(data).size) <= 1024
    assert b"Exif" not in data
    assert float(face.embedding @ analyzer.analyze(data)[0].embedding) > 0.95


@pytest.mark.parametrize("box", [Box(0, 0, 40, 50), Box(980, 740, 1000, 760), Box(-5, -5, 2000, 1500), Box(0, 0, 3, 3)])
def test_a_crop_ends_where_the_photo_does(box: Box) -> None:
    image = DecodedImage(np.zeros((760, 1000, 3), np.uint8), (1000, 760))
    data, crop = crop_around(image, box)
    width, height = decode_image(data).size
    assert (crop.box.left, crop.box.top) >= (0, 0)
    assert crop.box.right <= 1000
    assert crop.box.bottom <= 760
    assert width / crop.box.width == pytest.approx(crop.scale)
    assert height / crop.box.height == pytest.approx(crop.scale, rel=0.02)


def test_a_small_face_of_a_large_photo_is_cut_from_its_full_pixels() -> None:
    """The photo is decoded at a half, which is enough to find a face and too little to keep it."""
    large = np.zeros((3200, 3200, 3), np.uint8)
    image = decode_image(cv2.imencode(".jpg", large)[1].tobytes())
    assert image.scale < 1
    data, crop = crop_around(image, Box(2000, 2000, 2200, 2200))
    assert crop.scale == pytest.approx(1.0)
    assert decode_image(data).size == pytest.approx((500, 500), abs=2)
