"""faceward: face recognition inside a region, inside a tenant, in PostgreSQL.

import faceward

with faceward.open_service() as service:
    service.enroll("alice.jpg", name="Alice", region="A", client_id="client_123")
    answer = service.recognize("camera.jpg", region="A", client_id="client_123")
"""

import importlib
from typing import TYPE_CHECKING

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

if not TYPE_CHECKING:  # a type checker reads the imports above, and so still finds a misspelt name

    def __getattr__(name: str) -> object:
        """Import a name on its first use: `faceward --help` needs neither the models' runtime nor the database's driver."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_ELSEWHERE.get(name, "faceward.types")), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
