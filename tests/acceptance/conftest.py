"""The command line as a user has it, and what it is tried on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import CommandLine

from faceward.vision import ModelPack


@pytest.fixture
def faceward(config: Path, pack: ModelPack, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """Its model pack is there: on a fresh machine no command before this one may have fetched it."""
    monkeypatch.setenv("COLUMNS", "160")
    return CommandLine(config)


@pytest.fixture
def without_database(tmp_path: Path, pack: ModelPack, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """With a database.url that nobody listens at."""
    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"database": {"url": "postgresql://someone:sEcReT@127.0.0.1:1/nothing"}}))
    return CommandLine(path)


@pytest.fixture
def enrolled(faceward: CommandLine, photos: dict[str, Path]) -> int:
    """Barack Obama in region A of the client `default`; his number."""
    answer = faceward.succeeds(
        "enroll", photos["obama.jpg"], "--name", "Barack Obama", "--region", "A", "--external-id", "44", "--json"
    )
    return int(answer.json["person"]["id"])


@pytest.fixture
def two_faces(photos: dict[str, Path], tmp_path: Path) -> Path:
    """A photo of two men side by side, the right one larger."""
    left, right = (cv2.imread(str(photos[name])) for name in ("obama.jpg", "biden.jpg"))
    assert left is not None
    assert right is not None
    left = cv2.resize(left, (320, 400))
    right = cv2.resize(right[:1300], (600, 804))
    both = np.full((804, 920, 3), 200, np.uint8)
    both[:400, :320], both[:, 320:] = left, right
    path = tmp_path / "two.png"
    cv2.imwrite(str(path), both)
    return path


@pytest.fixture
def save_photo(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Writes an array as an image below tmp_path."""

    def save(name: str, pixels: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), pixels)
        return path

    return save
