"""The noise model has the statistics of the real embeddings that its figures come from."""

from __future__ import annotations

import json

import numpy as np
import pytest

from faceward.evaluation.noise_model import SPECTRUM, NoiseModel

FIGURES = json.loads(SPECTRUM.read_text(encoding="utf-8"))


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", one, other)


def test_persons_are_as_far_apart_as_real_ones() -> None:
    model = NoiseModel.load()
    persons = model.persons(4000, np.random.default_rng(1))
    assert persons.dtype == np.float32
    assert persons.shape == (4000, 512)
    assert np.allclose(np.linalg.norm(persons, axis=1), 1, atol=1e-5)
    spread = (persons[:2000] @ persons[2000:].T).std()
    assert spread == pytest.approx(FIGURES["impostor"]["sd"], rel=0.1)


def test_two_photos_of_a_person_are_as_similar_as_real_ones() -> None:
    model = NoiseModel.load()
    persons = model.persons(5000, np.random.default_rng(1))
    one = model.photos(persons, np.random.default_rng(2))
    other = model.photos(persons, np.random.default_rng(3))
    assert cosines(one, persons).mean() == pytest.approx(FIGURES["photo_to_own_mean"]["mean"], abs=0.01)
    assert cosines(one, other).mean() == pytest.approx(FIGURES["genuine"]["mean"], abs=0.02)
    assert np.allclose(cosines(model.photos(persons, np.random.default_rng(4), 0.8), persons), 0.8, atol=1e-5)


@pytest.mark.parametrize("similarity", [-1.0, 0.0, 0.45, 1.0])
def test_near_hits_the_similarity_asked_for(similarity: float) -> None:
    model = NoiseModel.load()
    persons = model.persons(100, np.random.default_rng(1))
    near = model.near(persons, similarity, np.random.default_rng(2))
    assert np.allclose(cosines(near, persons), similarity, atol=1e-5)
    assert np.allclose(np.linalg.norm(near, axis=1), 1, atol=1e-5)
    each = np.linspace(0.2, 0.9, 100)
    assert np.allclose(cosines(model.near(persons, each, np.random.default_rng(2)), persons), each, atol=1e-5)


def test_the_same_seeds_give_the_same_faces_in_any_number() -> None:
    def photos(seed: int, count: int) -> np.ndarray:
        model = NoiseModel.load(seed)
        return model.photos(model.persons(count, np.random.default_rng(1)), np.random.default_rng(2))

    assert np.array_equal(photos(0, 300), photos(0, 300))
    assert np.allclose(photos(0, 300)[:100], photos(0, 100), atol=1e-6)
    assert not np.allclose(photos(0, 100), photos(1, 100), atol=0.01)
