"""docs/operations.md says what is: its commands run in the order of the page, its metrics and settings exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from command_line import CommandLine

from faceward.api.metrics import Metrics
from faceward.settings import described, load_settings

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.S | re.M)


def rows(heading: str) -> list[list[str]]:
    table = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_command_of_the_page_runs(
    faceward: CommandLine, enrolled: int, new_database: Callable[[], AbstractContextManager[str]], tmp_path: Path
) -> None:
    with new_database() as other:
        (tmp_path / "server.json").write_text(json.dumps({"database": {"url": other}}))
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        for block in blocks("sh"):
            done = subprocess.run(
                ["sh", "-ec", block],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        moved = CommandLine(tmp_path / "server.json").succeeds("people", "list", "--json").json["people"]
    assert [person["name"] for person in moved] == ["Barack Obama"]


def test_the_json_example_is_settings(tmp_path: Path) -> None:
    (example,) = blocks("json")
    (tmp_path / "config.json").write_text(example)
    assert load_settings(tmp_path / "config.json").database.pool_timeout == 5


def test_the_metrics_are_those_of_the_service() -> None:
    named = {cell.strip("`") for cell, *_ in rows("What to watch")}
    shown = set(re.findall(r"^# TYPE (\S+)", Metrics().page().decode(), flags=re.M))
    assert named <= shown
    assert len(named) >= 14


def test_the_time_outs_are_the_settings_defaults() -> None:
    defaults = {name: float(default) for name, default, _ in described() if re.fullmatch(r"[\d.]+", default)}
    for seconds, setting, _ in rows("Time-outs"):
        assert defaults[setting.strip("`")] == float(seconds)


def test_every_setting_that_is_named_exists() -> None:
    names = {name for name, _, _ in described()}
    sections = {name.partition(".")[0] for name in names if "." in name}
    for name in re.findall(r"`([a-z]+\.[a-z_]+)`", TEXT):
        assert name.partition(".")[0] not in sections or name in names, name
