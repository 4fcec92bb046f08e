"""The calls that existing callers make, word for word, with config.json in the working directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from faceward.errors import InvalidValueError, SettingsError, UnknownRegionError
from rows import count_rows

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def service(config: Path, tmp_path: Path, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """As a caller makes it: in a directory with config.json, and the checkout on the path."""
    assert config.parent == tmp_path
    shutil.copy(photos["obama.jpg"], tmp_path / "alice.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(CHECKOUT))
    monkeypatch.delenv("FACEWARD_CONFIG", raising=False)
    from src.services.advanced_face_service import AdvancedFaceRecognitionService

    service = AdvancedFaceRecognitionService()
    yield service
    service.close()


def test_the_contract_word_for_word(
    service: Any, photos: dict[str, Path], capsys: pytest.CaptureFixture[str], database_url: str
) -> None:
    service.enroll_person(
        name="Alice", image_path="alice.jpg", region="A", description="Office A", client_id="client_123"
    )
    cv2_bgr_array = cv2.imread(str(photos["obama2.jpg"]))
    result = service.recognize_face_with_threshold(
        image=cv2_bgr_array, region="A", threshold=0.35, client_id="client_123"
    )
    for match in result["matches"]:
        if match["person_id"] != -1:
            print(match["name"], match["match_score"])
    name, score = capsys.readouterr().out.split()
    assert name == "Alice"
    assert 35 < float(score) <= 100

    (match,) = result["matches"]
    assert match["person_id"] > 0
    assert match["match_score"] == pytest.approx(100 * match["similarity"])
    assert (match["region"], match["description"]) == ("A", "Office A")
    assert count_rows(database_url)["persons"] == 1


def test_a_face_of_nobody_in_the_region_is_minus_one(service: Any, photos: dict[str, Path]) -> None:
    service.enroll_person(name="Alice", image_path="alice.jpg", region="A", client_id="client_123")
    service.enroll_person(name="Bob", image_path=str(photos["biden.jpg"]), region="B", client_id="client_123")
    (match,) = service.recognize_face_with_threshold(
        image=str(photos["obama3.jpg"]), region="B", threshold=0.35, client_id="client_123"
    )["matches"]
    assert match["person_id"] == -1
    assert match["name"] == "Unknown"
    assert match["match_score"] < 35


def test_one_match_for_each_face_and_none_without_one(service: Any, photos: dict[str, Path]) -> None:
    service.enroll_person(name="Alice", image_path="alice.jpg", region="A")
    obama, biden = (cv2.resize(cv2.imread(str(photos[name])), (600, 750)) for name in ("obama2.jpg", "biden.jpg"))
    both = np.hstack([obama, biden])
    result = service.recognize_face_with_threshold(image=both, region="A", threshold=0.35)
    assert result["faces_detected"] == 2
    assert sorted(match["name"] for match in result["matches"]) == ["Alice", "Unknown"]
    for match in result["matches"]:
        left, top, right, bottom = match["bbox"]
        assert 0 <= left < right <= 1200
        assert 0 <= top < bottom <= 750
        assert (match["name"] == "Alice") == ((left + right) / 2 < 600)
    nobody = service.recognize_face_with_threshold(image=np.full((400, 400, 3), 127, np.uint8), region="A")
    assert nobody["matches"] == []


def test_region_is_required_and_the_client_is_not(service: Any, photos: dict[str, Path]) -> None:
    with pytest.raises(TypeError, match="region"):
        service.enroll_person(name="Alice", image_path="alice.jpg")
    with pytest.raises(TypeError, match="region"):
        service.recognize_face_with_threshold(image="alice.jpg")
    for region in (None, ""):
        with pytest.raises(InvalidValueError, match="region"):
            service.enroll_person(name="Alice", image_path="alice.jpg", region=region)
        with pytest.raises(InvalidValueError, match="region"):
            service.recognize_face_with_threshold(image="alice.jpg", region=region)
    stored = service.enroll_person(name="Alice", image_path="alice.jpg", region="A")
    assert stored["client_id"] == "default"
    photo = str(photos["obama2.jpg"])
    assert service.recognize_face_with_threshold(photo, "A", client_id="default")["matches"][0]["name"] == "Alice"
    with pytest.raises(UnknownRegionError):
        service.recognize_face_with_threshold(photo, "A", client_id="another")


def test_the_import_path_works_from_the_checkout() -> None:
    code = "from src.services.advanced_face_service import AdvancedFaceRecognitionService as S; print(S.__module__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.stdout.strip() == "src.services.advanced_face_service", done.stderr


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", r"config\.json is not JSON"),
        ("[]", r"must hold a JSON object"),
        ('{"database": {"type": "mysql"}}', r"database\.type.*postgresql"),
        ('{"database": {"url": "mysql://u:s3cret@h/d"}}', r"begins with 'mysql'"),
        ('{"database": {"pool_size": 0}}', r"database\.pool_size.*greater than or equal to 1"),
        ('{"database": {"pool_sise": 20}}', r"database\.pool_sise"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused_without_its_secrets(
    config: Path, monkeypatch: pytest.MonkeyPatch, content: str, told: str
) -> None:
    monkeypatch.chdir(config.parent)
    monkeypatch.syspath_prepend(str(CHECKOUT))
    from src.services.advanced_face_service import AdvancedFaceRecognitionService

    config.write_text(content)
    with pytest.raises(SettingsError, match=told) as caught:
        AdvancedFaceRecognitionService()
    assert "s3cret" not in str(caught.value)
