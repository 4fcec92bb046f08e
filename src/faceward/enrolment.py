"""The gate of enrolment: from photos to the faces that are stored, or an error that says why not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from faceward.checks import check_count
from faceward.errors import InvalidValueError, LowQualityError, NoFaceError, SeveralFacesError
from faceward.types import Crop, Face, ImageSource, NewFace, Quality
from faceward.vision import DecodedImage, FaceAnalyzer, crop_around

MAX_IMAGE_PATH = 500
MAX_PHOTOS = 100
KeptImages: TypeAlias = Literal["off", "original", "face"]


class EnrolmentGate:
    """Takes one face from each photo, if it is fit to be enrolled.

    min_quality: 0..1. min_face: pixels of the box's height. images: what is kept of a photo: nothing, all of it as it
    was sent, or the face with its surroundings.
    """

    def __init__(
        self,
        analyzer: FaceAnalyzer,
        *,
        min_quality: float = 0.3,
        min_face: float = 32.0,
        images: KeptImages = "off",
    ) -> None:
        self._analyzer = analyzer
        self._min_quality = min_quality
        self._min_face = min_face
        self._images = images

    def admit(
        self, images: ImageSource | Sequence[ImageSource], several_faces: str
    ) -> tuple[list[NewFace], tuple[Quality, ...]]:
        """The faces to store and their quality, one for each photo. Raises as FaceService.enroll does."""
        if several_faces not in ("error", "largest"):
            raise InvalidValueError("several_faces", several_faces, "'error' or 'largest'")
        sources: list[Any] = list(images) if isinstance(images, (list, tuple)) else [images]
        if not sources:
            raise InvalidValueError("images", images, "at least one photo")
        check_count("the number of photos", len(sources), MAX_PHOTOS)
        stored = [self._admit_one(source, several_faces) for source in sources]
        return [face for face, _ in stored], tuple(quality for _, quality in stored)

    def _admit_one(self, source: ImageSource, several_faces: str) -> tuple[NewFace, Quality]:
        image = self._analyzer.decode(source)
        faces = self._analyzer.analyze_decoded(image)
        if not faces:
            raise NoFaceError(f"No face was found in {named(source)}. Send a photo in which one face is plain to see.")
        if len(faces) > 1 and several_faces == "error":
            boxes = [face.box.as_tuple() for face in faces]
            listed = "; ".join(
                "left {:.0f}, top {:.0f}, right {:.0f}, bottom {:.0f}".format(*box) for box in boxes[:10]
            )
            raise SeveralFacesError(
                f"{named(source)} shows {len(faces)} faces ({listed}). Send a photo of one person, or choose the largest "
                "face (several_faces='largest', --largest).",
                boxes,
            )
        face = faces[0]
        self._check_quality(face, source)
        data, crop = self._kept(image, face)
        return (
            NewFace(
                embedding=face.embedding,
                box=face.box,
                confidence=face.confidence,
                quality=face.quality.score,
                image_path=_stored_path(source),
                image_data=data,
                image_sha256=image.sha256,
                image_crop=crop,
            ),
            face.quality,
        )

    def _kept(self, image: DecodedImage, face: Face) -> tuple[bytes | None, Crop | None]:
        match self._images:
            case "off":
                return None, None
            case "original":
                return image.encoded, None
            case "face":
                return crop_around(image, face.box)

    def _check_quality(self, face: Face, source: ImageSource) -> None:
        reasons = face.quality.reasons
        if face.box.height < self._min_face:
            raise LowQualityError(
                f"The face in {named(source)} is {face.box.height:.0f} pixels high; enrolment needs {self._min_face:.0f}. "
                "Send a larger photo, or lower enroll.min_face.",
                ("small", *(reason for reason in reasons if reason != "small")),
            )
        if face.quality.score < self._min_quality:
            raise LowQualityError(
                f"The face in {named(source)} has a quality of {face.quality.score:.2f}; enrolment needs "
                f"{self._min_quality:.2f}. What lowers it: {', '.join(reasons) or 'several small things'}. Send a better "
                "photo, or lower enroll.min_quality.",
                reasons,
            )


def _stored_path(source: ImageSource) -> str | None:
    """The path as the gallery keeps it: as it was given, or its name where it is too long."""
    if not isinstance(source, (str, os.PathLike)):
        return None
    # A file's name may hold bytes that are no text; PostgreSQL takes none of these.
    path = os.fsdecode(source).encode("utf-8", "replace").decode("utf-8")
    return path if len(path) <= MAX_IMAGE_PATH else Path(path).name[:MAX_IMAGE_PATH]


def named(source: ImageSource) -> str:
    """How an error names a photo: its path, never its content."""
    return str(source) if isinstance(source, (str, os.PathLike)) else "the photo"
