"""FaceService: enroll, recognize, verify and keep the people of each region of each client."""

from faceward.service.face_service import FaceService, ModelService

__all__ = ["FaceService", "ModelService"]
