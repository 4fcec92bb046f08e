"""The reader of lines with embeddings: each line is a person or a refusal with its number."""

from __future__ import annotations

import io
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceward.errors import ImportSourceError
from faceward.jobs.embedding_lines import EmbeddingLine, EmbeddingLines, LineLimits
from faceward.types import JobRefusal

GOOD: dict[str, Any] = {"external_id": "e1", "region": "A", "name": "Ada", "embedding": [3, 0.0, 4e0]}
LIMITS = LineLimits(line_bytes=2000, lines=20)


def read(content: bytes, start: int = 0) -> list[EmbeddingLine | JobRefusal]:
    lines = EmbeddingLines(io.BytesIO(content), 3, LIMITS)
    count = lines.count()
    items = list(lines.items(start))
    assert [item.position for item in items] == list(range(start, count))
    return items


def lines(*given: object) -> bytes:
    return b"".join((part if isinstance(part, bytes) else json.dumps(part).encode()) + b"\n" for part in given)


def refusal(line: object) -> JobRefusal:
    first, second, third = read(lines(GOOD, line, GOOD))
    assert isinstance(first, EmbeddingLine)
    assert isinstance(third, EmbeddingLine)
    assert isinstance(second, JobRefusal), second
    assert second.item == "line 2"
    return second


def test_a_line_is_a_person_with_a_unit_embedding() -> None:
    (line,) = read(lines({**GOOD, "description": "Office\nA"}))
    assert isinstance(line, EmbeddingLine)
    assert (line.external_id, line.region, line.name, line.description) == ("e1", "A", "Ada", "Office\nA")
    assert line.embedding == pytest.approx(np.array([0.6, 0, 0.8]))


def test_blank_lines_a_mark_and_windows_line_ends_are_no_lines_of_their_own() -> None:
    content = b"\xef\xbb\xbf" + lines(GOOD, b"", b"  \r", GOOD).replace(b"\n", b"\r\n") + json.dumps(GOOD).encode()
    items = read(content)
    assert all(isinstance(item, EmbeddingLine) for item in items)
    assert [item.item for item in items] == ["line 1", "line 4", "line 5"]


def test_it_goes_on_from_any_position() -> None:
    content = lines(GOOD, b"", {}, GOOD, b"{", GOOD)
    whole = read(content)
    for start in range(len(whole) + 1):
        assert [item.item for item in read(content, start)] == [item.item for item in whole[start:]]


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (b"{", "not_json", "not JSON"),
        (b"\xff", "not_json", "not UTF-8"),
        (b"[" * 1900, "not_json", "nested too deeply"),
        (b'{"a": ' + b"1" * 1900 + b"}", "missing_field", "external_id"),
        ([], "not_json", "not a JSON object"),
        ({**GOOD, "embeddings": []}, "unknown_field", "'embeddings'"),
        ({key: GOOD[key] for key in ("region", "name")}, "missing_field", "external_id, embedding"),
        (b"x" * 2001, "line_too_long", "2000 bytes"),
        ({**GOOD, "name": ""}, "invalid_value", "name"),
        ({**GOOD, "name": 7}, "invalid_value", "name"),
        ({**GOOD, "name": None}, "invalid_value", "name"),
        ({**GOOD, "name": "a\0b"}, "invalid_value", "name"),
        ({**GOOD, "name": "\ud800"}, "invalid_value", "name"),
        ({**GOOD, "region": "x" * 51}, "invalid_value", "region"),
        ({**GOOD, "external_id": " e"}, "invalid_value", "external_id"),
        ({**GOOD, "description": 7}, "invalid_value", "description"),
        ({**GOOD, "embedding": [1, 2]}, "invalid_embedding", "3 numbers"),
        ({**GOOD, "embedding": [0, 0, 0]}, "invalid_embedding", "zeros"),
        ({**GOOD, "embedding": [[1], [2], [3]]}, "invalid_embedding", "no list of 3 numbers"),
        ({**GOOD, "embedding": [True, 1, 2]}, "invalid_embedding", "no list of 3 numbers"),
        ({**GOOD, "embedding": ["1", 1, 2]}, "invalid_embedding", "no list of 3 numbers"),
        ({**GOOD, "embedding": "1,2,3"}, "invalid_embedding", "no list of 3 numbers"),
        ({**GOOD, "embedding": [float("nan"), 1, 2]}, "invalid_embedding", "NaN or infinity"),
        ({**GOOD, "embedding": [float("-inf"), 1, 2]}, "invalid_embedding", "NaN or infinity"),
        (json.dumps(GOOD).replace("3,", "1e999,").encode(), "invalid_embedding", "too large"),
        ({**GOOD, "embedding": [10**400, 1, 2]}, "invalid_embedding", "3 numbers"),
    ],
)
def test_a_bad_line_is_refused_by_its_number_and_the_others_are_read(line: object, code: str, said: str) -> None:
    refused = refusal(line)
    assert refused.code == code
    assert said in refused.reason


def test_a_refusal_never_shows_an_embedding() -> None:
    for embedding in ([0.123456, 1], [0.123456, 1, "x"], {"0.123456": 1}):
        assert "0.123456" not in refusal({**GOOD, "embedding": embedding}).reason


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "holds no line"), (b" \n\r\n", "holds no line"), (b"x\n" * 21, "more than 20 lines")]
)
def test_nothing_and_too_much_are_told_before_anything_is_read(content: bytes, message: str) -> None:
    with pytest.raises(ImportSourceError, match=message):
        EmbeddingLines(io.BytesIO(content), 3, LIMITS).count()


def test_a_line_without_end_is_read_in_little_memory() -> None:
    content = b"x" * 50_000_000 + b"\n" + lines(GOOD)
    tracemalloc.start()
    try:
        items = read(content)
        # The file itself is one copy of the content.
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()
    assert [type(item) for item in items] == [JobRefusal, EmbeddingLine]


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*GOOD, "x"]), inner, max_size=5),
    max_leaves=12,
)
changed = st.builds(lambda key, value: {**GOOD, key: value}, st.sampled_from([*GOOD, "description"]), json_values)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.binary(max_size=60) | (changed | json_values).map(lambda value: json.dumps(value).encode()), max_size=6)
)
def test_any_bytes_are_read_or_refused(parts: list[bytes]) -> None:
    try:
        items = read(b"\n".join(parts))
    except ImportSourceError:
        return
    for item in items:
        if isinstance(item, EmbeddingLine):
            assert np.linalg.norm(item.embedding) == pytest.approx(1, abs=1e-5)
        else:
            assert item.reason
            assert "\0" not in item.reason
            item.reason.encode()
