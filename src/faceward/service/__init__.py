"""FaceService: enroll, recognize, verify and keep the people of each region of each client."""

from typing import TYPE_CHECKING

from faceward.lazy import lazily

if TYPE_CHECKING:
    from faceward.service.face_service import FaceService, ModelService

__all__ = ["FaceService", "ModelService"]

_HOMES = {
    "FaceService": "faceward.service.face_service",
    "ModelService": "faceward.service.face_service",
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _HOMES)
