from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from tiny_onnx import write_mean_model

from faceward.errors import PackDamagedError
from faceward.vision.alignment import ARCFACE_TEMPLATE
from faceward.vision.embedding import EmbeddingConvention, FaceEmbedder
from faceward.vision.model_packs import ModelPack
from faceward.vision.runtimes import available_runtimes, open_session
from faceward.vision.tensors import InputConvention

TEMPLATE = tuple((x / 14, y / 14) for x, y in ARCFACE_TEMPLATE)


def mean_embedder(
    tmp_path: Path,
    batch: int | None,
    layout: Literal["nchw", "nhwc"],
    runtime: str,
    mean: float = 0.0,
    dimension: int = 3,
) -> FaceEmbedder:
    """An embedding of three numbers: the mean of each colour."""
    picture, axes = ((3, 8, 8), (2, 3)) if layout == "nchw" else ((8, 8, 3), (1, 2))
    path = write_mean_model(tmp_path / "mean.onnx", (batch, *picture), axes, (batch, 3))
    convention = EmbeddingConvention(InputConvention(8, 8, "rgb", mean, 255.0, layout), TEMPLATE, dimension)
    return FaceEmbedder(open_session(path, runtime=runtime), convention)


@pytest.mark.parametrize("runtime", available_runtimes())
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("batch", [1, None])
def test_embeddings_follow_the_convention(
    batch: int | None, layout: Literal["nchw", "nhwc"], runtime: str, tmp_path: Path
) -> None:
    embedder = mean_embedder(tmp_path, batch, layout, runtime)
    crops = [np.full((8, 8, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 102, 0), (51, 102, 204))]
    embeddings, norms = embedder.embed(crops)
    assert embeddings.dtype == np.float32
    expected = np.array([[0, 0, 1.0], [0, 0.4, 0], [0.8, 0.4, 0.2]])  # blue comes last: the model wants RGB
    lengths = np.linalg.norm(expected, axis=1)
    assert np.allclose(norms, lengths, atol=1e-3)
    assert np.allclose(embeddings, expected / lengths[:, np.newaxis], atol=1e-3)
    assert np.allclose(embedder.embed_one(crops[1]), [0, 1, 0], atol=1e-3)
    assert embedder.embed([])[0].shape == (0, 3)


def test_an_embedding_without_direction_is_refused(tmp_path: Path) -> None:
    embedder = mean_embedder(tmp_path, 1, "nchw", "auto")
    with pytest.raises(PackDamagedError, match="no direction"):
        embedder.embed([np.zeros((8, 8, 3), np.uint8)])


@pytest.mark.parametrize("dimension", [2, 4, 512])
def test_a_model_of_another_dimension_is_refused(dimension: int, tmp_path: Path) -> None:
    with pytest.raises(PackDamagedError, match=f"{dimension} numbers"):
        mean_embedder(tmp_path, 1, "nchw", "auto", dimension=dimension)


def test_a_model_of_another_input_is_refused(pack: ModelPack) -> None:
    with pytest.raises(PackDamagedError, match=r"takes \(1, 1, 64, 64\)"):
        FaceEmbedder(open_session(pack.landmarks), pack.embedding)


def test_the_default_model_gives_unit_embeddings_batch_or_not(pack: ModelPack) -> None:
    embedder = FaceEmbedder(open_session(pack.embedder), pack.embedding)
    crops: list[Any] = list(np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8))
    embeddings, norms = embedder.embed(crops)
    assert embeddings.shape == (3, 512)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    assert min(norms) > 0
    for crop, embedding in zip(crops, embeddings, strict=True):
        assert np.allclose(embedder.embed_one(crop), embedding, atol=1e-6)
