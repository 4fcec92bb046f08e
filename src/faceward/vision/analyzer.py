"""FaceAnalyzer: an image in, its faces with their unit embeddings out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

import cv2
import numpy as np

from faceward.checks import check_count
from faceward.types import BGRImage, Box, Face, ImageSource, Quality
from faceward.vision.alignment import LandmarkFinder, Points, five_points
from faceward.vision.detection import Detection, FaceDetector
from faceward.vision.embedding import FaceEmbedder
from faceward.vision.images import DecodedImage, ImageLimits, decode_image
from faceward.vision.model_packs import ModelPack
from faceward.vision.quality import measure, rate
from faceward.vision.runtimes import InferenceSession, open_session

StageTimer: TypeAlias = Callable[[str, float], None]
"""Receives the name of a stage (decode, detect, landmarks, quality, embed) and the seconds that it took."""

DEFAULT_MAX_FACES = 100

_CROP_HEIGHT = 110
"""Height in pixels of a face's box at which the aligned crop of 112 pixels is neither enlarged nor reduced."""


@dataclass(frozen=True, slots=True)
class _FoundFace:
    box: Box
    landmarks: Points
    confidence: float
    quality: Quality
    crop: BGRImage


class FaceAnalyzer:
    """Finds the faces of an image and computes their embeddings. Safe to share between threads.

    detector, landmarks, embedder: the three models. limits: what an image may cost. model_id: names the embedding
    model, as the gallery records it. sessions: closed by close().
    """

    def __init__(
        self,
        detector: FaceDetector,
        landmarks: LandmarkFinder,
        embedder: FaceEmbedder,
        *,
        model_id: str,
        limits: ImageLimits | None = None,
        sessions: Sequence[InferenceSession] = (),
    ) -> None:
        self._detector = detector
        self._landmarks = landmarks
        self._embedder = embedder
        self._sessions = tuple(sessions)
        self.model_id = model_id
        self.limits = limits or ImageLimits()

    @classmethod
    def open(
        cls,
        pack: ModelPack,
        *,
        runtime: str = "auto",
        threads: int = 1,
        precision: str = "f32",
        limits: ImageLimits | None = None,
        cache_dir: Path | None = None,
    ) -> FaceAnalyzer:
        """Load the models of a pack.

        threads: how many images may be worked on at once, each on one core. cache_dir: where compiled models are kept.
        Raises RuntimeUnavailableError, PackDamagedError, InvalidValueError.
        """
        load = partial(open_session, runtime=runtime, threads=threads, precision=precision, cache_dir=cache_dir)
        paths = (pack.detector, pack.landmarks, pack.embedder)
        with ThreadPoolExecutor(len(paths), thread_name_prefix="faceward-load") as pool:
            detector, landmarks, embedder = sessions = tuple(pool.map(load, paths))
        return cls(
            FaceDetector(detector),
            LandmarkFinder(landmarks),
            FaceEmbedder(embedder, pack.embedding),
            model_id=pack.model_id,
            limits=limits,
            sessions=sessions,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the images under way, then give the models' memory back. Closing twice does nothing."""
        for session in self._sessions:
            session.close()

    @property
    def dimension(self) -> int:
        """Length of the embeddings."""
        return self._embedder.dimension

    def decode(self, image: ImageSource, *, stages: StageTimer | None = None) -> DecodedImage:
        """Decode an image within the limits. Raises ImageError."""
        clock = _Clock(stages)
        decoded = decode_image(image, self.limits)
        clock.lap("decode")
        return decoded

    def analyze(
        self, image: ImageSource, *, max_faces: int = DEFAULT_MAX_FACES, stages: StageTimer | None = None
    ) -> tuple[Face, ...]:
        """The faces of an image, largest first; empty where there is none.

        image: a path, encoded bytes, an open binary file, or a uint8 array in BGR order. max_faces: of more faces the
        smallest are left out. stages: told the time of each stage. Raises ImageError, InvalidValueError.
        """
        return self.analyze_decoded(self.decode(image, stages=stages), max_faces=max_faces, stages=stages)

    def analyze_decoded(
        self, image: DecodedImage, *, max_faces: int = DEFAULT_MAX_FACES, stages: StageTimer | None = None
    ) -> tuple[Face, ...]:
        """As `analyze`, for an image that `decode` gave."""
        check_count("max_faces", max_faces, 10_000)
        clock = _Clock(stages)
        detections = self._detector.detect(image.pixels, original_longer_side=max(image.size))
        detections.sort(key=lambda found: found.box.area, reverse=True)
        clock.lap("detect")
        if image.scale < 1.0 and any(found.box.height < _CROP_HEIGHT for found in detections[:max_faces]):
            # The reduced decode was enough to find these faces, but holds too few pixels to tell whose they are.
            zoom = 1.0 / image.scale
            image = image.at_full_scale()
            detections = [Detection(_scaled(found.box, zoom), found.confidence) for found in detections]
            clock.lap("decode")
        faces: list[Face] = []
        while detections and len(faces) < max_faces:
            wanted = max_faces - len(faces)
            faces += self._faces(image, detections[:wanted], clock)
            detections = detections[wanted:]
        return tuple(faces)

    def _faces(self, image: DecodedImage, detections: Sequence[Detection], clock: _Clock) -> list[Face]:
        found = [self._measure(image, detection, clock) for detection in detections]
        embeddings, norms = self._embedder.embed([face.crop for face in found])
        clock.lap("embed")
        return [
            Face(face.box, face.landmarks, face.confidence, face.quality, embedding)
            for face, embedding, norm in zip(found, embeddings, norms, strict=True)
            # A pattern that only the detector took for a face leaves the embedding model nearly unmoved.
            if norm >= self._embedder.min_norm
        ]

    def _measure(self, image: DecodedImage, detection: Detection, clock: _Clock) -> _FoundFace:
        pixels, box, left, top, factor = _near(image.pixels, detection.box)
        points = five_points(self._landmarks.find(pixels, box))
        clock.lap("landmarks")
        crop = self._embedder.crop(pixels, points)
        clock.lap("embed")
        landmarks = (points * factor + (left, top)) / image.scale
        original = _scaled(detection.box, 1.0 / image.scale)
        quality = rate(measure(crop, landmarks, original, image.size, self._embedder.template))
        clock.lap("quality")
        width, height = image.size
        inside = Box(
            min(max(original.left, 0.0), width),
            min(max(original.top, 0.0), height),
            min(max(original.right, 0.0), width),
            min(max(original.bottom, 0.0), height),
        )
        return _FoundFace(inside, landmarks.astype(np.float32), detection.confidence, quality, crop)


class _Clock:
    """Tells a timer how long it was since the last lap."""

    def __init__(self, timer: StageTimer | None) -> None:
        self._timer = timer
        self._last = time.perf_counter() if timer else 0.0

    def lap(self, stage: str) -> None:
        if self._timer:
            now = time.perf_counter()
            self._timer(stage, now - self._last)
            self._last = now


def _scaled(box: Box, factor: float) -> Box:
    return Box(box.left * factor, box.top * factor, box.right * factor, box.bottom * factor)


def _near(pixels: BGRImage, box: Box) -> tuple[BGRImage, Box, int, int, int]:
    """The surroundings of a face, reduced where it is more than twice as large as the models' input.

    Sampling a large face at 64 or 112 points a row would skip most of its pixels. Returns the pixels, the box in them,
    and what leads back: x = x' * factor + left, y = y' * factor + top.
    """
    height, width = pixels.shape[:2]
    margin = box.height / 2
    left, top = max(0, int(box.left - margin)), max(0, int(box.top - margin))
    right, bottom = min(width, int(box.right + margin)), min(height, int(box.bottom + margin))
    moved = Box(box.left - left, box.top - top, box.right - left, box.bottom - top)
    factor = int(box.height / _CROP_HEIGHT)
    if factor < 2:
        return pixels[top:bottom, left:right], moved, left, top, 1
    columns, rows = max(1, (right - left) // factor), max(1, (bottom - top) // factor)
    part = pixels[top : top + rows * factor, left : left + columns * factor]
    near = np.asarray(cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
    return near, _scaled(moved, 1.0 / factor), left, top, factor
