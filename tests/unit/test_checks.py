"""What comes in from outside: each bad value is refused by name, each good one comes back as the layers below take it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from faceward.checks import (
    check_client_id,
    check_count,
    check_external_id,
    check_id,
    check_name,
    check_new_client_id,
    check_optional_text,
    check_region,
    check_text,
    check_threshold,
    unit_embedding,
)
from faceward.errors import InvalidEmbeddingError, InvalidValueError


@pytest.mark.parametrize("value", ["A", "Zürich", "東京", "a b", "x" * 50, "😀", "O'Neil; DROP TABLE persons", "100%"])
def test_a_text_within_its_limits_comes_back_as_it_is(value: str) -> None:
    assert check_region(value) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "a text"),
        (7, "a text"),
        (b"A", "a text"),
        (["A"], "a text"),
        ("", "not empty"),
        ("   ", "not empty"),
        ("\t", "not empty"),
        (" A", "white space at its ends"),
        ("A\n", "white space at its ends"),
        ("A\x00B", "control characters"),
        ("A\nB", "control characters"),
        ("A\x7fB", "control characters"),
        ("A\x85B", "control characters"),
        ("A\ud800B", "a text in UTF-8"),
        ("Ren\udce9", "a text in UTF-8"),  # a byte of another encoding, as Python hands it on
        ("x" * 51, "at most 50 characters"),
    ],
)
def test_a_bad_region_is_refused_by_name(value: object, expected: str) -> None:
    with pytest.raises(InvalidValueError, match=expected) as caught:
        check_region(value)
    assert caught.value.field == "region"
    assert repr(value)[:60].replace("\\", "\\\\") in str(caught.value).replace("\\", "\\\\")


NFD = "Zu\u0308rich"


def test_names_that_look_the_same_are_the_same() -> None:
    assert check_region(NFD) == check_external_id(NFD) == "Zürich"
    assert check_region("u\u0308" * 50) == "ü" * 50
    assert check_name(NFD) == NFD  # what people are called is theirs


@pytest.mark.parametrize(
    "value", ["Zürich\u200b", "Z\u2060ürich", "\u202eA", "\ufeffA", "A\u00adB", "A\u200dB", "A\u200c"]
)
def test_invisible_characters_make_no_name(value: str) -> None:
    for check in (check_region, check_external_id, check_new_client_id):
        with pytest.raises(InvalidValueError, match="without invisible characters"):
            check(value)
    assert check_name(value) == value
    assert check_client_id(value) == value  # one that is there is reached


@pytest.mark.parametrize("value", ["می\u200cخواهم", "क्\u200dष", "ශ්\u200dරී"])
def test_joiners_that_shape_letters_are_no_invisible_characters(value: str) -> None:
    assert check_region(value) == value


@pytest.mark.parametrize("value", [".", ".."])
def test_what_is_a_step_of_a_path_is_no_name(value: str) -> None:
    for check in (check_region, check_new_client_id):
        with pytest.raises(InvalidValueError, match="path"):
            check(value)
    assert check_external_id(value) == value
    assert check_region("...") == "..."


def test_no_client_is_made_that_looks_like_another() -> None:
    assert check_new_client_id("Zürich") == "Zürich"
    with pytest.raises(InvalidValueError, match=r"NFC: 'Z\\xfcrich'"):
        check_new_client_id(NFD)


def test_lengths_are_those_of_the_columns() -> None:
    assert len(check_name("x" * 255)) == 255
    assert len(check_client_id("x" * 100)) == 100
    with pytest.raises(InvalidValueError, match=r"name = .* at most 255"):
        check_name("x" * 256)
    with pytest.raises(InvalidValueError, match=r"client_id = .* at most 100"):
        check_client_id("x" * 101)


def test_no_client_means_the_default_tenant_but_an_empty_one_is_an_error() -> None:
    assert check_client_id(None) == "default"
    with pytest.raises(InvalidValueError):
        check_client_id("")


@given(st.text(max_size=60))
def test_a_text_passes_unchanged_or_not_at_all(value: str) -> None:
    try:
        assert check_text("field", value, 50) == value
    except InvalidValueError:
        return
    assert 1 <= len(value) <= 50
    assert value == value.strip()
    assert "\x00" not in value
    value.encode()  # no lone surrogate reaches the database


def test_an_optional_text_may_be_absent() -> None:
    assert check_optional_text("external_id", None, 5) is None
    assert check_optional_text("external_id", "a-1", 5) == "a-1"
    with pytest.raises(InvalidValueError):
        check_optional_text("external_id", "", 5)


@pytest.mark.parametrize("value", [-1, 1, 0, 0.35, -1.0, 1.0, np.float32(0.5), np.int64(1)])
def test_a_threshold_is_a_similarity(value: float) -> None:
    assert check_threshold(value) == pytest.approx(float(value))


@pytest.mark.parametrize("value", [1.0001, -1.1, 35, math.nan, math.inf, -math.inf, True, "0.35", None, [0.3], 1j])
def test_a_threshold_outside_its_range_is_refused(value: object) -> None:
    with pytest.raises(InvalidValueError, match=r"threshold = .*from -1 to 1"):
        check_threshold(value)


@pytest.mark.parametrize("value", [0, -1, 101, True, 1.0, "1", None])
def test_a_count_outside_its_range_is_refused(value: object) -> None:
    with pytest.raises(InvalidValueError, match=r"limit = .*from 1 to 100"):
        check_count("limit", value, 100)


def test_ids_are_those_that_a_bigint_holds() -> None:
    assert check_id("person_id", 2**63 - 1) == 2**63 - 1
    for value in (0, -1, 2**63):
        with pytest.raises(InvalidValueError, match="person_id"):
            check_id("person_id", value)


FINITE = hnp.arrays(np.float64, 8, elements=st.floats(allow_nan=False, allow_infinity=False))


@given(FINITE)
def test_an_embedding_keeps_its_direction_and_gets_unit_length(value: np.ndarray) -> None:
    if not value.any():
        with pytest.raises(InvalidEmbeddingError, match="all zeros"):
            unit_embedding(value, 8)
        return
    unit = unit_embedding(value, 8)
    assert unit.dtype == np.float32
    assert unit.shape == (8,)
    assert float(np.linalg.norm(unit.astype(np.float64))) == pytest.approx(1.0, abs=1e-6)
    scaled = value / np.abs(value).max()
    assert float(unit.astype(np.float64) @ scaled) == pytest.approx(float(np.linalg.norm(scaled)), rel=1e-5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.ones(511), r"512 numbers.*\(511,\)"),
        (np.ones((1, 512)), r"\(1, 512\)"),
        (np.ones(0), r"\(0,\)"),
        (1.0, r"\(\)"),
        (None, "other values"),
        (["0.5"] * 512, "other values"),
        ([True] * 512, "other values"),
        (np.r_[np.ones(511), np.nan], "NaN or infinity"),
        (np.r_[np.ones(511), np.inf], "NaN or infinity"),
        (np.zeros(512), "all zeros"),
        (["x"] * 512, "other values"),
        ([[1.0], [1.0, 2.0]], "other values"),
        (np.ones(512) * 1j, "other values"),
        ({"a": 1}, "other values"),
    ],
)
def test_a_bad_embedding_is_refused_without_its_numbers(value: object, expected: str) -> None:
    with pytest.raises(InvalidEmbeddingError, match=expected):
        unit_embedding(value, 512)


def test_an_embedding_too_small_for_float32_squares_is_still_a_direction() -> None:
    unit = unit_embedding(np.full(512, 1e-300), 512)
    assert np.allclose(unit, 1 / math.sqrt(512))
