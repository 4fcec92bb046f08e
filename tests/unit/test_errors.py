"""The error tree is as errors.py draws it, and each error can be told apart by a machine and by a reader."""

from __future__ import annotations

import inspect
import re

import pytest

from faceward import errors
from faceward.errors import FacewardError

TREE = [FacewardError]
for parent in TREE:
    TREE.extend(child for child in parent.__subclasses__() if child.__module__ == errors.__name__)


def drawn() -> list[tuple[str, str | None]]:
    """(class, parent) as the drawing at the top of errors.py has them."""
    path: list[str] = []
    pairs: list[tuple[str, str | None]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([│├└─ ]*)(\w+Error)\b", line)
        if not found:
            continue
        depth = len(found[1]) // 4
        path[depth:] = [found[2]]
        pairs.append((found[2], path[depth - 1] if depth else None))
    return pairs


def test_the_drawing_is_the_tree() -> None:
    assert sorted(drawn()) == sorted(
        (kind.__name__, None if kind is FacewardError else kind.__mro__[1].__name__) for kind in TREE
    )


def test_every_error_of_the_module_is_in_the_tree() -> None:
    classes = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)}
    assert classes == set(TREE)


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.__dict__.get("code") for kind in TREE]
    assert None not in codes
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z][a-z_]+", code) for code in codes)


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_says_in_a_sentence_what_it_is(kind: type[FacewardError]) -> None:
    own = kind.__dict__.get("__doc__")
    assert own
    assert own.strip().endswith(".")


def test_bad_values_and_missing_things_are_what_python_callers_expect() -> None:
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.NotFoundError, LookupError)


def test_an_invalid_value_is_named_but_never_in_full_length() -> None:
    short = errors.InvalidValueError("region", "A\x00", "a text without control characters")
    assert str(short) == "region = 'A\\x00' can't be used: it must be a text without control characters."
    assert short.field == "region"
    long = errors.InvalidValueError("name", "x" * 5000, "at most 255 characters long")
    assert len(str(long)) < 200
    assert "name = 'xxx" in str(long)
    assert "at most 255" in str(long)


def test_an_unknown_region_lists_those_that_exist() -> None:
    assert "A, B" in str(errors.UnknownRegionError("C", ["A", "B"]))
    assert "none yet" in str(errors.UnknownRegionError("C", []))
    assert errors.UnknownRegionError("C", ["A"]).known == ("A",)
    many = errors.UnknownRegionError("C", [f"R{number}" for number in range(10_000)])
    assert len(many.known) == 100
    assert str(many).endswith("R99, and more.")
    seen = many.among(["R9999", "R5000", "Z"])
    assert seen.known == ("R5000", "R9999")
    assert str(seen).endswith("R5000, R9999.")


def test_errors_carry_what_a_caller_acts_on() -> None:
    assert errors.UnknownPersonError(7).person_id == 7
    assert errors.SecretShownError(7).key_id == 7
    assert errors.DuplicateFaceError("taken", person_id=7).person_id == 7
    assert errors.SeveralFacesError("two", [(0, 1, 2, 3), (4, 5, 6, 7)]).boxes == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert errors.LowQualityError("poor", ["small"]).reasons == ("small",)
    assert errors.ConstraintViolatedError("no", "uq_face_photo").constraint == "uq_face_photo"
    too_large = errors.SketchTooLargeError(10, 1000, 100)
    assert (too_large.faces, too_large.needed, too_large.allowed) == (10, 1000, 100)
