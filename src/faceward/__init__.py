"""faceward: face recognition inside a region, inside a tenant, in PostgreSQL.

import faceward

with faceward.open_service() as service:
    service.enroll("alice.jpg", name="Alice", region="A", client_id="client_123")
    answer = service.recognize("camera.jpg", region="A", client_id="client_123")
"""

from faceward.errors import FacewardError
from faceward.factory import open_service
from faceward.service import FaceService
from faceward.settings import Settings, load_settings
from faceward.types import (
    Box,
    Candidate,
    Enrollment,
    Face,
    FaceMatch,
    Person,
    Quality,
    Recognition,
    RegionSummary,
    StoredFace,
    Verification,
)

__all__ = [
    "Box",
    "Candidate",
    "Enrollment",
    "Face",
    "FaceMatch",
    "FaceService",
    "FacewardError",
    "Person",
    "Quality",
    "Recognition",
    "RegionSummary",
    "Settings",
    "StoredFace",
    "Verification",
    "load_settings",
    "open_service",
]
