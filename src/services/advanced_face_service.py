"""The import path and the calls that existing callers use; all work is `faceward.FaceService`'s."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import faceward
from faceward.types import FaceMatch, ImageSource

UNKNOWN = -1
"""The person_id of a face that is nobody of the region."""


class AdvancedFaceRecognitionService:
    """Plain dictionaries in front of a FaceService that reads ./config.json, or the file given."""

    def __init__(self, config_path: str | Path | None = None, *, service: faceward.FaceService | None = None) -> None:
        self._service = service or faceward.open_service(config=config_path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._service.close()

    def enroll_person(
        self,
        name: str,
        image_path: ImageSource | list[ImageSource],
        region: str,
        description: str | None = None,
        client_id: str | None = None,
    ) -> dict[str, Any]:
        """Enroll a person with a photo (or a list of photos) in a region. Raises faceward's errors."""
        stored = self._service.enroll(
            image_path, name=name, region=region, description=description, client_id=client_id
        )
        return {
            "success": True,
            "person_id": stored.person.id,
            "face_ids": list(stored.face_ids),
            "name": stored.person.name,
            "region": stored.person.region,
            "client_id": stored.person.client_id,
            "quality_scores": [quality.score for quality in stored.quality],
        }

    def recognize_face_with_threshold(
        self,
        image: ImageSource,
        region: str,
        threshold: float | None = None,
        client_id: str | None = None,
    ) -> dict[str, Any]:
        """Who of the region is in the image; threshold is a cosine similarity. One match for each face found."""
        answer = self._service.recognize(image, region=region, threshold=threshold, client_id=client_id)
        return {
            "success": True,
            "faces_detected": len(answer.faces),
            "matches": [_match(face) for face in answer.faces],
            "region": region,
            "client_id": answer.client_id,
            "threshold": answer.threshold,
        }


def _match(found: FaceMatch) -> dict[str, Any]:
    """A face as callers know it. match_score: percent, 100 x cosine similarity; of the nearest person where nobody
    matched, 0.0 in a region without faces."""
    nearest = found.match or next(iter(found.candidates), None)
    return {
        "person_id": found.match.person_id if found.match else UNKNOWN,
        "name": found.match.name if found.match else "Unknown",
        "match_score": nearest.match_score if nearest else 0.0,
        "similarity": nearest.similarity if nearest else None,
        "region": found.match.region if found.match else None,
        "description": found.match.description if found.match else None,
        "bbox": list(found.face.box.as_tuple()),
        "confidence": found.face.confidence,
        "quality_score": found.face.quality.score,
    }
