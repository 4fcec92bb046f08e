"""Error rates are counted as ISO/IEC 19795-1 defines them, and their intervals hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceward.errors import InvalidEmbeddingError, InvalidValueError
from faceward.evaluation.error_rates import THRESHOLDS, error_rates
from faceward.evaluation.noise_model import NoiseModel


def at_angles(*degrees: float) -> list[np.ndarray]:
    return [np.array([np.cos(a), np.sin(a)], np.float32) for a in np.radians(degrees)]


def test_the_four_rates_of_a_case_that_can_be_counted_by_hand() -> None:
    # Ann at 0 and 30 degrees, Bob at 50 and 140. Cosines: Ann's own 0.87, Bob's own 0; across 0.64, -0.77, 0.94, -0.34.
    rates = error_rates(at_angles(0, 30, 50, 140), ["Ann", "Ann", "Bob", "Bob"])
    assert (rates.persons, rates.photos, rates.gallery) == (2, 4, 2)
    assert (rates.impostor_pairs, rates.genuine_pairs) == (4, 2)
    half = rates.at(0.5)
    assert (half.fmr.value, half.fnmr.value) == (2 / 4, 1 / 2)
    # Nobody but Bob's second photo would be a stranger without anybody at 0.5 or above.
    assert half.fpir.value == 3 / 4
    # Ann's second photo is nearer to Bob's first, and Bob's photos don't find him at all.
    assert half.fnir.value == 3 / 4
    assert rates.at(0.9).fmr.value == 1 / 4
    assert rates.at(0.95).fmr.value == 0


def test_a_threshold_is_reached_by_what_equals_it() -> None:
    rates = error_rates(at_angles(0, 0, 0), ["Ann", "Ann", "Bob"])
    assert rates.at(1.0).fmr.value == 1.0
    assert rates.at(1.0).fnmr.value == 0.0


@given(
    people=st.lists(st.integers(0, 4), min_size=6, max_size=30),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_rates_are_those_of_counting_pair_by_pair(people: list[int], seed: int) -> None:
    whose = np.array([*people, 0, 0, 1])
    rows = np.random.default_rng(seed).standard_normal((len(whose), 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rates = error_rates(list(rows), [str(each) for each in whose])
    similar, same = rows @ rows.T, whose[:, None] == whose[None, :]
    genuine = same & ~np.eye(len(whose), dtype=bool)
    for each in rates.rates[::10]:
        assert each.fmr.value == pytest.approx((similar[~same] >= each.threshold).mean())
        assert each.fnmr.value == pytest.approx((similar[genuine] < each.threshold).mean())
        strangers = np.where(same, -2, similar).max(axis=1)
        assert each.fpir.value == pytest.approx((strangers >= each.threshold).mean())
        for rate in (each.fmr, each.fnmr, each.fpir, each.fnir):
            assert 0 <= rate.low <= rate.high <= 1


def test_bounds_fall_and_rise_with_the_threshold() -> None:
    model, rng = NoiseModel.load(), np.random.default_rng(1)
    persons = np.repeat(model.persons(20, rng), 4, axis=0)
    rates = error_rates(list(model.photos(persons, rng)), [str(n // 4) for n in range(80)]).rates
    for name, sign in (("fmr", 1), ("fpir", 1), ("fnmr", -1), ("fnir", -1)):
        for end in ("value", "high"):
            values = [sign * getattr(getattr(each, name), end) for each in rates]
            assert values == sorted(values, reverse=True), name
    assert rates[-1].fmr.value == 0
    assert 0 < rates[-1].fmr.high <= 3 / 190, "no error among so few people is no proof that there is none"


def test_a_region_of_many_takes_more_strangers_for_somebody() -> None:
    model, rng = NoiseModel.load(), np.random.default_rng(2)
    persons = np.repeat(model.persons(60, rng), 2, axis=0)
    rates = error_rates(list(model.photos(persons, rng)), [str(n // 2) for n in range(120)])
    low = rates.at(0.2)
    assert low.fpir_among(1).value == pytest.approx(low.fmr.value)
    assert low.fmr.value < low.fpir_among(100).value < low.fpir_among(1_000).value <= 1
    threshold = rates.threshold_for(10, 0.1)
    assert threshold is not None
    assert rates.at(threshold).fpir_among(10).high <= 0.1 < rates.at(threshold - 0.01).fpir_among(10).high
    assert rates.threshold_for(1_000_000, 0.0001) is None, "60 people can't show it"


def test_what_can_t_be_compared_is_refused() -> None:
    ann, bob = at_angles(0, 50)
    with pytest.raises(InvalidValueError, match="two persons"):
        error_rates([ann, ann], ["Ann", "Ann"])
    with pytest.raises(InvalidValueError, match="two photos"):
        error_rates([ann, bob], ["Ann", "Bob"])
    with pytest.raises(InvalidValueError, match="photos with a face"):
        error_rates([], [])
    with pytest.raises(InvalidValueError, match="number of embeddings"):
        error_rates([ann, ann, bob], ["Ann", "Bob"])
    with pytest.raises(InvalidEmbeddingError):
        error_rates([ann, bob, np.ones(3, np.float32)], ["Ann", "Bob", "Bob"])


def test_progress_tells_how_many_photos_were_compared() -> None:
    told: list[int] = []
    error_rates(at_angles(0, 10, 90), ["Ann", "Ann", "Bob"], progress=told.append)
    assert told == [3]
    assert len(THRESHOLDS) == 101
