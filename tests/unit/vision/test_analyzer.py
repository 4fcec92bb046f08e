from __future__ import annotations

import io
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from scenes import Scene, overlap

from faceward.errors import (
    DamagedImageError,
    ImageTooLargeError,
    InvalidValueError,
    PackDamagedError,
    RuntimeUnavailableError,
)
from faceward.types import Box, ImageSource
from faceward.vision.analyzer import FaceAnalyzer
from faceward.vision.detection import FaceDetector
from faceward.vision.images import ImageLimits
from faceward.vision.model_packs import ModelPack
from faceward.vision.runtimes import available_runtimes, open_session


def similarity(analyzer: FaceAnalyzer, one: ImageSource, other: ImageSource) -> float:
    first, second = analyzer.analyze(one)[0], analyzer.analyze(other)[0]
    return float(first.embedding @ second.embedding)


def test_the_faces_of_the_sample_photos(analyzer: FaceAnalyzer, photos: dict[str, Path]) -> None:
    for path in photos.values():
        (face,) = analyzer.analyze(path)
        width, height = analyzer.decode(path).size
        assert 0 <= face.box.left < face.box.right <= width
        assert 0 <= face.box.top < face.box.bottom <= height
        assert 0.9 < face.confidence <= 1
        assert face.landmarks.shape == (5, 2)
        assert face.landmarks.dtype == np.float32
        assert face.embedding.shape == (512,)
        assert face.embedding.dtype == np.float32
        assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-6)


def test_one_person_is_one_and_others_are_others(analyzer: FaceAnalyzer, photos: dict[str, Path]) -> None:
    for name in ("obama2.jpg", "obama3.jpg", "obama_partial_face.jpg", "obama_partial_face2.jpg"):
        assert similarity(analyzer, photos["obama.jpg"], photos[name]) > 0.45
    for name in ("biden.jpg", "astronaut.png"):
        assert similarity(analyzer, photos["obama.jpg"], photos[name]) < 0.25


def test_every_photo_of_lfw_is_recognised(analyzer: FaceAnalyzer, lfw: Path) -> None:
    photos = sorted(lfw.glob("*/*.jpg"))
    people = [path.parent.name for path in photos]
    embeddings = np.stack([analyzer.analyze(path)[0].embedding for path in photos])
    first = {person: people.index(person) for person in people}
    gallery, names = embeddings[list(first.values())], list(first)
    probes = [index for index in range(len(photos)) if index not in first.values()]
    scores = embeddings[probes] @ gallery.T
    right = np.array([names[best] == people[probe] for best, probe in zip(scores.argmax(axis=1), probes, strict=True)])
    assert len(probes) == 90
    assert right.mean() >= 0.99
    assert (right & (scores.max(axis=1) > 0.35)).mean() >= 0.99
    assert not np.any(~right & (scores.max(axis=1) > 0.35))


def test_largest_first_and_no_more_than_asked_for(analyzer: FaceAnalyzer, scene: Scene) -> None:
    image, boxes = scene(1280, 960, [60, 200, 90, 120])
    faces = analyzer.analyze(image)
    assert [round(face.box.height, -1) for face in faces] == sorted(
        (round(face.box.height, -1) for face in faces), reverse=True
    )
    assert overlap(faces[0].box, boxes[1]) > 0.6
    two = analyzer.analyze(image, max_faces=2)
    assert [face.box for face in two] == [face.box for face in faces[:2]]
    with pytest.raises(InvalidValueError, match="max_faces = 0"):
        analyzer.analyze(image, max_faces=0)


def test_no_face_is_no_error(analyzer: FaceAnalyzer) -> None:
    assert analyzer.analyze(np.zeros((480, 640, 3), np.uint8)) == ()


