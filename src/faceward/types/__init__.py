"""The values that pass between the layers: frozen, typed, and free of any database or model.

Boxes and landmarks are in pixels of the image as the caller sent it, after its EXIF orientation was applied; x runs
right and y runs down. Similarity is the cosine of two unit embeddings, -1..1. Embeddings are float32 of unit length.
"""

from faceward.types.access import ROLES, ApiKey, Client, ClientChange, NewKey, RequestToken, Role
from faceward.types.gallery import (
    UNCHANGED,
    Enrollment,
    Merge,
    NewFace,
    Person,
    PersonState,
    RegionChange,
    RegionSummary,
    RetentionEffect,
    StoredFace,
    Unchanged,
)
from faceward.types.images import BGRImage, Box, Crop, Embedding, Face, ImageSource, NamedImage, Quality
from faceward.types.jobs import FINISHED, Job, JobKind, JobRefusal, JobState
from faceward.types.recognition import (
    Candidate,
    Decision,
    FaceMatch,
    Recognition,
    Strategy,
    Threshold,
    ThresholdSource,
    Verification,
)

__all__ = [
    "FINISHED",
    "ROLES",
    "UNCHANGED",
    "ApiKey",
    "BGRImage",
    "Box",
    "Candidate",
    "Client",
    "ClientChange",
    "Crop",
    "Decision",
    "Embedding",
    "Enrollment",
    "Face",
    "FaceMatch",
    "ImageSource",
    "Job",
    "JobKind",
    "JobRefusal",
    "JobState",
    "Merge",
    "NamedImage",
    "NewFace",
    "NewKey",
    "Person",
    "PersonState",
    "Quality",
    "Recognition",
    "RegionChange",
    "RegionSummary",
    "RequestToken",
    "RetentionEffect",
    "Role",
    "StoredFace",
    "Strategy",
    "Threshold",
    "ThresholdSource",
    "Unchanged",
    "Verification",
]
