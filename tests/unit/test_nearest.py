"""What strangers reach by chance: told from a bounded sample, and not moved by those who are enrolled twice."""

from __future__ import annotations

import numpy as np
import pytest

from faceward.evaluation.nearest import NOBODY, Strangers


def tile(rng: np.random.Generator, mean: float = 0.01, sd: float = 0.1) -> np.ndarray:
    return rng.normal(mean, sd, (32, 32)).astype(np.float32)


def test_the_nearest_of_so_many_strangers() -> None:
    """Of 20,000 numbers of a normal distribution one is 3.89 deviations out."""
    rng, strangers = np.random.default_rng(1), Strangers()
    for _ in range(100):
        strangers.add(tile(rng), 100)
    assert strangers.pairs == 10_000
    assert strangers.reach() == pytest.approx(0.01 + 3.8906 * 0.1, abs=0.005)
    drawn = rng.normal(0.01, 0.1, (2000, 10_000)).max(axis=1)
    assert 0.35 < (drawn > strangers.reach()).mean() < 0.55


def test_a_few_who_are_alike_do_not_move_it() -> None:
    rng, strangers, others = np.random.default_rng(2), Strangers(), Strangers()
    for _ in range(100):
        scores = tile(rng)
        strangers.add(scores, 100)
        scores = scores.copy()
        scores[0, :8] = 0.9  # nearly one in a hundred
        scores[1] = NOBODY  # of one person
        others.add(scores, 100)
    assert others.reach() == pytest.approx(strangers.reach(), abs=0.01)


def test_of_few_pairs_nothing_is_known() -> None:
    strangers = Strangers()
    assert strangers.reach() == NOBODY
    strangers.add(np.zeros((10, 10), dtype=np.float32), 100)
    assert strangers.reach() == NOBODY


def test_the_sample_is_bounded_and_of_the_whole_gallery() -> None:
    """The later half of the tiles is wider spread: a sample of the first ones alone would not tell."""
    rng, strangers = np.random.default_rng(3), Strangers()
    for number in range(4000):
        strangers.add(tile(rng, sd=0.05 if number < 2000 else 0.15), 1000)
    assert sum(map(len, strangers._sample)) <= 512 * 1024
    assert strangers.reach() > 0.01 + 4.9 * 0.075
