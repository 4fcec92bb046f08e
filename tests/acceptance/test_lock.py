"""The locked versions fit pyproject.toml, on every platform and Python that it names."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

CHECKOUT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64", "arm64")


def locked(name: str) -> dict[str, list[tuple[str, Marker | None]]]:
    """For each package of a lock file its versions, each with the marker that says where it holds."""
    entries: dict[str, list[tuple[str, Marker | None]]] = {}
    text = (CHECKOUT / "requirements" / name).read_text()
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement = Requirement(line.partition(" --hash")[0])
            version = str(requirement.specifier).removeprefix("==")
            entries.setdefault(requirement.name, []).append((version, requirement.marker))
    return entries


def environment(python: str, machine: str) -> dict[str, str]:
    return {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": machine, "extra": ""}


def wanted(*, extras: bool) -> list[Requirement]:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    if extras:
        lines += [line for group in project["optional-dependencies"].values() for line in group]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize(("name", "extras"), [("runtime.txt", False), ("dev.txt", True)])
def test_every_dependency_is_locked_to_one_version_that_fits(name: str, extras: bool) -> None:
    entries = locked(name)
    for python in PYTHONS:
        for machine in MACHINES:
            here = environment(python, machine)
            for requirement in wanted(extras=extras):
                if requirement.marker is None or requirement.marker.evaluate(here):
                    versions = [
                        version
                        for version, marker in entries.get(requirement.name, [])
                        if marker is None or marker.evaluate(here)
                    ]
                    assert len(versions) == 1, f"{requirement} on {python}, {machine}: {versions}; run make lock"
                    assert requirement.specifier.contains(versions[0]), f"{requirement}: {versions[0]}; run make lock"


def test_a_demo_and_a_test_run_the_same_versions() -> None:
    dev = locked("dev.txt")
    for package, entries in locked("runtime.txt").items():
        versions = {version for version, _ in dev[package]}
        assert {version for version, _ in entries} == versions, package


def test_each_machine_gets_the_runtime_that_has_wheels_for_it() -> None:
    entries = locked("runtime.txt")
    for machine, runtime in (("x86_64", "openvino"), ("aarch64", "onnxruntime")):
        here = environment("3.12", machine)
        found = [
            package
            for package in ("openvino", "onnxruntime")
            for _, marker in entries[package]
            if marker is None or marker.evaluate(here)
        ]
        assert found == [runtime]


@pytest.mark.parametrize("name", ["runtime.txt", "dev.txt"])
def test_every_entry_has_hashes_and_no_address(name: str) -> None:
    text = (CHECKOUT / "requirements" / name).read_text()
    assert "://" not in text
    for entry in re.split(r"\n(?=[a-z0-9])", text)[1:]:
        assert "--hash=sha256:" in entry, entry
