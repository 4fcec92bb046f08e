"""What is kept of a face's row."""

from __future__ import annotations

import base64

import pytest

from faceward.importers.join import stored_path
from faceward.importers.rows import FaceRow

BASE64 = base64.b64encode(bytes(range(256)) * 20).decode()


@pytest.mark.parametrize(
    ("path", "stored"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("x" * 400 + "/" + "y" * 200 + ".jpg", "y" * 200 + ".jpg"),
        ("", None),
        ("a\x00b", None),
        (b"a.jpg", None),
        (BASE64, None),
        ("data:image/png;base64,iVBORw0KGgo=", None),
        ("database/1.jpg", "database/1.jpg"),
    ],
)
def test_the_path_of_an_image_is_kept_where_it_is_one(path: object, stored: str | None) -> None:
    assert stored_path(FaceRow(1, "1", None, path, True)) == stored
