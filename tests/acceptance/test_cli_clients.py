"""What a command does with a client that is not there: a misspelt id must not pass for a client without people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine
from typer.core import TyperGroup
from typer.main import get_command

from faceward.cli.app import build_app

ENROLLING = {
    "enroll",
    "enroll-dir",
    "import-dir",
    "import-sqlite",
    "import-csv",
    "import-compreface",
    "import-deepface",
}
CALLS: dict[str, tuple[str, ...]] = {
    "recognize": ("PHOTO", "--region", "A"),
    "verify": ("PHOTO", "PHOTO"),
    "people list": (),
    "people show": ("1",),
    "people add-photo": ("1", "PHOTO"),
    "people delete-photo": ("1", "1"),
    "people move": ("1", "B"),
    "people merge": ("1", "2"),
    "people suspend": ("1",),
    "people resume": ("1",),
    "people expire": ("1", "--never"),
    "people delete": ("1",),
    "people export": ("1", "--out", "person.zip"),
    "people erase": ("1", "--yes"),
    "photos status": (),
    "photos rotate": ("--decrypt",),
    "photos crop": (),
    "photos drop": (),
    "purge": (),
    "gallery check": (),
    "regions": (),
    "regions create": ("A",),
    "regions rename": ("A", "B"),
    "regions set-threshold": ("A", "0.5"),
    "regions set-retention": ("A", "30"),
    "regions delete": ("A",),
    "keys create": ("--role", "manager"),
    "keys list": (),
    "keys rotate": ("1",),
    "keys revoke": ("1",),
    "audit list": (),
    "decisions": (),
    "audit-recall": ("--region", "A"),
}
"""Each command that takes --client and makes none."""


def with_client(group: TyperGroup, path: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if any("--client" in param.opts for param in command.params):
            yield path + name
        if isinstance(command, TyperGroup):
            yield from with_client(command, f"{path}{name} ")


def test_each_command_is_looked_at() -> None:
    application = get_command(build_app())
    assert isinstance(application, TyperGroup)
    assert set(with_client(application)) == {*CALLS, *ENROLLING}


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_misspelt_client_is_refused_and_nobody_is_asked(
    faceward: CommandLine, enrolled: int, photos: dict[str, Path], tmp_path: Path, options: tuple[str, ...]
) -> None:
    photo, out = photos["obama.jpg"], tmp_path / "person.zip"
    for command, arguments in CALLS.items():
        given = [{"PHOTO": photo, "person.zip": out}.get(each, each) for each in arguments]
        said = faceward.fails(*command.split(), *given, "--client", "nosuch", *options)
        assert "Client 'nosuch' does not exist. `faceward clients list` shows those that do." in said, command
    assert not out.exists()
    assert [each["client_id"] for each in faceward.succeeds("clients", "list", "--json").json["clients"]] == ["default"]


def test_the_default_client_answers_before_it_is_made(faceward: CommandLine) -> None:
    for command in ("people list", "audit list", "decisions", "gallery check", "keys list", "regions", "photos status"):
        faceward.succeeds(*command.split(), "--client", "default")
    assert "Erased 0 people" in faceward.succeeds("purge", "--client", "default").stdout
    assert faceward.succeeds("clients", "list", "--json").json["clients"] == []


def test_a_client_that_comes_with_an_enrolment_is_told(
    faceward: CommandLine, photos: dict[str, Path], tmp_path: Path
) -> None:
    options = ("--name", "N", "--region", "A", "--client", "amce")
    told = "Client 'amce' was not there before, and was made."
    assert faceward.succeeds("enroll", photos["obama.jpg"], *options).stderr.strip() == told
    assert faceward.succeeds("enroll", photos["biden.jpg"], *options).stderr == ""

    folder = tmp_path / "people"
    (folder / "A" / "Joe").mkdir(parents=True)
    (folder / "A" / "Joe" / "1.jpg").write_bytes(photos["biden.jpg"].read_bytes())
    told = "Client 'globexx' was not there before, and was made."
    assert told not in faceward.succeeds("import-dir", folder, "--client", "globexx", "--dry-run").stderr
    assert faceward.succeeds("import-dir", folder, "--client", "globexx", "--json").stderr.strip() == told

    table = tmp_path / "people.csv"
    table.write_text(f"external_id,name,image_path\n46,Joe,{photos['biden.jpg']}\n")
    imported = faceward.succeeds("import-csv", table, "--region", "A", "--client", "initch")
    assert "Client 'initch' was not there before, and was made." in imported.stderr


def test_nothing_is_told_of_the_client_that_nobody_named(faceward: CommandLine, photos: dict[str, Path]) -> None:
    assert faceward.succeeds("enroll", photos["obama.jpg"], "--name", "Barack", "--region", "A").stderr == ""
