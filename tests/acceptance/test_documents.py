"""The documents say what is: each command runs, each figure is a benchmark's, each link leads somewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")

ELSEWHERE = {
    "make test": "runs this test",
    "make demo": "tests/acceptance/test_demo.py and test_make.py",
    "make serve": "tests/acceptance/test_serve.py",
    "./setup_postgres.sh --host localhost --port 5432": "tests/acceptance/setup_postgres",
}
"""Commands that other tests run, since they need another machine than this test's."""


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.S | re.M)


def commands(text: str) -> list[str]:
    return [line for block in blocks(text, "sh") for line in block.splitlines() if line and not line.startswith("#")]


@pytest.fixture
def place(tmp_path: Path, photos: dict[str, Path], config: Path) -> Path:
    """A working directory as the README supposes it: photos, a folder of people, config.json of this test's database."""
    shutil.copy(photos["obama.jpg"], tmp_path / "alice.jpg")
    shutil.copy(photos["obama3.jpg"], tmp_path / "camera.jpg")
    for path, photo in (("people/A/Joe", "biden.jpg"), ("people/B/Eileen", "astronaut.png")):
        (tmp_path / path).mkdir(parents=True)
        shutil.copy(photos[photo], tmp_path / path / photo)
    for number, photo in enumerate(("obama.jpg", "obama2.jpg", "obama3.jpg")):
        (tmp_path / "faces" / "Barack").mkdir(parents=True, exist_ok=True)
        shutil.copy(photos[photo], tmp_path / "faces" / "Barack" / f"{number}.jpg")
    (tmp_path / "faces" / "Joe").mkdir()
    shutil.copy(photos["biden.jpg"], tmp_path / "faces" / "Joe")
    assert config.parent == tmp_path
    for name in (".venv", "benchmarks", "docs", "src", "test_postgres_integration.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    if not (ROOT / ".venv").exists():  # the tests were started from another environment
        (tmp_path / ".venv").unlink()
        (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    return tmp_path


def run(command: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    if command[0].startswith(".venv/"):  # by its own path: PostgreSQL's user may not pass through pytest's directories
        command = [str((place / ".venv").resolve() / command[0].removeprefix(".venv/")), *command[1:]]
    return subprocess.run(
        command,
        cwd=place,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_every_command_of_the_readme_runs(place: Path) -> None:
    ran = 0
    for line in commands(README):
        if line in ELSEWHERE:
            continue
        command = shlex.split(line)
        if "benchmarks/search.py" in command:
            command += ["--quick", "--sizes", "1000"]
        elif "benchmarks/recognize.py" in command:
            command += ["--quick"]
        elif "audit-recall" in command:
            command += ["--sample", "20"]
        done = run(command, place)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran >= 10
    assert (place / "out.jpg").stat().st_size > 1000
    assert isinstance(json.loads((place / "search.json").read_text()), list)
    assert (place / "search.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((place / "recognize.json").read_text())["other_client"] == 0


def test_the_readmes_python_example_runs(place: Path) -> None:
    (example,) = blocks(README, "python")
    done = run([sys.executable, "-c", example], place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Alice Box(")


def test_commands_that_run_elsewhere_are_still_in_the_readme() -> None:
    assert set(ELSEWHERE) <= set(commands(README))


def test_the_tables_are_the_benchmarks_figures() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import json, tables; print(json.dumps({str(p): t for p, t in tables.documents().items()}))",
        ],
        cwd=ROOT / "benchmarks",
        capture_output=True,
        text=True,
        check=True,
    )
    for path, text in json.loads(done.stdout).items():
        assert Path(path).read_text(encoding="utf-8") == text, f"run: .venv/bin/python benchmarks/tables.py ({path})"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_of_the_project(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
