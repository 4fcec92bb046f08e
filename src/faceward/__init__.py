"""faceward: face recognition inside a region, inside a tenant, in PostgreSQL.

import faceward

with faceward.open_service() as service:
    service.enroll("alice.jpg", name="Alice", region="A", client_id="client_123")
    answer = service.recognize("camera.jpg", region="A", client_id="client_123")
"""

from typing import TYPE_CHECKING

from faceward.lazy import lazily

if TYPE_CHECKING:
    from faceward.bulk_import import ImportReport, PersonRecord
    from faceward.client import Client
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
    "Client",
    "Enrollment",
    "Face",
    "FaceMatch",
    "FaceService",
    "FacewardError",
    "ImportReport",
    "Person",
    "PersonRecord",
    "Quality",
    "Recognition",
    "RegionSummary",
    "Settings",
    "StoredFace",
    "Verification",
    "load_settings",
    "open_service",
]

_ELSEWHERE = {
    "Client": "faceward.client",
    "ImportReport": "faceward.bulk_import",
    "PersonRecord": "faceward.bulk_import",
    "FaceService": "faceward.service",
    "FacewardError": "faceward.errors",
    "Settings": "faceward.settings",
    "load_settings": "faceward.settings",
    "open_service": "faceward.factory",
}

if not TYPE_CHECKING:  # `faceward --help` needs neither the models' runtime nor the database's driver
    __getattr__, __dir__ = lazily(__name__, {name: _ELSEWHERE.get(name, "faceward.types") for name in __all__})
