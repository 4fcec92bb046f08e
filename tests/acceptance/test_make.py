"""What `make` says where the machine lacks something, and that a finished .venv is left alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout in a path with a space; its one dependency is nowhere to be had."""
    copied = tmp_path / "a checkout"
    (copied / "requirements").mkdir(parents=True)
    shutil.copytree(CHECKOUT / "scripts", copied / "scripts")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, copied)
    (copied / "requirements" / "runtime.txt").write_text(f"numpy==0.0.1 --hash=sha256:{'0' * 64}\n")
    (copied / "requirements" / "dev.txt").write_text("")
    return copied


def make(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        ["make", *arguments], cwd=checkout, env=kept | environment, capture_output=True, text=True, check=False
    )


def stub(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def all_pythons(folder: Path, text: str) -> str:
    """A PATH on which every Python behaves like this script."""
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        stub(folder, name, text)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_only_an_old_python(checkout: Path, tmp_path: Path) -> None:
    path = all_pythons(tmp_path / "bin", 'case "$2" in *ensurepip*) exit 3 ;; *) echo 3.9 ;; esac')

    done = make(checkout, "demo", PATH=path)

    assert done.returncode != 0
    assert "Python 3.11 or newer is needed" in done.stderr
    assert "python3 is 3.9." in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_python_that_cannot_make_environments(checkout: Path, tmp_path: Path) -> None:
    path = all_pythons(tmp_path / "bin", 'case "$2" in *ensurepip*) exit 4 ;; *) echo 3.12 ;; esac')

    done = make(checkout, "demo", PATH=path)

    assert done.returncode != 0
    assert "has no ensurepip module" in done.stderr
    assert "apt-get install python3.12-venv" in done.stderr


def test_a_later_python_is_taken_where_the_first_does_not_fit(tmp_path: Path) -> None:
    path = all_pythons(tmp_path / "bin", "exit 3")
    stub(tmp_path / "bin", "python3.13", f'exec "{sys.executable}" "$@"')

    done = subprocess.run(
        ["/bin/sh", CHECKOUT / "scripts" / "find_python.sh"],
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "python3.13\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [(None, "is no command here"), ("exit 3", "needs 3.11 or newer"), ("exit 1", "does not run as a Python")],
)
def test_a_named_python_that_does_not_fit(checkout: Path, tmp_path: Path, script: str | None, message: str) -> None:
    if script is not None:
        stub(tmp_path / "bin", "mine", script)
    named = tmp_path / "bin" / "mine"

    done = make(checkout, "demo", f"PYTHON={named}")

    assert done.returncode != 0
    assert f"PYTHON={named}" in done.stderr
    assert message in done.stderr


def test_a_half_made_venv_is_made_anew_and_a_failure_names_the_way_out(checkout: Path) -> None:
    half_made = checkout / ".venv" / "bin"
    half_made.mkdir(parents=True)
    (half_made / "leftover").touch()

    done = make(checkout, "demo", PYTHON=sys.executable, PIP_NO_INDEX="1")

    assert done.returncode != 0
    assert "making it anew" in done.stdout
    assert not (half_made / "leftover").exists()
    assert "No matching distribution found for numpy==0.0.1" in done.stderr
    assert "pip download" in done.stderr
    assert "-d wheels -r requirements/runtime.txt" in done.stderr
    assert f"copy the folder wheels/ into {checkout}" in done.stderr
    # No stamp: the next run starts anew too.
    assert not list((checkout / ".venv").glob(".faceward-*"))


def test_a_finished_venv_is_left_alone_until_the_lock_changes(checkout: Path) -> None:
    """The stamp alone decides; this one is written by hand for a .venv that holds nothing but a Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout / ".venv"], check=True)
    packages = next((checkout / ".venv").glob("lib/python*/site-packages"))
    (packages / "faceward.py").touch()
    stub(checkout / ".venv" / "bin", "faceward", 'echo "demo: $*"')
    key = 'printf "%s %s\\n" "$(cat pyproject.toml requirements/runtime.txt scripts/venv.sh | cksum)" "$(pwd)"'
    stamp = subprocess.run(["/bin/sh", "-c", key], cwd=checkout, capture_output=True, check=True).stdout
    (checkout / ".venv" / ".faceward-runtime").write_bytes(stamp)

    done = make(checkout, "demo", "DEMO_ARGS=--quick", PIP_NO_INDEX="1")
    assert (done.returncode, done.stdout) == (0, "demo: demo --quick\n")

    with (checkout / "pyproject.toml").open("a") as project:
        project.write("# changed\n")
    done = make(checkout, "demo", PIP_NO_INDEX="1")
    assert done.returncode != 0
    assert ".venv" in done.stdout
