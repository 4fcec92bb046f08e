"""What a photo's path says about whose it is, or why it can't be used."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from faceward.checks import check_name, check_region
from faceward.jobs.photo_paths import PathError, is_clutter, photo_path, shown

parts = st.text(max_size=60) | st.sampled_from(["..", ".", "", "A", "ada", "1.jpg", "C:", "\\", "~"])
paths = st.lists(parts, max_size=5).map("/".join) | st.text(max_size=100)


@given(paths)
def test_a_path_is_a_region_a_person_and_a_photo_or_is_refused(path: str) -> None:
    is_clutter(path)
    try:
        found = photo_path(path)
    except PathError:
        return
    assert check_region(found.region) == found.region
    assert check_name(found.name) == found.name
    for part in (found.region, found.external_id, found.file):
        assert part not in ("", ".", "..")
        assert "/" not in part


@given(st.text(max_size=2000))
def test_a_path_is_shown_as_one_line_that_a_database_takes(path: str) -> None:
    text = shown(path)
    assert len(text) <= 500
    assert "\0" not in text
    assert len(text.encode("utf-8").splitlines()) <= 1
