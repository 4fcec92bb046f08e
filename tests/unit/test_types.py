"""What passes between the layers: the values compute what they say."""

from __future__ import annotations

import dataclasses
import datetime as dt

from faceward import types
from faceward.types import Box, Candidate, Person, StoredFace

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def test_boxes_measure_themselves() -> None:
    box = Box(10, 20, 40, 25)
    assert (box.width, box.height, box.area) == (30, 5, 150)
    assert box.as_tuple() == (10, 20, 40, 25)
    assert Box(10, 10, 5, 5).area == 0


def test_a_match_score_is_the_similarity_in_percent() -> None:
    assert Candidate(1, 2, "Alice", "A", 0.5).match_score == 50.0


def test_rows_become_values() -> None:
    row = {
        "id": 1,
        "client_id": "c",
        "region": "A",
        "name": "Alice",
        "description": None,
        "external_id": "x",
        "face_count": 2,
        "created_at": NOW,
        "updated_at": NOW,
        "state": "active",
        "expires_at": None,
    }
    person = Person.from_row({**row, "a column of a later version": 1})
    assert dataclasses.asdict(person) == row
    face_row = {
        "id": 3,
        "person_id": 1,
        "face_bbox": "1.0,2.5,3.0,4.0",
        "confidence": 0.5,
        "quality_score": None,
        "image_path": "a.jpg",
        "has_image": False,
        "created_at": NOW,
    }
    assert StoredFace.from_row(face_row).box == Box(1.0, 2.5, 3.0, 4.0)
    assert StoredFace.from_row({**face_row, "face_bbox": None}).box is None


def test_values_are_frozen_and_show_no_embedding_or_image() -> None:
    frozen = [kind for kind in vars(types).values() if dataclasses.is_dataclass(kind)]
    assert len(frozen) >= 10
    for kind in frozen:
        assert kind.__dataclass_params__.frozen, kind
        hidden = {"embedding", "image_data", "image_sha256"}
        assert not [part.name for part in dataclasses.fields(kind) if part.name in hidden and part.repr], kind
