"""What another model makes of a stored photo: the embedding of the same face, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence

from faceward.errors import ImageError
from faceward.store.reembedded_faces import StoredPhoto, Unmade
from faceward.types import Box, Embedding, Face
from faceward.vision import FaceAnalyzer

_SAME_PLACE = 0.3
"""Overlap (intersection over union) from which on two detectors' boxes are of one face."""


class PhotoEmbedder:
    """Embeds the faces of stored photos. analyzer: of the model. min_quality, min_face: as of an enrolment."""

    def __init__(self, analyzer: FaceAnalyzer, *, min_quality: float, min_face: float) -> None:
        self._analyzer = analyzer
        self._min_quality = min_quality
        self._min_face = min_face

    @property
    def model_id(self) -> str:
        return self._analyzer.model_id

    def embed(self, client_id: str, photo: StoredPhoto) -> Embedding | Unmade:
        """The embedding of the face that is stored with the photo. Where it shows several, that of the one at its box."""

        def unmade(code: str, reason: str) -> Unmade:
            return Unmade(client_id, photo.face_id, photo.person_id, code, reason)

        try:
            faces = self._analyzer.analyze(photo.image)
        except ImageError as exc:
            return unmade(exc.code, f"The stored photo can't be read: {type(exc).__name__}.")
        if not faces:
            return unmade("no_face", "The model's detector finds no face in the photo.")
        if photo.box is None:
            if len(faces) > 1:
                return unmade("several_faces", f"The photo shows {len(faces)} faces, and it is not stored which one.")
            face = faces[0]
        else:
            face = _nearest(faces, photo.box)
            if overlap(face.box, photo.box) < _SAME_PLACE:
                return unmade("no_face", "The model's detector finds no face at the place of the stored one.")
        if face.box.height < self._min_face:
            return unmade(
                "low_quality", f"The face is {face.box.height:.0f} pixels high; needed: {self._min_face:.0f}."
            )
        if face.quality.score < self._min_quality:
            why = ", ".join(face.quality.reasons) or "several small things"
            return unmade(
                "low_quality", f"Its quality is {face.quality.score:.2f}, for {why}; needed: {self._min_quality:.2f}."
            )
        return face.embedding


def overlap(one: Box, other: Box) -> float:
    """Intersection over union, 0..1."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared = max(0.0, width) * max(0.0, height)
    union = one.area + other.area - shared
    return shared / union if union > 0 else 0.0


def _nearest(faces: Sequence[Face], box: Box) -> Face:
    return max(faces, key=lambda face: overlap(face.box, box))
