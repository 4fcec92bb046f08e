"""Model packs at the command line. The packs of these tests lie in a home of the test's own."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from command_line import CommandLine

from faceward.evaluation import error_rates
from faceward.vision import ModelPack, PackStore


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path, pack: ModelPack) -> Path:
    """A home that holds a copy of the default pack."""
    own = tmp_path / "home"
    shutil.copytree(PackStore(home).directory(pack.name), PackStore(own).directory(pack.name))
    monkeypatch.setenv("FACEWARD_HOME", str(own))
    return own


@pytest.fixture
def folder(tmp_path: Path, pack: ModelPack) -> Path:
    """A pack of one's own in a folder: the default embedding model under another name."""
    made = tmp_path / "mine"
    made.mkdir()
    shutil.copy(pack.embedder, made / "embed.onnx")
    manifest = {
        "name": "mine-1",
        "licence": {"name": "Proprietary", "allows": "nothing without asking"},
        "files": {"embed.onnx": hashlib.sha256(pack.embedder.read_bytes()).hexdigest()},
        "embedding": {"file": "embed.onnx", "dimension": 512, "colour": "bgr", "mean": 127.5, "scale": 128.0},
        "threshold": 0.4,
    }
    (made / "faceward-pack.json").write_text(json.dumps(manifest))
    return made


def test_the_pack_in_use_is_listed_with_its_licence(faceward: CommandLine, own_home: Path, pack: ModelPack) -> None:
    (listed,) = faceward.succeeds("models", "list", "--json").json
    assert (listed["name"], listed["in_use"], listed["present"]) == (pack.name, True, True)
    assert (listed["licence"]["name"], listed["dimension"]) == ("MIT", 512)
    assert pack.name in faceward.succeeds("models", "list").stdout


def test_a_complete_pack_is_not_fetched_again(faceward: CommandLine, own_home: Path, pack: ModelPack) -> None:
    (own_home / "packs" / pack.name / ".licence-shown").unlink(missing_ok=True)
    answer = faceward.succeeds("models", "pull")
    assert f"Model pack {pack.name} is complete and verified." in answer.stdout
    assert "licence MIT" in answer.stderr


def test_a_damaged_file_is_named(faceward: CommandLine, own_home: Path, pack: ModelPack) -> None:
    assert "4 files, all as its manifest says" in faceward.succeeds("models", "verify").stdout
    damaged = own_home / "packs" / pack.name / pack.embedder.name
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    line = faceward.fails("models", "verify", pack.name)
    assert pack.embedder.name in line
    assert f"faceward models pull {pack.name}" in line


def test_a_pack_is_added_from_a_folder(faceward: CommandLine, own_home: Path, folder: Path) -> None:
    said = faceward.succeeds("models", "add", folder).stdout
    assert "Added model pack mine-1 (licence Proprietary)" in said
    assert faceward.succeeds("models", "verify", "mine-1", "--json").json == {
        "pack": "mine-1",
        "verified": ["embed.onnx"],
    }
    assert [pack["name"] for pack in faceward.succeeds("models", "list", "--json").json][-1] == "mine-1"


def test_what_adding_refuses(faceward: CommandLine, own_home: Path, folder: Path, tmp_path: Path) -> None:
    assert "faceward-pack.json" in faceward.fails("models", "add", tmp_path / "nowhere")
    (folder / "embed.onnx").write_bytes(b"another")
    assert "has the SHA-256" in faceward.fails("models", "add", folder)
    (folder / "faceward-pack.json").write_text("{")
    assert "faceward-pack.json" in faceward.fails("models", "add", folder)


def test_an_unknown_pack_is_refused(faceward: CommandLine, own_home: Path) -> None:
    for command in ("pull", "verify"):
        assert "There is no model pack 'none-such'" in faceward.fails("models", command, "none-such")


def test_a_database_made_by_another_pack_is_refused(
    faceward: CommandLine, own_home: Path, folder: Path, enrolled: int, photos: dict[str, Path]
) -> None:
    faceward.succeeds("models", "add", folder)
    config = json.loads(faceward.config.read_text())
    faceward.config.write_text(json.dumps({**config, "model": {"pack": "mine-1"}}))
    answer = faceward("recognize", photos["obama.jpg"], "--region", "A")
    assert answer.status == 1
    assert "licence Proprietary. It allows nothing without asking" in answer.stderr  # its first use
    assert "embeddings can't be compared" in answer.stderr


def test_a_pack_is_evaluated_on_photos_of_one_s_own(
    faceward: CommandLine, photos: dict[str, Path], tmp_path: Path
) -> None:
    for name, files in (("Barack", ("obama.jpg", "obama2.jpg")), ("Joe", ("biden.jpg",))):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for file in files:
            shutil.copy(photos[file], tmp_path / "faces" / name)
    (tmp_path / "faces" / "Joe" / "torn.jpg").write_bytes(b"no image")
    call = ("models", "evaluate", tmp_path / "faces")
    answer = faceward.succeeds(*call)
    assert "3 photos of 2 people: 2 comparisons of two people, 1 of one" in answer.stdout
    assert "1 photos without a face" in answer.stdout
    assert "So few people can't show, at any threshold, that at most 1% of strangers" in answer.stdout
    assert "torn.jpg" in answer.stderr
    told = faceward.succeeds(*call, "--json").json
    assert (told["persons"], told["unused"], told["threshold"]) == (2, 1, None)
    at = {rates["threshold"]: rates for rates in told["rates"]}
    assert (at[0.35]["fmr"]["value"], at[0.35]["fnmr"]["value"]) == (0, 0)
    assert at[1.0]["fnmr"]["value"] == 1
    assert at[0.35]["fpir_by_faces"]["1000"]["high"] > 0.9


def test_what_can_t_be_evaluated(faceward: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "holds no photos: they are looked for as" in faceward.fails("models", "evaluate", tmp_path)
    assert "No such file" in faceward.fails("models", "evaluate", tmp_path / "missing")
    (tmp_path / "Ann").mkdir()
    (tmp_path / "Ann" / "1.jpg").write_bytes(b"no image")
    assert "'none'" in faceward.fails("models", "evaluate", tmp_path, "--pack", "none")
    assert "the number of photos with a face = 0" in faceward("models", "evaluate", tmp_path).stderr
    monkeypatch.setattr(error_rates, "MOST_PHOTOS", 0)
    assert "the number of photos = 1" in faceward.fails("models", "evaluate", tmp_path)
