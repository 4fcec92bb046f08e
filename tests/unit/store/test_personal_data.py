"""What is told of a person depends on the regions of whoever reads, and says so."""

from __future__ import annotations

import datetime as dt
import io
import json
import zipfile

from faceward.service.exporting import write_export
from faceward.store.database import Database
from faceward.store.decision_log import Compared, DecisionStore, NewDecision
from faceward.store.gallery import Gallery
from faceward.store.personal_data import PersonalDataStore

CLIENT = "acme"


def test_whose_regions_are_limited_is_told_nothing_of_the_person_s_time_in_others(
    database: Database, gallery: Gallery
) -> None:
    """As the audit log and the decisions, which such a key does not read, have it."""
    person, _ = gallery.create_person(CLIENT, "B", "Anna", [])
    gallery.update_person(CLIENT, person.id, name="Ann")
    for region in ("A", "C", "A"):
        gallery.move_person(CLIENT, person.id, region)
    now, seen = dt.datetime.now(dt.UTC), (Compared(person.id, 1, 0.9),)
    DecisionStore(database).write(
        CLIENT,
        [
            NewDecision(CLIENT, now, "key:door", "recognize", regions, 0.4, "pack", "match", seen)
            for regions in (("A",), ("B",), ("A", "B"), ("C", "A"))
        ],
    )

    def told(*regions: str) -> tuple[object, list[str], list[list[str]]]:
        file = io.BytesIO()
        with PersonalDataStore(database).open(CLIENT, person.id, regions=regions or None) as held:
            write_export(held, file)
        with zipfile.ZipFile(file) as archive:
            record, audit, decisions = (
                json.loads(archive.read(f"{name}.json")) for name in ("person", "audit", "decisions")
            )
        actions = [each["action"] for each in audit if each["action"] != "person.export"]
        return record.get("limited_to_regions"), actions, [each["regions"] for each in decisions]

    assert told("A") == (["A"], ["person.change"], [["A"]])
    moves = ["person.move"] * 2
    assert told("C", "A") == (["C", "A"], ["person.change", *moves], [["A"], ["C", "A"]])
    everything = ["person.enroll", "person.change", "person.move", *moves]
    assert told() == (None, everything, [["A"], ["B"], ["A", "B"], ["C", "A"]])
