"""No search is behind the database, whatever other processes do: benchmarks/freshness.py, for some seconds.

That its check can fail is tested here too, on journals written by hand.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_processes_that_write_search_and_are_killed(database_url: str, tmp_path: Path) -> None:
    figures_path = tmp_path / "figures.json"
    arguments = ["--seconds", "7", "--processes", "3", "--kill-every", "1.5", "--url", database_url]
    ended = subprocess.run(
        [sys.executable, str(BENCHMARKS / "freshness.py"), *arguments, "--json", str(figures_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    figures = json.loads(figures_path.read_text())
    assert figures["violations"] == 0
    assert figures["processes killed"] > 0
    assert figures["calls: move"] > 0
    assert figures["calls: delete"] > 0


@pytest.fixture
def freshness(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import freshness

    return freshness


def enroll(at: int, name: str, region: str) -> dict[str, Any]:
    return {"at": at, "call": "enroll", "names": [name], "region": region}


def move(at: int, name: str, region: str) -> dict[str, Any]:
    return {"at": at, "call": "move", "names": [name], "region": region}


def delete(at: int, name: str) -> dict[str, Any]:
    return {"at": at, "call": "delete", "names": [name], "region": None}


def search(at: int, probe: str, *regions: str) -> dict[str, Any]:
    return {"at": at, "call": "search", "regions": regions, "probe": probe}


def returned(at: int, *found: tuple[str, str, float]) -> dict[str, Any]:
    return {"at": at, "found": found, "fresh": 0}


def done(at: int) -> dict[str, Any]:
    return {"at": at}


def wrong(freshness: ModuleType, *journals: Iterable[dict[str, Any]]) -> list[str]:
    history = freshness.History()
    for journal in journals:
        history.add(json.dumps(entry) + "\n" for entry in journal)
    return list(freshness.violations(history))


class TestCheck:
    """One process changes ann; another searches for her."""

    @pytest.mark.parametrize(
        ("changes", "begun", "ended", "found", "complaint"),
        [
            pytest.param([enroll(1, "ann", "a"), done(2)], 3, 4, "a", None, id="found"),
            pytest.param([enroll(1, "ann", "a"), done(2)], 3, 4, None, "missed ann", id="missed"),
            pytest.param([enroll(1, "ann", "b"), done(2)], 3, 4, None, None, id="another region"),
            pytest.param([enroll(1, "ann", "a"), done(4)], 3, 5, None, None, id="enrolled meanwhile, not found"),
            pytest.param([enroll(1, "ann", "a"), done(4)], 3, 5, "a", None, id="enrolled meanwhile, found"),
            pytest.param([enroll(6, "ann", "a"), done(7)], 3, 5, "a", "returned ann in a", id="found before she came"),
            pytest.param(
                [enroll(1, "ann", "a"), done(2), delete(3, "ann"), done(4)], 5, 6, "a", "returned ann", id="deleted"
            ),
            pytest.param(
                [enroll(1, "ann", "a"), done(2), delete(3, "ann"), done(4)], 5, 6, None, None, id="deleted, not found"
            ),
            pytest.param(
                [enroll(1, "ann", "a"), done(2), delete(4, "ann"), done(7)], 3, 6, None, None, id="deleted meanwhile"
            ),
            pytest.param(
                [enroll(1, "ann", "a"), done(2), delete(7, "ann"), done(8)], 3, 6, None, "missed", id="deleted later"
            ),
            pytest.param([enroll(1, "ann", "a"), done(2), delete(3, "ann")], 5, 6, None, None, id="killed deleting"),
            pytest.param([enroll(1, "ann", "a"), done(2), delete(3, "ann")], 5, 6, "a", None, id="killed before it"),
            pytest.param([enroll(1, "ann", "a")], 5, 6, "a", None, id="killed enrolling, there"),
            pytest.param([enroll(1, "ann", "a")], 5, 6, None, None, id="killed enrolling, not there"),
            pytest.param(
                [enroll(1, "ann", "b"), done(2), move(3, "ann", "a"), done(4)], 5, 6, "a", None, id="moved here"
            ),
            pytest.param(
                [enroll(1, "ann", "b"), done(2), move(3, "ann", "a"), done(4)], 5, 6, None, "missed", id="move missed"
            ),
            pytest.param(
                [enroll(1, "ann", "a"), done(2), move(3, "ann", "b"), done(4)], 5, 6, "a", "returned", id="moved away"
            ),
        ],
    )
    def test_one_region(
        self,
        freshness: ModuleType,
        changes: list[dict[str, Any]],
        begun: int,
        ended: int,
        found: str | None,
        complaint: str | None,
    ) -> None:
        answer = [("ann", found, 1.0)] if found else []
        told = wrong(freshness, changes, [search(begun, "ann", "a"), returned(ended, *answer)])
        assert bool(told) == bool(complaint), told
        if complaint:
            assert complaint in told[0]

    def test_moved_between_two_regions_that_are_both_searched(self, freshness: ModuleType) -> None:
        """One statement sees her in one of them, at every moment of the move."""
        changes = [enroll(1, "ann", "a"), done(2), move(4, "ann", "b"), done(6)]
        assert not wrong(freshness, changes, [search(3, "ann", "a", "b"), returned(5, ("ann", "b", 1.0))])
        assert wrong(freshness, changes, [search(3, "ann", "a", "b"), returned(5)])

    def test_another_photo_is_not_her(self, freshness: ModuleType) -> None:
        changes = [enroll(1, "ann", "a"), done(2)]
        assert wrong(freshness, changes, [search(3, "ann", "a"), returned(4, ("ann", "a", 0.9))])

    def test_a_half_written_line_and_a_search_without_an_end_prove_nothing(self, freshness: ModuleType) -> None:
        history = freshness.History()
        history.add([json.dumps(enroll(1, "ann", "a")) + "\n", '{"at": 2'])
        history.add([json.dumps(search(3, "ann", "a")) + "\n"])
        assert history.interrupted == 2
        assert not list(freshness.violations(history))
