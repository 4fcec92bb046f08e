from __future__ import annotations

import types

import faceward.vision


def test_all_names_what_is_imported_and_nothing_else() -> None:
    imported = {
        name
        for name, value in vars(faceward.vision).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "annotations"
    }
    assert set(faceward.vision.__all__) == imported
    assert len(faceward.vision.__all__) == len(imported)


def test_the_names_that_others_rely_on() -> None:
    relied_on = {"FaceAnalyzer", "PackStore", "ImageLimits", "DecodedImage", "fetch_sample_photos"}
    assert relied_on <= set(faceward.vision.__all__)