def soft_spots(seed: int, cells: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Coloured noise in which the detector alone sees a face: 1200 x 900, BGR."""
    spots = np.random.default_rng(seed).integers(0, 256, (3 * cells // 4, cells, 3), np.uint8)
    return np.asarray(cv2.resize(spots, (1200, 900), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.mark.parametrize(("seed", "cells"), [(3, 8), (4, 40), (5, 40), (11, 20)])
def test_patterns_are_no_faces(pack: ModelPack, analyzer: FaceAnalyzer, seed: int, cells: int) -> None:
    image = soft_spots(seed, cells)
    assert FaceDetector(open_session(pack.detector)).detect(image)
    assert analyzer.analyze(image) == ()


def test_a_pattern_takes_no_place_of_a_face(pack: ModelPack, analyzer: FaceAnalyzer, photos: dict[str, Path]) -> None:
    image = soft_spots(11, 20)
    head = analyzer.decode(photos["astronaut.png"]).pixels[20:220, 130:330]
    image[:100, :100] = cv2.resize(head, (100, 100), interpolation=cv2.INTER_AREA)
    found = FaceDetector(open_session(pack.detector)).detect(image)
    assert sum(detection.box.height > 80 for detection in found) == 1
    (face,) = analyzer.analyze(image, max_faces=1)
    assert float(face.embedding @ analyzer.analyze(photos["astronaut.png"])[0].embedding) > 0.8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_lie_in_the_upright_image(analyzer: FaceAnalyzer, photos: dict[str, Path], orientation: int) -> None:
    reference = analyzer.analyze(photos["obama.jpg"])[0]
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL's transposes that undo each orientation
    with Image.open(photos["obama.jpg"]) as image:
        stored = image if orientation == 1 else image.transpose(Image.Transpose(back[orientation]))
        exif = Image.Exif()
        exif[0x0112] = orientation
        out = io.BytesIO()
        stored.save(out, "JPEG", quality=95, exif=exif)
    (face,) = analyzer.analyze(out.getvalue())
    assert overlap(face.box, reference.box) > 0.9
    assert float(face.embedding @ reference.embedding) > 0.95


def test_a_photo_of_twelve_megapixels(analyzer: FaceAnalyzer, scene: Scene, photos: dict[str, Path]) -> None:
    """The decode is reduced; boxes come in pixels of the original, and small faces keep their identity."""
    image, boxes = scene(4000, 3000, [64, 110, 180])
    data = cv2.imencode(".jpg", image)[1].tobytes()
    assert analyzer.decode(data).scale == 0.5
    faces = analyzer.analyze(data)
    assert len(faces) == 3
    for box, name in zip(boxes, ("obama.jpg", "biden.jpg", "astronaut.png"), strict=True):
        face = max(faces, key=lambda one: overlap(one.box, box))
        assert overlap(face.box, box) > 0.6
        reference = analyzer.analyze(photos[name])[0]
        assert float(face.embedding @ reference.embedding) > 0.75
        assert face.quality.score > 0.8


def test_a_large_portrait_is_not_decoded_twice(analyzer: FaceAnalyzer, scene: Scene) -> None:
    image, boxes = scene(4000, 3000, [1500])
    data = cv2.imencode(".jpg", image)[1].tobytes()
    stages: Counter[str] = Counter()
    (face,) = analyzer.analyze(data, stages=lambda stage, _: stages.update([stage]))
    assert overlap(face.box, boxes[0]) > 0.8
    assert stages["decode"] == 1
    width, height = boxes[0].width, boxes[0].height
    eyes_to_mouth = (face.landmarks - (boxes[0].left, boxes[0].top)) / (width, height)
    assert np.all((eyes_to_mouth > 0.15) & (eyes_to_mouth < 0.85))
    small, _ = scene(4000, 3000, [80])
    stages.clear()
    analyzer.analyze(cv2.imencode(".jpg", small)[1].tobytes(), stages=lambda stage, _: stages.update([stage]))
    assert stages["decode"] == 2


def test_the_resolution_hardly_changes_an_embedding(analyzer: FaceAnalyzer, photos: dict[str, Path]) -> None:
    image = analyzer.decode(photos["biden.jpg"]).pixels
    for factor in (0.3, 0.5, 1.5):
        other = np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)
        assert similarity(analyzer, image, other) > 0.93


def test_a_tight_crop_is_recognised(analyzer: FaceAnalyzer, photos: dict[str, Path]) -> None:
    image, face = analyzer.decode(photos["obama.jpg"]).pixels, analyzer.analyze(photos["obama.jpg"])[0]
    crop = image[round(face.box.top) : round(face.box.bottom), round(face.box.left) : round(face.box.right)]
    (found,) = analyzer.analyze(crop)
    assert float(found.embedding @ face.embedding) > 0.8
    assert found.box.right <= crop.shape[1]
    assert found.box.bottom <= crop.shape[0]


def test_grey_and_four_channels_are_the_same_face(analyzer: FaceAnalyzer, photos: dict[str, Path]) -> None:
    image = analyzer.decode(photos["obama.jpg"]).pixels
    assert similarity(analyzer, image, cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)) > 0.999
    assert similarity(analyzer, image, cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)) > 0.7


def test_bytes_paths_and_arrays_give_the_same(analyzer: FaceAnalyzer, photos: dict[str, Path]) -> None:
    path = photos["astronaut.png"]
    reference = analyzer.analyze(path)[0]
    for source in (
        path.read_bytes(),
        io.BytesIO(path.read_bytes()),
        cv2.imread(str(path)),
        analyzer.decode(path).pixels,
    ):
        face = analyzer.analyze(source)[0]
        assert face.box == reference.box
        assert np.array_equal(face.embedding, reference.embedding)
    assert np.array_equal(analyzer.analyze_decoded(analyzer.decode(path))[0].embedding, reference.embedding)


def test_the_stages_are_told(analyzer: FaceAnalyzer, photos: dict[str, Path]) -> None:
    seconds: dict[str, float] = defaultdict(float)

    def add(stage: str, taken: float) -> None:
        seconds[stage] += taken

    analyzer.analyze(photos["obama.jpg"], stages=add)
    assert list(seconds) == ["decode", "detect", "landmarks", "embed", "quality"]
    assert all(taken > 0 for taken in seconds.values())


def test_threads_do_not_mix_images(pack: ModelPack, home: Path, photos: dict[str, Path]) -> None:
    with FaceAnalyzer.open(pack, threads=2, cache_dir=home / "compiled") as shared:
        images = [shared.decode(path) for path in photos.values()] * 4
        expected = [shared.analyze_decoded(image) for image in images]
        with ThreadPoolExecutor(8) as pool:
            for found, wanted in zip(pool.map(shared.analyze_decoded, images), expected, strict=True):
                assert [face.box for face in found] == [face.box for face in wanted]
                assert all(
                    np.allclose(one.embedding, other.embedding, atol=1e-5)
                    for one, other in zip(found, wanted, strict=True)
                )


@pytest.mark.parametrize("runtime", available_runtimes())
def test_every_runtime_gives_the_same_embedding(
    runtime: str, pack: ModelPack, analyzer: FaceAnalyzer, photos: dict[str, Path]
) -> None:
    reference = analyzer.analyze(photos["obama.jpg"])[0]
    with FaceAnalyzer.open(pack, runtime=runtime) as other:
        face = other.analyze(photos["obama.jpg"])[0]
    assert float(face.embedding @ reference.embedding) > 0.999
    assert np.abs(face.landmarks - reference.landmarks).max() < 1


def test_limits_and_damage_are_passed_on(pack: ModelPack, home: Path, photos: dict[str, Path]) -> None:
    limits = ImageLimits(max_bytes=400_000, max_pixels=900_000)
    with FaceAnalyzer.open(pack, cache_dir=home / "compiled", limits=limits) as small:
        assert small.limits == limits
        with pytest.raises(ImageTooLargeError, match="bytes"):
            small.analyze(photos["obama3.jpg"])
        with pytest.raises(ImageTooLargeError, match="pixels"):
            small.analyze(photos["obama.jpg"])
        with pytest.raises(DamagedImageError):
            small.analyze(photos["obama.jpg"].read_bytes()[:100_000])


def test_a_closed_analyzer_says_so(pack: ModelPack, photos: dict[str, Path]) -> None:
    with FaceAnalyzer.open(pack) as closed:
        assert closed.model_id == pack.model_id
        assert closed.dimension == 512
    closed.close()
    with pytest.raises(RuntimeUnavailableError, match="closed"):
        closed.analyze(photos["obama.jpg"])


def test_a_pack_whose_files_are_swapped_is_refused(pack: ModelPack) -> None:
    swapped = ModelPack(pack.manifest, pack.detector, pack.landmarks, pack.landmarks)
    with pytest.raises(PackDamagedError):
        FaceAnalyzer.open(swapped)


def test_faces_stay_inside_the_image(analyzer: FaceAnalyzer, photos: dict[str, Path]) -> None:
    image = analyzer.decode(photos["obama.jpg"]).pixels
    whole = analyzer.analyze(image)[0].box
    for cut in (0.2, 0.35):
        left = round(whole.left + cut * whole.width)
        for face in analyzer.analyze(image[:, left:]):
            assert face.box.left >= 0
            assert face.box != Box(0, 0, 0, 0)
