"""From what a column holds to an embedding: raw floats, .npy, JSON, base64, or a pickled array."""

from __future__ import annotations

import base64
import binascii
import io
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceward.errors import InvalidEmbeddingError
from faceward.importers.array_pickle import read_array_pickle

MAX_ENCODED = 1_000_000
"""Bytes or characters of one embedding; a longer value is none."""

_NPY_MAGIC = b"\x93NUMPY"
_LARGEST, _SMALLEST = 1e4, 1e-4


class EmbeddingDecoder:
    """Reads the values of one column. dimension: of the embeddings wanted; it settles what raw bytes are."""

    def __init__(self, dimension: int) -> None:
        self._raw_lengths = (4 * dimension, 8 * dimension)
        self._headers: dict[bytes, tuple[str, int]] = {}

    def decode(self, value: object) -> tuple[str, NDArray[Any]]:
        """The name of the encoding and the numbers, shape (n,), float16 to float64, finite, of whatever length.

        Raises InvalidEmbeddingError with the reason.
        """
        if isinstance(value, bytes):
            if len(value) == self._raw_lengths[0] and (plain := _plain_floats(value)) is not None:
                return "float32", plain
            encoding, numbers = self._bytes(value)
        elif isinstance(value, str):
            encoding, numbers = self._text(value.strip())
        elif value is None:
            raise InvalidEmbeddingError("There is no embedding.")
        else:
            raise InvalidEmbeddingError(f"The embedding is a single number ({type(value).__name__}).")
        if numbers.size == 0:
            raise InvalidEmbeddingError("The embedding is empty.")
        largest = float(np.abs(numbers).max())
        if not largest < float("inf"):  # NaN fails this too
            raise InvalidEmbeddingError("The embedding holds NaN or infinity.")
        if largest == 0.0:
            raise InvalidEmbeddingError("The embedding is all zeros.")
        return encoding, numbers

    def _bytes(self, value: bytes) -> tuple[str, NDArray[Any]]:
        if not value:
            raise InvalidEmbeddingError("The embedding is empty.")
        if len(value) > MAX_ENCODED:
            raise InvalidEmbeddingError(f"The embedding takes {len(value)} bytes; none is longer than {MAX_ENCODED}.")
        if len(value) in self._raw_lengths and (raw := _raw(value)) is not None:
            return raw
        if value.startswith(_NPY_MAGIC):
            return "npy", self._npy(value)
        if value[0] == 0x80 and len(value) > 2 and value[1] <= 5 and value[-1:] == b".":
            return "pickle", read_array_pickle(value)
        if value.isascii() and (text := value.decode("ascii").strip()) and text.isprintable():
            return self._text(text)
        if (raw := _raw(value)) is not None:
            return raw
        raise InvalidEmbeddingError(
            f"The {len(value)} bytes are neither float32 or float64 numbers of an embedding, nor .npy, JSON, base64 or "
            "the pickle of an array."
        )

    def _text(self, value: str) -> tuple[str, NDArray[Any]]:
        if len(value) > MAX_ENCODED:
            raise InvalidEmbeddingError(
                f"The embedding takes {len(value)} characters; none is longer than {MAX_ENCODED}."
            )
        if not value:
            raise InvalidEmbeddingError("The embedding is empty.")
        if value.startswith("["):
            return "json", _json(value)
        try:
            inner = base64.b64decode(value.replace("\n", ""), validate=True)
        except (binascii.Error, ValueError) as exc:
            raise InvalidEmbeddingError("The text is neither a JSON list of numbers nor base64.") from exc
        if inner.isascii():  # no text within a text
            raise InvalidEmbeddingError("The text is base64 of something that is no embedding.")
        encoding, numbers = self._bytes(inner)
        return f"base64 of {encoding}", numbers

    def _npy(self, value: bytes) -> NDArray[Any]:
        wide = value[6:7] != b"\x01"
        start = 12 if wide else 10
        end = start + int.from_bytes(value[8:start], "little")
        header = value[:end]
        if header not in self._headers:
            self._headers = {header: _npy_header(header)}  # a column has one, so one is remembered
        kind, count = self._headers[header]
        if len(value) - end != count * np.dtype(kind).itemsize:
            raise InvalidEmbeddingError("The .npy data holds more or fewer numbers than its header says.")
        return np.frombuffer(value, kind, offset=end)


def _npy_header(header: bytes) -> tuple[str, int]:
    """The type and the number of values. Nothing of the array's size is allocated."""
    stream = io.BytesIO(header)
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, kind = read(stream)
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError) as exc:
        raise InvalidEmbeddingError("The .npy data has a damaged header.") from exc
    if kind.kind != "f" or kind.itemsize > 8:
        raise InvalidEmbeddingError(f"The .npy data is of the type {kind.str!r}; only floats are read.")
    count = 1
    for side in shape:
        count *= int(side)
    if len(shape) > 2 or not 0 <= count <= MAX_ENCODED:
        raise InvalidEmbeddingError("The .npy data has a shape that no embedding has.")
    return kind.str, count


def _json(text: str) -> NDArray[Any]:
    try:
        values = json.loads(text)
        if isinstance(values, list) and len(values) == 1 and isinstance(values[0], list):
            values = values[0]
        numbers = np.array(values)
    except (ValueError, RecursionError, OverflowError) as exc:
        raise InvalidEmbeddingError("The text begins like a JSON list and is none, or not one of numbers.") from exc
    if numbers.ndim != 1 or numbers.dtype.kind not in "if":
        raise InvalidEmbeddingError("The JSON is no plain list of numbers.")
    return numbers.astype(np.float64)


def _plain_floats(value: bytes) -> NDArray[np.float32] | None:
    """The bytes as float32 where their squares' sum alone shows that they are an embedding's: the usual case, at a third
    of the time.
    """
    numbers: NDArray[np.float32] = np.frombuffer(value, "<f4")
    with np.errstate(over="ignore", invalid="ignore"):
        squares = float(numbers.dot(numbers))
    return numbers if numbers.size * _SMALLEST**2 <= squares <= _LARGEST**2 else None


def _raw(value: bytes) -> tuple[str, NDArray[Any]] | None:
    """The bytes as float32, else as float64, whichever gives numbers that an embedding can hold.

    The halves of a float64 read as float32 range over all magnitudes; a pair of float32 read as a float64 is far too small.
    """
    for kind, name, size in (("<f4", "float32", 4), ("<f8", "float64", 8)):
        if len(value) % size == 0:
            numbers = np.frombuffer(value, kind)
            with np.errstate(invalid="ignore"):
                if _SMALLEST <= float(np.abs(numbers).max()) <= _LARGEST:
                    return name, numbers
    return None
