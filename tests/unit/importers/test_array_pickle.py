"""A pickled array is read; whatever else a pickle would do is not done."""

from __future__ import annotations

import os
import pickle
import re
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceward.errors import InvalidEmbeddingError
from faceward.importers.array_pickle import read_array_pickle


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8", ">f4", ">f8"])
@pytest.mark.parametrize("shape", [(512,), (1, 128), (128, 1)])
def test_a_plain_array_is_read(protocol: int, kind: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).standard_normal(shape).astype(kind)
    assert np.array_equal(read_array_pickle(pickle.dumps(array, protocol)), array.ravel())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_read_only_array_is_read(protocol: int) -> None:
    array = np.arange(4, dtype=np.float32)
    array.setflags(write=False)
    assert np.array_equal(read_array_pickle(pickle.dumps(array, protocol)), array)


def test_pickles_of_old_numpy_and_python_2_are_read() -> None:
    numbers = np.arange(3, dtype="<f8")
    data = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02U\x01bq\x03\x87q\x04Rq\x05"
        b"(K\x01K\x03\x85q\x06cnumpy\ndtype\nq\x07U\x02f8q\x08K\x00K\x01\x87q\tRq\n(K\x03U\x01<q\x0bNNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tq\x0cb\x89U\x18" + numbers.tobytes() + b"q\rtq\x0eb."
    )
    assert np.array_equal(pickle.loads(data, encoding="latin1"), numbers)
    assert np.array_equal(read_array_pickle(data), numbers)


class Planted:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_planted_command_does_not_run(tmp_path: Path, protocol: int) -> None:
    planted = tmp_path / "planted"
    data = pickle.dumps(Planted(planted), protocol)
    with pytest.raises(InvalidEmbeddingError, match="not run"):
        read_array_pickle(data)
    assert not planted.exists()
    pickle.loads(data)
    assert planted.exists(), "the pickle of this test must be able to do harm"


def test_a_command_inside_an_array_of_objects_does_not_run(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    data = pickle.dumps(np.array([Planted(planted)], dtype=object), 4)
    with pytest.raises(InvalidEmbeddingError):
        read_array_pickle(data)
    assert not planted.exists()


@pytest.mark.parametrize(
    "value",
    [[0.1, 0.2], {"a": 1}, "text", 1.5, None, (1, 2), np.float32(1), np.arange(3), np.dtype("f4"), np.array(["a"])],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_anything_but_an_array_of_floats_is_refused(value: object, protocol: int) -> None:
    with pytest.raises(InvalidEmbeddingError):
        read_array_pickle(pickle.dumps(value, protocol))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("shape", [(4, 128), (2, 1, 64), ()])
def test_an_array_that_is_not_one_row_is_refused_with_its_shape(protocol: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidEmbeddingError, match=f"has the shape {re.escape(str(shape))};"):
        read_array_pickle(pickle.dumps(np.ones(shape), protocol))


@pytest.mark.parametrize("protocol", [0, 1])
def test_the_oldest_protocols_are_refused(protocol: int) -> None:
    with pytest.raises(InvalidEmbeddingError, match="protocol"):
        read_array_pickle(pickle.dumps(np.zeros(3), protocol))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",  # a bytearray of a terabyte
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
        b"\x80\x02Nr" + struct.pack("<I", 2**31 - 1) + b".",  # a memo with room for two thousand million values
        b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
        pickle.dumps(np.zeros(2, np.float32), 4).replace(b"K\x02\x85", b"J\xff\xff\xff\x7f\x85"),
    ],
)
def test_no_memory_is_taken_for_what_is_not_there(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidEmbeddingError):
            read_array_pickle(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


_NESTED = b"\x80\x04)\x94" + b"".join((b"h" + bytes([level])) * 2 + b"\x86\x94" for level in range(36))


@pytest.mark.parametrize(
    "end",
    [
        b"\x8c\x01a\x93.",
        b"\x8c\x01a" + b"h\x24" + b"\x93.",
        b"\x85" + b"cnumpy\ndtype\n" + b"h\x24" + b"\x85R.",
        b"cnumpy\ndtype\n" + b"\x8c\x02f4\x85R" + b"Nh\x24\x86b.",
    ],
    ids=["module", "name", "type", "order"],
)
def test_tuples_that_hold_each_other_are_not_written_out(end: bytes) -> None:
    """A hundred instructions that would be a text of 2**36 signs."""
    with pytest.raises(InvalidEmbeddingError):
        read_array_pickle(_NESTED + end)


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(InvalidEmbeddingError):
        read_array_pickle(noise)


@given(st.integers(2, 5), st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_pickle_is_read_or_refused(protocol: int, place: int, byte: int) -> None:
    data = bytearray(pickle.dumps(np.ones(8, np.float32), protocol))
    data[place % len(data)] = byte
    for each in (bytes(data), bytes(data[:place])):
        try:
            assert read_array_pickle(each).dtype.kind == "f"
        except InvalidEmbeddingError:
            continue
