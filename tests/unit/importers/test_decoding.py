"""Each encoding of an embedding is told apart, and what is none is refused with its reason."""

from __future__ import annotations

import base64
import io
import json
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceward.errors import InvalidEmbeddingError
from faceward.importers.decoding import MAX_ENCODED, EmbeddingDecoder


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


ENCODERS: dict[str, Callable[[np.ndarray], object]] = {
    "float32": lambda v: v.astype("<f4").tobytes(),
    "float64": lambda v: v.astype("<f8").tobytes(),
    "npy": npy,
    "npy of a row": lambda v: npy(v[None].astype("f4")),
    "npy of a column": lambda v: npy(v[:, None]),
    "json": lambda v: json.dumps(v.tolist()),
    "json in a blob": lambda v: json.dumps(v.tolist()).encode(),
    "json in a list": lambda v: json.dumps([v.tolist()], indent=1),
    "pickle": pickle.dumps,
    "pickle of a row": lambda v: pickle.dumps(v[None]),
    "base64 of float32": lambda v: text(v.astype("<f4").tobytes()),
    "base64 of float64": lambda v: text(v.astype("<f8").tobytes()),
    "base64 of npy": lambda v: text(npy(v)),
    "base64 of pickle": lambda v: text(pickle.dumps(v)),
    "base64 of json": lambda v: text(json.dumps(v.tolist(), indent=1).encode()),
    "base64 in a blob": lambda v: text(v.astype("<f4").tobytes()).encode(),
}


@pytest.mark.parametrize("encoding", ENCODERS)
@pytest.mark.parametrize("length", [128, 256, 512, 1024])
@pytest.mark.parametrize("narrow", [False, True], ids=["doubles", "doubles that were floats"])
def test_every_encoding_of_every_length_is_read(encoding: str, length: int, narrow: bool) -> None:
    vector = np.random.default_rng(length).standard_normal(length)
    vector /= np.linalg.norm(vector)
    if narrow:
        vector = vector.astype(np.float32).astype(np.float64)
    name, numbers = EmbeddingDecoder(512).decode(ENCODERS[encoding](vector))
    assert encoding.startswith(name.split(" in ")[0].split(" of float")[0])
    assert np.allclose(numbers, vector, atol=1e-6)


@given(st.integers(0, 2**32), st.sampled_from([1e-2, 1.0, 30.0]))
def test_float32_of_the_right_length_is_read_as_such(seed: int, size: float) -> None:
    vector = (size * np.random.default_rng(seed).standard_normal(512)).astype("<f4")
    name, numbers = EmbeddingDecoder(512).decode(vector.tobytes())
    assert name == "float32"
    assert np.array_equal(numbers, vector)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no embedding"),
        (b"", "empty"),
        ("", "empty"),
        ("[]", "empty"),
        (7, "single number"),
        ("hello", "neither"),
        ("[1, 2", "JSON"),
        ('["a"]', "JSON"),
        ("[[1], [2]]", "JSON"),
        ("[" * 5000, "JSON"),
        ("[1e999, 1]", "infinity"),
        ("[NaN]", "NaN"),
        ("[0, 0]", "zeros"),
        (bytes(2048), "zeros"),
        (text(bytes(4096)), "zeros"),
        (np.full(512, np.nan, "f4").tobytes(), "NaN"),
        (np.array([np.inf, *[0.1] * 511], "f8").tobytes(), "NaN"),
        (np.random.default_rng(1).bytes(2048), "neither"),
        (pickle.dumps(np.ones(512, "f4"), 0), "protocol"),
        (pickle.dumps(np.ones(512, "f4"), 1), "protocol"),
        (text(pickle.dumps(np.ones(512, "f4"), 0)), "protocol"),
        (np.full(512, 0.3, "f4").tobytes().hex(), "hexadecimal"),
        (np.full(511, 0.3, "f4").tobytes().hex()[:-2], "hexadecimal"),
        (b"\xff" * 2047, "neither"),
        (npy(np.arange(4)), "floats"),
        (npy(np.ones(4))[:-1], "more or fewer"),
        (npy(np.ones(4)).replace(b"(4,), ", b"(4e9),"), "header"),
        (npy(np.ones(4)).replace(b"_order':", b"_order'("), "header"),
        (npy(np.ones(4)).replace(b"(4,)", b"(9,)"), "more or fewer"),
        (npy(np.ones((2, 2, 2))), r"shape \(2, 2, 2\)"),
        (npy(np.ones((4, 128))), r"shape \(4, 128\)"),
        (npy(np.ones((0, 8))), r"shape \(0, 8\)"),
        (npy(np.ones(4)).replace(b"(4,)", b"(-4)"), "header"),
        (npy(np.ones((2, 2))).replace(b"(2, 2)", b"(-2,1)"), "can't have"),
        (text(pickle.dumps(np.ones((4, 128)))), r"shape \(4, 128\)"),
        (np.ones((2, 256)), r"shape \(2, 256\)"),
        (npy(np.ones(4))[:9], "damaged"),
        (pickle.dumps([1.0]), "pickle"),
        (b"x" * (MAX_ENCODED + 1), "longer"),
        ("1" * (MAX_ENCODED + 1), "longer"),
        (text(b"hello"), "base64"),
        (npy(np.array([{}], dtype=object)), "floats"),
    ],
)
def test_what_is_no_embedding_is_refused(value: object, reason: str) -> None:
    with pytest.raises(InvalidEmbeddingError, match=reason):
        EmbeddingDecoder(512).decode(value)


