"""A person's zip holds what is held of the person, and nothing of anybody else."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faceward.actors import acting_as
from faceward.errors import UnknownPersonError
from faceward.factory import open_parts
from faceward.settings import load_settings
from faceward.types import RequestToken
from searching import at_last


def test_all_that_is_held_is_told(database_url: str, home: Path, photos: dict[str, Path]) -> None:
    settings = load_settings(home=home, database={"url": database_url, "pool_size": 4}, images={"store": "original"})
    with open_parts(settings) as parts:
        service = parts.service
        alice = service.enroll(
            photos["obama.jpg"], name="Alice", region="A", external_id="E-1", request=RequestToken(1, "token-1", b"f")
        ).person
        added = service.add_face(alice.id, photos["obama2.jpg"])
        bob = service.enroll(photos["biden.jpg"], name="Bobsecret", region="A").person
        service.recognize(photos["obama3.jpg"], region="A")
        service.verify(photos["biden.jpg"], person_id=bob.id)
        at_last(lambda: parts.decisions.written == 2)
        file = io.BytesIO()
        with acting_as("key:officer"):
            service.export_person(alice.id, file)
        again = io.BytesIO()
        service.export_person(alice.id, again)
        with pytest.raises(UnknownPersonError):
            service.export_person(alice.id, io.BytesIO(), client_id="somebody else")

    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        held: dict[str, Any] = {
            name.removesuffix(".json"): json.loads(archive.read(name))
            for name in archive.namelist()
            if name.endswith(".json")
        }
        images = {name: archive.read(name) for name in archive.namelist() if name.startswith("photos/")}
        everything = b"".join(archive.read(name) for name in archive.namelist() if name.endswith(".json"))
    assert (held["person"]["id"], held["person"]["name"], held["person"]["external_id"]) == (alice.id, "Alice", "E-1")
    faces = held["faces"]
    assert len(faces) == 2
    assert faces[1]["id"] == added.face_ids[0]
    assert all(np.linalg.norm(face["embedding"]) == pytest.approx(1, abs=1e-3) for face in faces)
    assert all(face["face_bbox"] and face["quality_score"] and face["model_id"] for face in faces)
    assert images == {
        f"photos/face-{faces[0]['id']}.jpg": photos["obama.jpg"].read_bytes(),
        f"photos/face-{faces[1]['id']}.jpg": photos["obama2.jpg"].read_bytes(),
    }
    assert [entry["action"] for entry in held["audit"]] == ["person.enroll", "face.add"]
    (decision,) = held["decisions"]
    assert (decision["kind"], decision["decision"], decision["regions"]) == ("recognize", "match", ["A"])
    assert decision["similarity"] > 0.4
    assert [request["token"] for request in held["requests"]] == ["token-1"]
    assert held["imports"] == []
    assert b"Bobsecret" not in everything
    assert f'"person_id": {bob.id}'.encode() not in everything
    with zipfile.ZipFile(again) as archive:
        entries = json.loads(archive.read("audit.json"))
    assert [(entry["action"], entry["actor"]) for entry in entries[2:]] == [("person.export", "key:officer")]
