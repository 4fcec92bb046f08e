from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceward.errors import PackManifestError
from faceward.vision.alignment import ARCFACE_TEMPLATE
from faceward.vision.pack_manifest import MANIFEST_NAME, MAX_DIMENSION, read_manifest

MINIMAL: dict[str, Any] = {
    "name": "mine",
    "licence": {"name": "MIT", "allows": "anything"},
    "files": {"model.onnx": "0123456789abcdef" * 4},
    "embedding": {"file": "model.onnx", "dimension": 256, "colour": "rgb", "mean": 127.5, "scale": 127.5},
    "threshold": 0.4,
}


def write(directory: Path, manifest: object) -> Path:
    (directory / MANIFEST_NAME).write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    return directory


def changed(**changes: Any) -> dict[str, Any]:
    """MINIMAL with changes; embedding__dimension=3 changes a part of a part, None takes a key out."""
    manifest = json.loads(json.dumps(MINIMAL))
    for key, value in changes.items():
        *parts, last = key.split("__")
        target = manifest
        for part in parts:
            target = target[part]
        target[last] = value
        if value is None:
            del target[last]
    return manifest


def test_what_a_minimal_manifest_means(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, MINIMAL))
    assert manifest.model_id == "mine:0123456789ab"
    assert manifest.detector is None
    convention = manifest.embedding.convention
    assert convention.dimension == 256
    assert (convention.input.width, convention.input.height, convention.input.layout) == (112, 112, "nchw")
    assert convention.input.colour == "rgb"
    assert np.allclose(convention.template, ARCFACE_TEMPLATE)


def test_the_arcface_template_grows_with_the_input(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, changed(embedding__width=224, embedding__height=224)))
    assert np.allclose(manifest.embedding.convention.template, 2 * np.array(ARCFACE_TEMPLATE))


def test_a_template_of_its_own(tmp_path: Path) -> None:
    points = [[1.0, 2.0], [3.0, 2.0], [2.0, 3.0], [1.0, 4.0], [3.0, 4.0]]
    manifest = read_manifest(write(tmp_path, changed(embedding__template=points)))
    assert np.allclose(manifest.embedding.convention.template, points)


@pytest.mark.parametrize(
    ("manifest", "named"),
    [
        (changed(name=None), "name"),
        (changed(name="Two Words"), "name"),
        (changed(name="../up"), "name"),
        (changed(name="x\n"), "name"),
        (changed(licence=None), "licence"),
        (changed(licence__allows=""), "licence.allows"),
        (changed(licence__file="LICENSE"), "LICENSE is not among the files"),
        (changed(files={}), "files"),
        (changed(files={"../model.onnx": "0" * 64}), "files"),
        (changed(files={"model.onnx": "abc"}), "files.model.onnx"),
        (changed(embedding__file="other.onnx"), "other.onnx is not among the files"),
        (changed(detector="other.onnx"), "other.onnx is not among the files"),
        (changed(embedding__dimension=0), "embedding.dimension"),
        (changed(embedding__dimension=100), "embedding.dimension"),
        (changed(embedding__dimension=MAX_DIMENSION + 8), "embedding.dimension"),
        (changed(embedding__dimension=None), "embedding.dimension"),
        (changed(embedding__colour="grey"), "embedding.colour"),
        (changed(embedding__scale=0), "embedding.scale"),
        (changed(embedding__mean="NaN"), "embedding.mean"),
        (changed(embedding__template=[[1, 2]]), "embedding.template"),
        (changed(threshold=1.5), "threshold"),
        (changed(thershold=0.3), "thershold"),
        ([], "manifest"),
        ("{", "Invalid JSON"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, manifest: object, named: str) -> None:
    with pytest.raises(PackManifestError) as failure:
        read_manifest(write(tmp_path, manifest))
    assert named in str(failure.value)
    assert str(tmp_path / MANIFEST_NAME) in str(failure.value)


def test_everything_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(PackManifestError, match=r"name: .*; threshold: "):
        read_manifest(write(tmp_path, changed(name="", threshold=7)))


def test_a_directory_without_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(PackManifestError, match=r"there is no faceward-pack\.json"):
        read_manifest(tmp_path)


def test_a_manifest_that_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).mkdir()
    with pytest.raises(PackManifestError, match="can't be read"):
        read_manifest(tmp_path)


def test_a_manifest_without_end(tmp_path: Path) -> None:
    with pytest.raises(PackManifestError, match="too large for a manifest"):
        read_manifest(write(tmp_path, " " * 1_100_000))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(list(MINIMAL)), json_values),
    st.dictionaries(st.sampled_from(list(MINIMAL["embedding"])), json_values),
)
def test_any_json_gives_a_manifest_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, outer: dict[str, Any], inner: dict[str, Any]
) -> None:
    embedding = {**MINIMAL["embedding"], **inner}
    directory = write(tmp_path_factory.mktemp("pack"), {**MINIMAL, "embedding": embedding, **outer})
    try:
        manifest = read_manifest(directory)
    except PackManifestError:
        return
    assert manifest.embedding.file in manifest.files
    assert len(manifest.embedding.convention.template) == 5