@given(st.binary(max_size=300) | st.text(max_size=100))
def test_noise_is_read_or_refused(value: bytes | str) -> None:
    try:
        _, numbers = EmbeddingDecoder(512).decode(value)
    except InvalidEmbeddingError:
        return
    assert np.isfinite(numbers).all()


def decoded(decoder: EmbeddingDecoder, value: object) -> tuple[str, bytes] | str:
    try:
        encoding, numbers = decoder.decode(value)
    except InvalidEmbeddingError as exc:
        return str(exc)
    return encoding, numbers.tobytes()


def many(decoder: EmbeddingDecoder, values: list[object]) -> list[tuple[str, bytes] | str]:
    found = decoder.decode_many(values)
    return [str(each) if isinstance(each, InvalidEmbeddingError) else (each[0], each[1].tobytes()) for each in found]


@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("encoding", ENCODERS)
def test_many_at_once_are_read_as_each_by_itself(encoding: str, kind: str) -> None:
    vectors = np.random.default_rng(5).standard_normal((12, 512)).astype(kind)
    values: list[object] = [ENCODERS[encoding](vector) for vector in vectors]
    values[3:3] = [None, b"", "no base64!", bytes(2048), np.full(512, np.nan, "f4").tobytes(), b"\x01" * 4096, 7]
    values += [ENCODERS[encoding](np.zeros(512, kind)), ENCODERS[encoding](np.full(512, np.inf, kind))]
    values += [value[:-1] for value in values if isinstance(value, (bytes, str))]
    decoder = EmbeddingDecoder(512)
    for _ in range(2):  # the second time it knows the column's form
        assert many(decoder, values) == [decoded(EmbeddingDecoder(512), value) for value in values]


@given(st.sampled_from(["npy", "pickle"]), st.integers(0, 2500), st.integers(0, 255))
def test_a_known_form_lets_nothing_through_that_was_refused_before(encoding: str, place: int, byte: int) -> None:
    encode = {"npy": npy, "pickle": pickle.dumps}[encoding]
    vectors = np.random.default_rng(7).standard_normal((3, 512)).astype("f4")
    decoder = EmbeddingDecoder(512)
    many(decoder, [encode(vectors[0])])
    damaged = bytearray(encode(vectors[1]))
    damaged[place % len(damaged)] = byte
    assert many(decoder, [bytes(damaged)]) == [decoded(EmbeddingDecoder(512), bytes(damaged))]


@pytest.mark.parametrize("order", [1, -1], ids=["rows first", "matrix first"])
@pytest.mark.parametrize("encode", [npy, pickle.dumps, lambda v: pickle.dumps(v, 2)], ids=["npy", "pickle", "pickle 2"])
def test_a_known_form_lets_no_matrix_through(encode: Callable[[np.ndarray], bytes], order: int) -> None:
    """Four embeddings of 128 numbers are as many as one of 512, and may take as many bytes."""
    vectors = np.random.default_rng(7).standard_normal((6, 512))
    rows, matrices = [encode(v) for v in vectors], [encode(v.reshape(4, 128)) for v in vectors]
    values = [value for pair in zip(rows, matrices, strict=True) for value in pair[::order]]
    decoder = EmbeddingDecoder(512)
    for _ in range(2):
        for each in (values, *([value] for value in values)):
            found = many(decoder, list(each))
            assert found == [decoded(EmbeddingDecoder(512), value) for value in each]
            assert ["shape (4, 128)" in result for result in found] == [value in matrices for value in each]


def test_numbers_that_begin_as_json_does_are_numbers() -> None:
    vector = np.random.default_rng(1).standard_normal(128).astype("<f4")
    data = b"[" + vector.tobytes()[1:]
    assert many(EmbeddingDecoder(512), [data]) == [("float32", data)]


@pytest.mark.parametrize("form", [str, str.encode, lambda json: text(json.encode())], ids=["text", "blob", "base64"])
def test_json_as_long_as_numbers_is_json(form: Callable[[str], object]) -> None:
    """Its nines, as float32, are as large as an embedding's numbers may be."""
    value = f"[{'9.99999,' * 127}9.9999]"
    assert len(value) == 1024
    encoding, numbers = EmbeddingDecoder(256).decode(form(value))
    assert encoding.endswith("json")
    assert len(numbers) == 128


def test_numbers_that_look_like_what_stands_around_them_teach_no_form() -> None:
    """Zeros follow the length of the pickle's bytes, which ends with zeros: where the numbers begin can't be told."""
    decoder = EmbeddingDecoder(512)
    zeros = pickle.dumps(np.zeros(512, "f4"))
    vector = np.random.default_rng(1).standard_normal(512).astype("f4")
    assert many(decoder, [zeros]) == ["The embedding is all zeros."]
    assert many(decoder, [pickle.dumps(vector)]) == [("pickle", vector.tobytes())]
