"""A match, an ambiguity between two persons, or nobody known: decided by thresholds and the margin alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceward.service.decisions import decide
from faceward.types import Box, Candidate, Face, FaceMatch, Quality, Threshold
from synthetic import unit

FACE = Face(Box(0, 0, 1, 1), np.zeros((5, 2), dtype=np.float32), 1.0, Quality(1.0), unit(1))
LIMITS = {"A": Threshold(0.4, "region"), "B": Threshold(0.6, "pack")}


def near(number: int, similarity: float, region: str = "A", external_id: str | None = None) -> Candidate:
    return Candidate(number, number, f"person {number}", region, similarity, external_id)


def decided(*candidates: Candidate, margin: float = 0.02, top_k: int = 5) -> FaceMatch:
    ordered = sorted(candidates, key=lambda each: -each.similarity)
    return decide(FACE, ordered, LIMITS, margin=margin, top_k=top_k)


def test_the_nearest_at_the_threshold_is_the_match() -> None:
    found = decided(near(1, 0.4), near(2, 0.2))
    assert (found.decision, found.match, found.rival) == ("match", near(1, 0.4), None)
    assert found.threshold == LIMITS["A"]
    assert found.reason == "person 1 (person 1) is at 0.400, at or above the threshold 0.4 of the region."


def test_nobody_at_the_threshold_is_unknown() -> None:
    found = decided(near(1, 0.39), near(2, 0.385))
    assert (found.decision, found.match, found.rival) == ("unknown", None, None)
    assert [each.person_id for each in found.candidates] == [1, 2]
    assert found.reason == "person 1 (person 1) is at 0.390, below the threshold 0.4 of the region."


def test_a_region_without_people_has_nobody_to_compare_with() -> None:
    found = decided()
    assert (found.decision, found.match, found.candidates, found.threshold) == ("unknown", None, (), LIMITS["A"])
    assert "nobody to compare with" in found.reason


def test_a_second_person_within_the_margin_makes_it_ambiguous_and_both_are_named() -> None:
    found = decided(near(1, 0.51), near(2, 0.495), top_k=1)
    assert (found.decision, found.match, found.rival) == ("ambiguous", near(1, 0.51), near(2, 0.495))
    assert "person 1 (person 1) is at 0.510, and person 2 (person 2) is at 0.495" in found.reason
    assert found.candidates == (near(1, 0.51),)
    assert decided(near(1, 0.51), near(2, 0.48)).decision == "match"


def test_a_second_person_below_the_threshold_counts_too() -> None:
    assert decided(near(1, 0.41), near(2, 0.395)).decision == "ambiguous"


def test_the_margin_can_be_turned_off() -> None:
    assert decided(near(1, 0.51), near(2, 0.51), margin=0).decision == "match"


def test_one_external_id_in_two_regions_is_one_person() -> None:
    both = near(1, 0.7, "A", "E-1"), near(2, 0.695, "B", "E-1")
    assert decided(*both).decision == "match"
    assert decided(*both, near(3, 0.69)).rival == near(3, 0.69)
    assert decided(near(1, 0.7, "A", "E-1"), near(2, 0.695, "B", "E-2")).decision == "ambiguous"


def test_each_region_has_its_own_threshold() -> None:
    found = decided(near(1, 0.55, "B"), near(2, 0.45, "A"))
    assert (found.match, found.threshold) == (near(2, 0.45, "A"), LIMITS["A"])
    assert (found.decision, found.rival) == ("ambiguous", near(1, 0.55, "B")), "somebody who may not match is nearer"
    assert "is at 0.550: nearer, but below its own threshold" in found.reason
    assert decided(near(1, 0.59, "B")).threshold == LIMITS["B"]


candidates = st.lists(
    st.builds(
        near,
        st.integers(1, 5),
        st.floats(-1, 1),
        st.sampled_from(["A", "B"]),
        st.none() | st.sampled_from(["x", "y"]),
    ),
    max_size=6,
    unique_by=lambda each: each.person_id,
)


@pytest.mark.parametrize("top_k", [1, 3])
@given(given=candidates, margin=st.floats(0, 1))
def test_what_always_holds(given: list[Candidate], margin: float, top_k: int) -> None:
    found = decided(*given, margin=margin, top_k=top_k)
    able = [each for each in given if each.similarity >= LIMITS[each.region].value]
    assert (found.match is None) is (found.decision == "unknown") is (not able)
    assert (found.rival is not None) is (found.decision == "ambiguous")
    if found.match is not None:
        assert found.match.similarity == max(each.similarity for each in able)
        assert found.threshold == LIMITS[found.match.region]
    if found.rival is not None:
        assert found.match is not None
        assert margin > found.match.similarity - found.rival.similarity
    assert len(found.candidates) == min(top_k, len(given))
