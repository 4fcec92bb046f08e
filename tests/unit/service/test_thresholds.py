"""The threshold of the request outranks the region's, that the client's, and that the model pack's."""

from __future__ import annotations

import pytest

from faceward.errors import InvalidValueError
from faceward.service.thresholds import Thresholds
from faceward.store.clients import ClientStore
from faceward.store.database import Database
from faceward.store.regions import RegionStore
from faceward.types import Threshold


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def regions(database: Database) -> RegionStore:
    regions = RegionStore(database)
    regions.create("acme", "A", 0.35)
    regions.create("acme", "B")
    regions.create("globex", "B", 0.7)
    return regions


def test_the_nearest_to_the_request_decides(database: Database, regions: RegionStore) -> None:
    thresholds = Thresholds(regions, 0.5, seconds=0)
    pack = Threshold(0.5, "pack")
    assert thresholds.of_regions("acme", ["A", "B", "nowhere"], None) == {
        "A": Threshold(0.35, "region"),
        "B": pack,
        "nowhere": pack,
    }
    assert thresholds.of_client("acme", None) == pack
    ClientStore(database).update("acme", threshold=0.45)
    own = Threshold(0.45, "client")
    assert thresholds.of_regions("acme", ["A", "B"], None) == {"A": Threshold(0.35, "region"), "B": own}
    assert thresholds.of_client("acme", None) == own
    given = Threshold(0.0, "request")
    assert thresholds.of_regions("acme", ["A", "B"], 0) == {"A": given, "B": given}
    assert thresholds.of_client("acme", 0) == given
    assert thresholds.of_regions("nobody", ["A"], None) == {"A": pack}


@pytest.mark.parametrize("wrong", [1.01, float("nan"), "0.5", True])
def test_a_request_cannot_ask_for_what_is_no_similarity(regions: RegionStore, wrong: object) -> None:
    with pytest.raises(InvalidValueError, match="threshold = "):
        Thresholds(regions, 0.5).of_regions("acme", ["A"], wrong)
    with pytest.raises(InvalidValueError, match="threshold = "):
        Thresholds(regions, 0.5).of_client("acme", wrong)


def test_what_a_client_set_is_believed_for_some_seconds(regions: RegionStore) -> None:
    clock = Clock()
    thresholds = Thresholds(regions, 0.5, seconds=2, clock=clock)

    def of_a() -> float:
        return thresholds.of_regions("acme", ["A"], None)["A"].value

    assert of_a() == 0.35
    regions.update("acme", "A", threshold=0.6)
    clock.now = 1.9
    assert of_a() == 0.35
    clock.now = 2
    assert of_a() == 0.6
    regions.update("acme", "A", threshold=None)
    thresholds.forget("globex")
    assert of_a() == 0.6
    thresholds.forget("acme")
    assert of_a() == 0.5


def test_what_a_search_has_read_outranks_what_is_remembered(regions: RegionStore) -> None:
    thresholds = Thresholds(regions, 0.5, clock=Clock())
    remembered = thresholds.of_regions("acme", ["A", "B"], None)
    assert thresholds.corrected("acme", remembered, None, {"A": 0.35, "B": None}) == remembered
    regions.update("acme", "B", threshold=0.7)
    assert thresholds.corrected("acme", remembered, None, {"A": 0.35}) == remembered, "nobody of B was found"
    told = thresholds.corrected("acme", remembered, None, {"A": None})
    assert told == {"A": Threshold(0.5, "pack"), "B": Threshold(0.7, "region")}, "then all is asked for anew"
    given = thresholds.of_regions("acme", ["A"], 0.2)
    assert thresholds.corrected("acme", given, 0.2, {"A": 0.35}) == given
