"""docs/gallery-care.md, and the check of a gallery at the command line, on real photos."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command_line import CommandLine

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "gallery-care.md").read_text(encoding="utf-8")


@pytest.fixture
def people(faceward: CommandLine, photos: dict[str, Path]) -> dict[str, int]:
    """Barack enrolled twice, and once more as a photo of Joe's."""
    ids = {}
    for name, photo in (("Barack", "obama.jpg"), ("B. Obama", "obama2.jpg"), ("Joe", "biden.jpg")):
        call = ("enroll", photos[photo], "--name", name, "--region", "A", "--json")
        ids[name] = faceward.succeeds(*call).json["person"]["id"]
    faceward.succeeds("people", "add-photo", ids["Joe"], photos["obama3.jpg"])
    return ids


def test_what_is_wrong_is_found_and_what_is_proposed_mends_it(
    faceward: CommandLine, people: dict[str, int], photos: dict[str, Path]
) -> None:
    answer = faceward("gallery", "check", "--json")
    assert answer.status == 1, answer.stderr
    report = answer.json
    found = [(each["kind"], each["name"], each["other_name"]) for each in report["findings"]]
    assert found[0][:2] == ("wrong_person", "Joe")
    assert found[1:] == [("enrolled_twice", "B. Obama", "Barack")]
    assert report["counts"] == {"wrong_person": 1, "enrolled_twice": 1, "alike": 0, "poor_photo": 0}
    assert (report["found"], report["regions"][0]["threshold"]["source"]) == (2, "pack")
    for each in report["findings"]:
        (command,) = re.findall(r"faceward (people .*?)(?:;|$)", each["proposal"])
        faceward.succeeds(*shlex.split(command), *(["--yes"] if "merge" in command else []))
    (left, joe) = faceward.succeeds("people", "list", "--json").json["people"]
    assert (left["name"], left["face_count"], joe["face_count"]) == ("Barack", 2, 1)
    clean = faceward.succeeds("gallery", "check", "--region", "A")
    assert "Nothing was found." in clean.stdout
    assert "Region A: 2 people, 3 photos, threshold 0.35 of the model pack or the settings." in clean.stdout


def test_a_reader_is_told_all_in_tables(faceward: CommandLine, people: dict[str, int]) -> None:
    answer = faceward("gallery", "check", "--across-regions")
    assert answer.status == 1
    shown = " ".join(answer.stdout.replace("│", " ").split())
    for part in (
        "Photos that seem to be another person's",
        "Persons who seem to be enrolled twice",
        "Region A: 3 people",
    ):
        assert part in shown
    assert "Persons who may pass" not in shown


def test_what_can_be_got_wrong(faceward: CommandLine, people: dict[str, int]) -> None:
    assert "Regions that do: A." in faceward.fails("gallery", "check", "--region", "B")
    assert "region" in faceward.fails("gallery", "check", "--region", " A")
    faceward.succeeds("clients", "create", "newcomer")
    assert "has no region yet" in faceward.succeeds("gallery", "check", "--client", "newcomer").stderr
    assert "--limit" in faceward.misused("gallery", "check", "--limit", "0")


def test_a_database_that_is_away(without_database: CommandLine) -> None:
    told = without_database.fails("gallery", "check")
    assert "can't be reached" in told
    assert "sEcReT" not in told


def test_every_command_of_the_page_runs(faceward: CommandLine, people: dict[str, int]) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.S | re.M)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) >= 4
    for line in commands:
        program, *arguments = shlex.split(line)
        assert program == ".venv/bin/faceward"
        answer = faceward(*arguments)
        assert answer.status == (1 if arguments[:2] == ["gallery", "check"] else 0), f"{line}\n{answer.stderr}"
