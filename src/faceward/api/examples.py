"""Examples of bodies for the OpenAPI document; a test holds each against its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from faceward.http_types import answered, sent

_PHOTO = "/9j/4AAQSkZJRgABAQ=="
_AT = "2026-03-02T08:15:30Z"
_BOX = {"left": 241.0, "top": 96.5, "right": 402.3, "bottom": 309.8}
_QUALITY = {"score": 0.93, "reasons": []}
_LANDMARKS = [[283.1, 178.0], [358.6, 176.2], [321.4, 220.9], [290.7, 259.3], [352.0, 257.8]]
_THRESHOLD = {"value": 0.38, "source": "pack"}
_PERSON = {
    "id": 1042,
    "region": "A",
    "name": "Alice",
    "description": None,
    "external_id": "E-1042",
    "face_count": 2,
    "state": "active",
    "expires_at": "2030-01-31T17:00:00Z",
    "created_at": _AT,
    "updated_at": _AT,
}
_CANDIDATE = {
    "person_id": 1042,
    "face_id": 2077,
    "name": "Alice",
    "region": "A",
    "external_id": "E-1042",
    "similarity": 0.71,
    "match_score": 71.0,
}
_KEY = {
    "id": 7,
    "client_id": "client_123",
    "prefix": "k3v9x2m7q0ab",
    "name": "Door 4",
    "role": "recognizer",
    "regions": ["A"],
    "rate_limit": None,
    "created_at": _AT,
    "expires_at": "2027-03-02T00:00:00Z",
    "revoked_at": None,
    "last_used_at": None,
}
_JOB = {
    "id": 12,
    "kind": "archive",
    "state": "partial",
    "total": 300,
    "done": 300,
    "stored_persons": 98,
    "stored_faces": 297,
    "skipped": 0,
    "refused": 3,
    "error_code": None,
    "error_message": None,
    "created_at": _AT,
    "started_at": _AT,
    "finished_at": "2026-03-02T08:16:12Z",
}
_RECEIPT = {
    "receipt": {
        "format": "faceward erasure 1",
        "id": "5b0c7f0e-2b0c-4f7e-9d55-0f3d1c7f2a11",
        "client_id": "client_123",
        "erased_at": _AT,
        "actor": "key:k3v9x2m7q0ab",
        "removed": {
            "persons": 1,
            "faces": 2,
            "photos": 0,
            "request_tokens": 1,
            "refusals": 0,
            "audit_entries": 3,
            "decisions": 41,
        },
        "imports_under_way": 1,
        "jobs_under_way": [31],
        "left": {},
        "checked": True,
        "complete": True,
    },
    "public_key": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "signature": "5VZDAMNgrHKQhuLMgG6CioSHfx64...",
}
_AUDIT_ENTRY = {
    "id": 3107,
    "at": _AT,
    "actor": "key:k3v9x2m7q0ab",
    "action": "person.move",
    "person_id": 1042,
    "other_person_id": None,
    "details": {"old": "A", "new": "B"},
}
_DECISION = {
    "id": 88120,
    "at": _AT,
    "actor": "key:k3v9x2m7q0ab",
    "kind": "recognize",
    "regions": ["A"],
    "threshold": _THRESHOLD,
    "decision": "match",
    "candidates": [{"person_id": 1042, "face_id": 2077, "similarity": 0.71}],
}
_CLIENT = {
    "client_id": "client_123",
    "name": "Example Ltd",
    "threshold": None,
    "retention_days": 365,
    "created_at": _AT,
    "updated_at": _AT,
}
_REGION = {"name": "A", "persons": 98, "faces": 297, "threshold": None, "retention_days": None, "created_at": _AT}

EXAMPLES: Mapping[type[BaseModel], Any] = {
    sent.PersonCreate: {"name": "Alice", "region": "A", "images": [_PHOTO], "external_id": "E-1042"},
    sent.PersonPatch: {"name": "Alice Smith", "description": None, "state": "suspended"},
    sent.PersonMove: {"region": "B"},
    sent.PersonMerge: {"into": 1042, "across_regions": False},
    sent.FacesCreate: {"images": [_PHOTO]},
    sent.RegionCreate: {"name": "A", "threshold": 0.4},
    sent.RegionPatch: {"name": "Main gate", "threshold": None},
    sent.RecognizeRequest: {"image": _PHOTO, "region": ["A", "B"], "top_k": 3},
    sent.VerifyRequest: {"image": _PHOTO, "person_id": 1042},
    sent.DetectRequest: {"image": _PHOTO, "max_faces": 10},
    sent.ClientCreate: {"client_id": "client_123", "name": "Example Ltd"},
    sent.ClientPatch: {"threshold": 0.42},
    sent.KeyCreate: {"role": "recognizer", "regions": ["A"], "name": "Door 4", "expires_at": "2027-03-02T00:00:00Z"},
    answered.PersonOut: _PERSON,
    answered.PersonPage: {"items": [_PERSON], "next": "1042"},
    answered.EnrollmentOut: {
        "person": _PERSON,
        "faces": [{"id": 2077, "quality": _QUALITY}],
        "likely_duplicates": [],
    },
    answered.MergeOut: {"person": _PERSON, "faces_moved": 1, "faces_dropped": 0, "external_id_dropped": False},
    answered.ReceiptOut: _RECEIPT,
    answered.AuditPage: {"items": [_AUDIT_ENTRY], "next": None},
    answered.DecisionPage: {"items": [_DECISION], "next": "88120"},
    answered.FacePage: {
        "items": [
            {"id": 2077, "box": _BOX, "confidence": 0.91, "quality": 0.93, "has_image": True, "created_at": _AT},
        ],
        "next": None,
    },
    answered.Detection: {
        "faces": [{"box": _BOX, "landmarks": _LANDMARKS, "confidence": 0.9127, "quality": _QUALITY}],
    },
    answered.RecognitionOut: {
        "faces": [
            {
                "box": _BOX,
                "confidence": 0.9127,
                "quality": _QUALITY,
                "decision": "match",
                "reason": "Alice (person 1042) is at 0.710, at or above the threshold 0.38 of the model pack or the settings.",
                "threshold": _THRESHOLD,
                "match": _CANDIDATE,
                "candidates": [_CANDIDATE],
            }
        ],
        "regions": ["A"],
    },
    answered.SearchOut: {"candidates": [_CANDIDATE], "regions": ["A"]},
    answered.VerificationOut: {
        "verified": True,
        "similarity": 0.71,
        "match_score": 71.0,
        "threshold": _THRESHOLD,
        "face_id": 2077,
    },
    answered.RegionOut: _REGION,
    answered.RegionChanged: {**_REGION, "retention_days": 365, "existing": {"people": 61, "expired": 4}},
    answered.RegionPage: {"items": [_REGION], "next": None},
    answered.ClientOut: _CLIENT,
    answered.ClientChanged: {**_CLIENT, "existing": None},
    answered.ClientPage: {"items": [_CLIENT], "next": None},
    answered.KeyOut: _KEY,
    answered.KeyPage: {"items": [_KEY], "next": None},
    answered.NewKeyOut: {"key": _KEY, "secret": "fw_k3v9x2m7q0ab_" + "x" * 43},
    answered.Me: {
        "client_id": "client_123",
        "role": "recognizer",
        "regions": ["A"],
        "prefix": "k3v9x2m7q0ab",
        "expires_at": None,
        "may": ["recognize", "verify", "detect", "search", "read"],
        "model_id": "faceplugin-0.0.1:87aacdfe5751",
        "dimension": 512,
    },
    answered.JobOut: _JOB,
    answered.JobPage: {"items": [_JOB], "next": None},
    answered.RefusalPage: {
        "items": [
            {
                "position": 17,
                "item": "A/bob/3.jpg",
                "code": "no_face",
                "reason": "No face was found.",
            }
        ],
        "next": None,
    },
    answered.Problem: {
        "type": "urn:faceward:problem:unknown_region",
        "title": "Not Found",
        "status": 404,
        "detail": "Region 'C' does not exist for this client. Regions that do: A, B.",
        "code": "unknown_region",
        "request_id": "0d0e8f7c2a5b4c0f8d6b1e1b1c9a7e55",
        "known_regions": ["A", "B"],
    },
}
