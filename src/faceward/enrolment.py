"""The gate of enrolment: from photos to the faces that are stored, or an error that says why not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

from faceward.checks import check_count
from faceward.errors import ImageError, InputError, InvalidValueError, LowQualityError, NoFaceError, SeveralFacesError
from faceward.types import Crop, Face, ImageSource, NamedImage, NewFace, Quality
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
        stored = []
        for source, place in placed(sources):
            with named(source, place) as name:
                stored.append(self._admit_one(source, name, several_faces))
        return [face for face, _ in stored], tuple(quality for _, quality in stored)

    def _admit_one(self, source: ImageSource, name: str, several_faces: str) -> tuple[NewFace, Quality]:
        image = self._analyzer.decode(source)
        faces = self._analyzer.analyze_decoded(image)
        if not faces:
            raise NoFaceError(f"No face was found in {name}. Send a photo in which one face is plain to see.")
        if len(faces) > 1 and several_faces == "error":
            boxes = [face.box.as_tuple() for face in faces]
            listed = "; ".join(
                "left {:.0f}, top {:.0f}, right {:.0f}, bottom {:.0f}".format(*box) for box in boxes[:10]
            )
            raise SeveralFacesError(
                f"{len(faces)} faces were found in {name}: {listed}. Send a photo of one person, or choose the largest "
                "face (several_faces='largest').",
                boxes,
            )
        face = faces[0]
        self._check_quality(face, name)
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

    def _check_quality(self, face: Face, name: str) -> None:
        reasons = face.quality.reasons
        if face.box.height < self._min_face:
            raise LowQualityError(
                f"The face in {name} is {face.box.height:.0f} pixels high; enrolment needs {self._min_face:.0f}. "
                "Send a larger photo, or lower enroll.min_face.",
                ("small", *(reason for reason in reasons if reason != "small")),
            )
        if face.quality.score < self._min_quality:
            raise LowQualityError(
                f"The face in {name} has a quality of {face.quality.score:.2f}; enrolment needs "
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


def placed(sources: Sequence[ImageSource]) -> list[tuple[ImageSource, int | None]]:
    """Each photo with its place among several, from 1; a single one has none."""
    return [(source, place if len(sources) > 1 else None) for place, source in enumerate(sources, start=1)]


@contextmanager
def named(source: ImageSource, place: int | None) -> Iterator[str]:
    """How an error names a photo: its path, or its place and its file's name, never its content.

    What is raised in the block gets the place; of several photos its message names the one.
    """
    if isinstance(source, (str, os.PathLike)):
        name = str(source)
    elif place is None:
        name = "the photo"
    else:
        name = f"photo {place} ({source.name})" if isinstance(source, NamedImage) else f"photo {place}"
    try:
        yield name
    except InputError as exc:
        error: InputError = exc
        if isinstance(exc, ImageError) and place is not None and not isinstance(source, (str, os.PathLike)):
            error = type(exc)(f"In {name}: {exc}")  # of a path, whoever read the file has named it
        error.image = place
        raise error from exc.__cause__
