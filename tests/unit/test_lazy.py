"""Packages that import their names on first use offer all of them, and nothing else."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import faceward.vision

PACKAGES = ("faceward", "faceward.factory", "faceward.service", "faceward.vision")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_name_is_there(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__all__
    for offered in package.__all__:
        assert getattr(package, offered) is not None
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match=f"{name}.*nothing_such"):
        _ = package.nothing_such


def test_the_names_that_others_rely_on() -> None:
    relied_on = {"FaceAnalyzer", "PackStore", "ImageLimits", "DecodedImage", "fetch_sample_photos"}
    assert relied_on <= set(faceward.vision.__all__)


def test_what_needs_no_model_imports_no_runtime() -> None:
    code = (
        "import sys; from faceward.factory import open_records; "
        "print({'openvino', 'onnxruntime', 'faiss'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
