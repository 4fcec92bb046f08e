"""docs/privacy.md says what is: its settings, entries and metrics exist; its commands run in test_cli_photos.py."""

from __future__ import annotations

import re
from pathlib import Path

from faceward.api.metrics import Metrics
from faceward.settings import described
from faceward.store.audit_log import ACTIONS

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "privacy.md").read_text(encoding="utf-8")


def test_the_entries_are_those_that_are_written() -> None:
    table = TEXT.partition("\n| entries | of |\n")[2].partition("\n\n")[0]
    named: set[str] = set()
    for line in table.splitlines():
        last = ""
        for name in re.findall(r"`([a-z]*\.[a-z_]+)`", line.split("|")[1]):
            last = name.partition(".")[0] or last
            named.add(f"{last}.{name.partition('.')[2]}")
    assert named == set(ACTIONS)


def test_every_setting_and_metric_that_is_named_exists() -> None:
    names = {name for name, _, _ in described()}
    sections = {name.partition(".")[0] for name in names if "." in name}
    for name in re.findall(r"`([a-z]+\.[a-z_]+)`", TEXT):
        assert name.endswith(".json") or name.partition(".")[0] not in sections or name in names, name
    page = Metrics().page().decode()
    for name in re.findall(r"`(faceward_[a-z_]+)`", TEXT):
        assert name in page, name
