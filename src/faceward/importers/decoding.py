"""From what a column holds to an embedding: raw floats, .npy, JSON, base64, or a pickled array."""

from __future__ import annotations

import binascii
import io
import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from tokenize import TokenError
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import simdjson
from numpy.typing import NDArray

from faceward.errors import InvalidEmbeddingError
from faceward.importers.array_pickle import read_array_pickle
from faceward.importers.shape import embedding_length

MAX_ENCODED = 1_000_000
"""Bytes or characters of one embedding; a longer value is none."""

_NPY_MAGIC = b"\x93NUMPY"
_OLDEST_PICKLE = b"cnumpy"  # how one of protocol 0 or 1 begins
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")
_LARGEST, _SMALLEST = 1e4, 1e-4
_AROUND = "base64 of "
_MOST_FORMS = 32

Buffer: TypeAlias = bytes | memoryview


@dataclass(frozen=True, slots=True)
class _Form:
    """What encoded embeddings have in common: all but the numbers between `before` and `after`, which are of type `kind`.

    Squares: what the sum of the numbers' may be, so that they are finite and no other reading of the bytes is likelier.
    """

    length: int
    encoding: str
    kind: str
    before: bytes = field(default=b"", repr=False)
    after: bytes = field(default=b"", repr=False)
    squares: tuple[float, float] = (1e-30, 1e30)
    raw: bool = False

    def read(self, values: Sequence[Buffer]) -> list[NDArray[Any] | None]:
        """The numbers of each; None where it needs a closer look."""
        block = np.frombuffer(b"".join(values), np.uint8).reshape(len(values), self.length)
        start, end = len(self.before), self.length - len(self.after)
        good = (block[:, :start] == np.frombuffer(self.before, np.uint8)).all(axis=1)
        good &= (block[:, end:] == np.frombuffer(self.after, np.uint8)).all(axis=1)
        numbers = np.ascontiguousarray(block[:, start:end]).view(self.kind)
        squares = _squares(numbers)
        good &= (squares >= self.squares[0]) & (squares <= self.squares[1])
        if self.raw and self.kind == "<f8":  # the same bytes as float32 count first
            narrow = block.view("<f4")
            good &= ~(_squares(narrow) <= narrow.shape[1] * _LARGEST**2)
        return [row if plain else None for row, plain in zip(numbers, good.tolist(), strict=True)]


def _raw_form(kind: str, dimension: int) -> _Form:
    width = np.dtype(kind).itemsize
    squares = dimension * _SMALLEST**2, _LARGEST**2
    return _Form(width * dimension, f"float{8 * width}", kind, squares=squares, raw=True)


