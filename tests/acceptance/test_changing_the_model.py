"""docs/changing-the-model.md, from its first command to its last, and what `faceward reembed` says and refuses."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

from faceward.vision import ModelPack
from other_packs import add_pack, folder_of, home_with

DOCUMENT = Path(__file__).parents[2] / "docs" / "changing-the-model.md"
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), flags=re.S | re.M)
    for line in block.splitlines()
]


@pytest.fixture
def changing(
    faceward: CommandLine, home: Path, pack: ModelPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    """With photos kept, in a home of its own, in a directory with the folder `stronger`; it stays as nice as it is."""
    monkeypatch.setenv("FACEWARD_HOME", str(home_with(home, pack, tmp_path / "home")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "nice", lambda _: 0)
    folder_of(tmp_path / "stronger", pack, "stronger-1", 256)
    config = json.loads(faceward.config.read_text())
    faceward.config.write_text(json.dumps({**config, "images": {"store": "original"}}))
    return faceward


@pytest.fixture
def people(changing: CommandLine, photos: dict[str, Path]) -> None:
    changing.succeeds("enroll", photos["obama.jpg"], photos["obama2.jpg"], "--name", "Barack", "--region", "A")
    changing.succeeds("enroll", photos["biden.jpg"], "--name", "Joe", "--region", "A", "--client", "acme")


def test_the_document_from_its_first_command_to_its_last(
    changing: CommandLine, people: None, photos: dict[str, Path]
) -> None:
    def who() -> str:
        (face,) = changing.succeeds("recognize", photos["obama3.jpg"], "--region", "A", "--json").json[0]["faces"]
        return str(face["match"]["name"])

    said = {}
    for line in COMMANDS:
        program, *arguments = shlex.split(line)
        assert program == "faceward"
        said[line] = changing.succeeds(*arguments).stdout
        if {"cut-over", "roll-back", "finish"} & set(arguments):
            assert who() == "Barack"
    assert len(said) >= 7
    assert "3 in the gallery, 3 of them also by stronger-1" in said["faceward reembed --pack stronger-1"]
    assert "0 would be left without a face" in said["faceward reembed status --faces"]
    assert "0 would find somebody else" in said["faceward reembed compare --sample 2000"]
    assert '"pack": "stronger-1"' in said["faceward reembed cut-over"]
    assert "is of faceplugin" in said["faceward reembed roll-back"]
    assert "finished" in said["faceward reembed finish --yes"]
    assert changing.succeeds("reembed", "status", "--json").json["state"] == "finished"
    points = {point["name"]: point for point in changing("doctor", "--json").json}
    assert points["gallery's model"]["state"] == "ok"
    assert "stronger-1" in points["gallery's model"]["detail"]
    assert "narrow" not in changing.succeeds("regions").stderr


def entries(changing: CommandLine, client: str = "default") -> list[dict[str, Any]]:
    """What the audit log of a client says of the change, the oldest first."""
    listed = changing.succeeds("audit", "list", "--client", client, "--json").json["entries"]
    return [each for each in reversed(listed) if each["action"].startswith("reembed.")]


def test_what_a_change_says_to_programs(changing: CommandLine, people: None, pack: ModelPack, tmp_path: Path) -> None:
    model = add_pack(tmp_path / "home", pack, "turned-1", 512)
    assert changing.succeeds("reembed", "status", "--json").json == {"state": None}
    filled = changing.succeeds("reembed", "--pack", "turned-1", "--json").json
    assert (filled["state"], filled["model_to"], filled["made"], filled["waiting"]) == ("ready", model, 3, 0)
    compared = changing.succeeds("reembed", "compare", "--json").json
    assert (compared["faces"], compared["different"], compared["after"]["right"]) == (3, 0, 2)
    exchanged = changing.succeeds("reembed", "cut-over", "--json").json
    assert (exchanged["persons_left"], exchanged["change"]["state"]) == (0, "cut_over")
    assert changing.succeeds("reembed", "roll-back", "--json").json["change"]["state"] == "ready"
    assert changing.succeeds("reembed", "abandon", "--json").json["state"] == "abandoned"
    told = entries(changing)
    assert [each["action"] for each in told] == [
        "reembed.begin",
        "reembed.cut_over",
        "reembed.roll_back",
        "reembed.abandon",
    ]
    assert all(each["actor"].startswith("cli:") for each in told)
    models = {"model_from": pack.model_id, "model_to": model}
    assert [each["details"] for each in told] == [
        models,
        {**models, "caught_up": 0, "persons_left": 0},
        {**models, "caught_up": 0, "persons_left": 0},
        {**models, "faces": 3},
    ]
    assert entries(changing, "acme") == []


def test_who_has_no_photo_is_listed(
    changing: CommandLine, people: None, photos: dict[str, Path], pack: ModelPack
) -> None:
    config = json.loads(changing.config.read_text())
    changing.config.write_text(json.dumps({**config, "images": {"store": "off"}}))
    number = changing.succeeds("enroll", photos["astronaut.png"], "--name", "Eileen", "--region", "B", "--json").json[
        "person"
    ]["id"]
    changing.succeeds("models", "add", "stronger")
    changing.succeeds("reembed", "--pack", "stronger-1")
    (face,) = changing.succeeds("reembed", "status", "--faces", "--json").json["faces"]
    assert (face["person_id"], face["code"]) == (number, "no_image")
    assert "No photo of it is stored" in changing.succeeds("reembed", "status", "--faces").stdout
    assert f"{number} of client 'default'" in changing.fails("reembed", "cut-over")
    assert [each["action"] for each in entries(changing)] == ["reembed.begin"]
    assert "1 persons" in changing.succeeds("reembed", "cut-over", "--leave-behind").stdout
    assert entries(changing)[-1]["details"]["persons_left"] == 1
    asked = changing("reembed", "finish", typed="n\n")
    assert asked.status == 1
    assert "1 faces lose their last embedding, and 1 persons have none any more. [y/N]" in asked.stderr
    assert "Aborted" in changing("reembed", "finish", "--json").stderr  # nobody is there to answer
    assert changing.succeeds("reembed", "status", "--json").json["state"] == "cut_over"
    assert "finished" in changing.succeeds("reembed", "finish", typed="y\n").stdout
    assert (entries(changing)[-1]["action"], entries(changing)[-1]["details"]["faces"]) == ("reembed.finish", 4)


def test_who_was_left_behind_by_a_roll_back_is_not_lost_unasked(
    changing: CommandLine, people: None, photos: dict[str, Path]
) -> None:
    changing.succeeds("models", "add", "stronger")
    changing.succeeds("reembed", "--pack", "stronger-1")
    changing.succeeds("reembed", "cut-over")
    config = json.loads(changing.config.read_text())
    changing.config.write_text(json.dumps({**config, "images": {"store": "off"}}))
    changing.succeeds("enroll", photos["astronaut.png"], "--name", "Eileen", "--region", "B")
    assert "left without a face (1)" in changing.fails("reembed", "roll-back")
    assert "1 persons" in changing.succeeds("reembed", "roll-back", "--leave-behind").stdout
    asked = changing("reembed", "abandon", typed="n\n")
    assert asked.status == 1
    assert "1 faces lose their last embedding, and 1 persons have none any more. [y/N]" in asked.stderr
    assert "Aborted" in changing("reembed", "abandon", "--json").stderr  # nobody is there to answer
    assert changing.succeeds("reembed", "status", "--json").json["state"] == "ready"
    assert changing.succeeds("reembed", "abandon", "--yes", "--json").json["state"] == "abandoned"


def test_a_model_that_does_not_open_begins_no_change(
    changing: CommandLine, people: None, pack: ModelPack, tmp_path: Path
) -> None:
    manifest = tmp_path / "stronger" / "faceward-pack.json"
    right = json.loads(manifest.read_text())
    manifest.write_text(
        json.dumps({**right, "name": "wrong-1", "embedding": {**right["embedding"], "width": 128, "height": 128}})
    )
    changing.succeeds("models", "add", "stronger")
    answer = changing("reembed", "--pack", "wrong-1")
    assert (answer.status, "its manifest says (3, 128, 128) a picture" in answer.stderr) == (1, True), answer
    assert changing.succeeds("reembed", "status", "--json").json == {"state": None}


def test_nothing_is_compared_where_the_new_model_has_no_face(
    changing: CommandLine, people: None, photos: dict[str, Path], pack: ModelPack
) -> None:
    changing.succeeds("photos", "drop", "--yes")
    changing.succeeds("models", "add", "stronger")
    changing.succeeds("reembed", "--pack", "stronger-1")
    line = changing.fails("reembed", "compare")
    assert "has no face by stronger-1" in line
    assert "`faceward reembed status --faces` says why" in line


def test_what_can_not_be_done_is_said(changing: CommandLine) -> None:
    for step in ("compare", "cut-over", "roll-back", "finish", "abandon"):
        assert "No change of the model is under way" in changing.fails("reembed", step)
    assert "There is no model pack 'none-such'" in changing.fails("reembed", "--pack", "none-such")
    assert "The gallery is empty" in changing.fails("reembed", "--pack", "faceplugin-0.0.1")
    assert "name the model pack" in changing.misused("reembed")
    assert "belongs to" in changing.misused("reembed", "--pack", "x", "status")
