"""docs/api.md says what is: its calls run in the order of the page, its codes and statuses are those of the service."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from companies import Company

from faceward import errors
from faceward.api.problems import status_of
from faceward.settings import described
from faceward.types import ROLES

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
OWN = {"method_not_allowed": 405, "internal_error": 500}
"""Of the HTTP side alone, beside the tree of errors."""
INSIDE = {
    *("invalid_input", "invalid_image", "access_error", "capacity"),  # always raised as one of their kinds
    *("invalid_receipt", "backup_file", "database_not_empty", "persons_left_behind"),  # on the command line
    *("image_not_found", "job_lost"),  # of paths, of workers: no request meets them
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.S | re.M)


def rows(heading: str) -> list[list[str]]:
    table = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.fixture
def place(tmp_path: Path, company: Company) -> Path:
    """A working directory as the page supposes it."""
    for name, photo in (("alice.jpg", "obama.jpg"), ("alice2.jpg", "obama2.jpg"), ("camera.jpg", "obama3.jpg")):
        (tmp_path / name).write_bytes(company.photo(photo))
    with zipfile.ZipFile(tmp_path / "people.zip", "w") as archive:
        archive.writestr("A/Joe/1.jpg", company.photo("biden.jpg"))
    return tmp_path


def ids(answers: str) -> dict[str, str]:
    """The variables of the page, from the answers of a block."""
    found = {}
    for line in filter(None, answers.splitlines()):
        answer = json.loads(line)
        if "person" in answer:
            found["PERSON"], found["FACE"] = answer["person"]["id"], answer["faces"][0]["id"]
        elif "secret" in answer:
            found["KEY_ID"] = answer["key"]["id"]
        elif answer.get("kind") == "archive":
            found["JOB"] = answer["id"]
    return {name: str(value) for name, value in found.items()}


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples are for curl")
def test_every_call_of_the_page_works(company: Company, place: Path) -> None:
    environment = {**os.environ, "FACEWARD_URL": company.url, "FACEWARD_KEY": company.keys["admin"]}
    # A refusal ends the block; each answer is on a line of its own.
    curl = """set -e; curl() { command curl --fail-with-body --write-out '\\n' "$@"; }\n"""
    calls = 0
    for block in blocks("sh"):
        block = block.replace("client_123", f"{company.client_id}-new")
        done = subprocess.run(
            ["bash", "-c", curl + block],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        environment |= ids(done.stdout)
        calls += len(re.findall(r"^ *curl", block, flags=re.M))
    assert calls >= 25
    assert (place / "face.jpg").read_bytes() == (place / "alice2.jpg").read_bytes()
    assert b"faceward_requests_total" in (place / "metrics.txt").read_bytes()


def test_the_python_example_works(company: Company, place: Path) -> None:
    (example,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=place,
        env={**os.environ, "FACEWARD_URL": company.url, "FACEWARD_KEY": company.keys["enroller"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "match Alice\n"


def test_the_table_of_errors_has_every_code_with_its_status() -> None:
    tree = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.FacewardError)]
    statuses = {kind.code: status_of(kind.__new__(kind)) for kind in tree}
    expected = {code: status for code, status in statuses.items() if status != 500 and code not in INSIDE}
    assert {code.strip("`"): int(status) for code, status, _ in rows("Errors")} == {**expected, **OWN}


def test_the_limits_are_settings() -> None:
    names = {name for name, _, _ in described()}
    for *_, cell in rows("Limits"):
        for name in re.findall(r"`([a-z_]+\.[a-z_]+)`", cell):
            assert name in names, name


def test_the_roles_are_those_there_are() -> None:
    assert [role.strip("`") for role, *_ in rows("Keys and roles")] == list(ROLES)


def test_the_table_of_roles_is_what_a_key_hears_that_it_may(company: Company) -> None:
    may: list[str] = []
    for role, words, _ in reversed(rows("Keys and roles")):
        may += words.split(", ")
        assert company.http(role.strip("`")).get("/v1/me").json()["may"] == may
    assert {"merge persons", "export persons", "erase persons", "read audit", "read decisions"} <= set(may)


def test_a_key_of_some_regions_hears_nothing_of_what_takes_all_of_them(company: Company) -> None:
    company.enroll_once()
    http = company.http(key=company.new_key("manager", regions=["A"]))
    may = http.get("/v1/me").json()["may"]
    for ability, path in (("read audit", "audit"), ("read decisions", "decisions"), ("manage keys", "keys")):
        assert ability not in may
        assert http.get(f"/v1/{path}").status_code == 403
    assert {"merge persons", "manage regions"} <= set(may)