def _squares(rows: NDArray[Any]) -> NDArray[Any]:
    """The sum of the squares of each row."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.einsum("ij,ij->i", rows, rows))


class Decoded(NamedTuple):
    """encoding: its name. numbers: shape (n,), float16 to float64, finite, not all zero."""

    encoding: str
    numbers: NDArray[Any]


class EmbeddingDecoder:
    """Reads the values of one column. dimension: of the embeddings wanted; it settles what raw bytes are."""

    def __init__(self, dimension: int) -> None:
        self._raw_lengths = (4 * dimension, 8 * dimension)
        self._forms = {form.length: form for form in (_raw_form("<f4", dimension), _raw_form("<f8", dimension))}
        self._list_form = _Form(8 * dimension, "json", "<f8")
        self._headers: dict[bytes, tuple[str, int]] = {}
        self._parser = simdjson.Parser()

    def decode(self, value: object) -> Decoded:
        """The embedding, of whatever length. Raises InvalidEmbeddingError with the reason."""
        if isinstance(value, bytes):
            encoding, numbers = self._bytes(value)
        elif isinstance(value, str):
            encoding, numbers = self._text(value.strip())
        elif isinstance(value, np.ndarray):
            embedding_length(value.shape)
            encoding, numbers = "array", value.ravel()
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
        return Decoded(encoding, numbers)

    def decode_many(self, values: Sequence[object]) -> list[Decoded | InvalidEmbeddingError]:
        """Each as `decode` returns it, or what it raises. Those that differ in their numbers only are read all at once."""
        results: list[Decoded | InvalidEmbeddingError | None] = [None] * len(values)
        alike: dict[tuple[str, int], tuple[_Form, list[int], list[Buffer]]] = {}
        for place, value in enumerate(values):
            around, data, form = self._inner(value)
            if data is not None and form is not None:
                _, places, several = alike.setdefault((around, form.length), (form, [], []))
                places.append(place)
                several.append(data)
        for (around, _), (form, places, several) in alike.items():
            encoding = form.encoding if form is self._list_form else around + form.encoding
            for place, numbers in zip(places, form.read(several), strict=True):
                if numbers is not None:
                    results[place] = Decoded(encoding, numbers)
        return [self._one(values[place]) if result is None else result for place, result in enumerate(results)]

    def _inner(self, value: object) -> tuple[str, Buffer | None, _Form | None]:
        """What a value may be in: base64 or JSON; the bytes in it; and the form that these may have."""
        if isinstance(value, bytes):
            return "", value, self._forms.get(len(value))
        if not isinstance(value, str):
            return "", None, None
        if value.startswith("["):
            numbers = self._list(value) if len(value) <= MAX_ENCODED else None
            wanted = numbers is not None and numbers.nbytes == self._list_form.length
            return "json", numbers if wanted else None, self._list_form
        data = _from_base64(value)
        return _AROUND, data, None if data is None else self._forms.get(len(data))

    def _one(self, value: object) -> Decoded | InvalidEmbeddingError:
        try:
            return self.decode(value)
        except InvalidEmbeddingError as exc:
            return exc

    def _learn(self, encoding: str, data: bytes, numbers: NDArray[Any]) -> None:
        """Keep the form of what was read, so that what is like it is read faster: a column holds values of few forms."""
        kind, content = numbers.dtype.str, numbers.tobytes()
        start = data.find(content)
        # What could stand in two places, or be the same in another spelling (as in pickles of protocol 2), is no form.
        if (
            kind not in ("<f4", "<f8")
            or len(content) < 64
            or content.isascii()
            or start < 0
            or data.rfind(content) != start
        ):
            return
        if len(data) not in self._raw_lengths and (len(data) in self._forms or len(self._forms) < _MOST_FORMS):
            end = start + len(content)
            self._forms[len(data)] = _Form(len(data), encoding, kind, data[:start], data[end:])

    def _bytes(self, value: bytes) -> tuple[str, NDArray[Any]]:
        if not value:
            raise InvalidEmbeddingError("The embedding is empty.")
        if len(value) > MAX_ENCODED:
            raise InvalidEmbeddingError(f"The embedding takes {len(value)} bytes; none is longer than {MAX_ENCODED}.")
        if value.startswith(b"[") and value.isascii():
            return "json", self._json(value.decode("ascii"))
        if len(value) in self._raw_lengths and (raw := _raw(value)) is not None:
            return raw
        if value.startswith(_NPY_MAGIC):
            numbers = self._npy(value)
            self._learn("npy", value, numbers)
            return "npy", numbers
        if value[0] == 0x80 and len(value) > 2 and value[1] <= 5 and value[-1:] == b".":
            numbers = read_array_pickle(value)
            self._learn("pickle", value, numbers)
            return "pickle", numbers
        if value.startswith(_OLDEST_PICKLE) and value.endswith(b"."):
            raise InvalidEmbeddingError("The pickle is of protocol 0 or 1; those of 2 to 5 are read.")
        if value.isascii() and (text := value.decode("ascii").strip()) and text.isprintable():
            return self._text(text)
        if (raw := _raw(value)) is not None:
            return raw
        if value.count(0) == len(value):
            raise InvalidEmbeddingError("The embedding is all zeros.")
        if len(value) in self._raw_lengths and _is_partly_finite(np.frombuffer(value, self._forms[len(value)].kind)):
            raise InvalidEmbeddingError("The embedding holds NaN or infinity.")
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
            return "json", self._json(value)
        try:
            inner = binascii.a2b_base64(value.replace("\n", ""), strict_mode=True)
        except (binascii.Error, ValueError) as exc:
            if _HEXADECIMAL.issuperset(value):
                raise InvalidEmbeddingError("The text is hexadecimal, which is not read; base64 is.") from exc
            raise InvalidEmbeddingError("The text is neither a JSON list of numbers nor base64.") from exc
        if inner.isascii():
            inner = inner.strip()
            if inner.strip(b"\0") and not inner.startswith((b"[", _OLDEST_PICKLE)):  # no other text within a text
                raise InvalidEmbeddingError("The text is base64 of something that is no embedding.")
        try:
            encoding, numbers = self._bytes(inner)
        except InvalidEmbeddingError as exc:
            if _HEXADECIMAL.issuperset(value):
                raise InvalidEmbeddingError("The text is hexadecimal, which is not read; base64 is.") from exc
            raise
        return f"{_AROUND}{encoding}", numbers

    def _json(self, text: str) -> NDArray[np.float64]:
        numbers = self._list(text)
        return _json_slowly(text) if numbers is None else np.frombuffer(numbers, np.float64)

    def _list(self, text: str) -> memoryview | None:
        """The float64 numbers of a JSON list, or of a list in a list; None where it is no plain one."""
        if not _is_one_list(text):
            return None
        try:
            parsed: Any = self._parser.parse(text)
            return memoryview(parsed.as_buffer(of_type="d"))
        except (ValueError, TypeError, RuntimeError):
            return None

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
    except (ValueError, KeyError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError) as exc:
        raise InvalidEmbeddingError("The .npy data has a damaged header.") from exc
    if kind.kind != "f" or kind.itemsize > 8:
        raise InvalidEmbeddingError(f"The .npy data is of the type {kind.str!r}; only floats are read.")
    if not all(0 <= side <= MAX_ENCODED for side in shape):
        raise InvalidEmbeddingError("The .npy data has a shape that it can't have.")
    return kind.str, embedding_length(shape)


def _from_base64(value: str) -> bytes | None:
    """What a text in base64 holds; None where it is none, or one that `decode` has more to say about."""
    if len(value) > MAX_ENCODED:
        return None
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except (binascii.Error, ValueError):
        return None


def _is_one_list(text: str) -> bool:
    """Whether the brackets of what is valid JSON are those of a list, or of a list in a list, around all of it."""
    if text.rfind("[") == 0:
        return True
    before = "".join(text[: text.rfind("[") + 1].split())
    after = "".join(text[text.find("]") :].split())
    return (before, after) in (("[", "]"), ("[[", "]]"))


def _json_slowly(text: str) -> NDArray[np.float64]:
    """What the fast parser refuses: NaN, infinity, integers beyond 64 bits, and what is no list of numbers."""
    try:
        values = json.loads(text)
        if isinstance(values, list) and len(values) == 1 and isinstance(values[0], list):
            values = values[0]
    except (ValueError, RecursionError) as exc:
        raise InvalidEmbeddingError("The text begins like a JSON list and is none, or not one of numbers.") from exc
    plain = isinstance(values, list) and not any(isinstance(value, bool) for value in values)
    try:
        return np.frombuffer(array("d", values if plain else "none"), np.float64)
    except (TypeError, OverflowError) as exc:
        raise InvalidEmbeddingError("The JSON is no plain list of numbers.") from exc


def _is_partly_finite(numbers: NDArray[Any]) -> bool:
    """Whether they are those of an embedding but for NaN and infinity, which chance bytes hold too."""
    finite = numbers[np.isfinite(numbers)]
    return finite.size < numbers.size and (not finite.size or _SMALLEST <= float(np.abs(finite).max()) <= _LARGEST)


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
