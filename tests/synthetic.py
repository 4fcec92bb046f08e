"""Synthetic embeddings and faces, for tests that need people and no photos."""

from __future__ import annotations

import numpy as np

from faceward.types import Embedding, NewFace

MODEL = "model-of-the-tests"


def unit(seed: int) -> Embedding:
    """A unit embedding; two of different seeds are nearly orthogonal, as those of two persons are."""
    vector = np.random.default_rng(seed).standard_normal(512)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def new_face(seed: int, photo: str | None = None) -> NewFace:
    """photo: stands for the photo's file; the same photo can't be stored twice in a region."""
    return NewFace(embedding=unit(seed), image_sha256=None if photo is None else photo.encode().ljust(32))
