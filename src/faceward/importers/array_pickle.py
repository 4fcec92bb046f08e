"""Reads a pickled numpy array without running it.

A pickle is a program. This reads the few of its instructions that numpy writes for a plain array, keeps what they name as
plain values, and never imports, calls or builds anything that the data names. Everything else is refused. Memory is bounded
by the length of the data: no length or index in it is believed before it was compared with what is there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceward.errors import InvalidEmbeddingError
from faceward.importers.shape import embedding_length

_RECONSTRUCT = frozenset({"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"})
_FROM_BUFFER = frozenset({"numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"})
_NDARRAY, _DTYPE, _ENCODE = "numpy.ndarray", "numpy.dtype", "_codecs.encode"
_KNOWN = _RECONSTRUCT | _FROM_BUFFER | {_NDARRAY, _DTYPE, _ENCODE}
_FLOATS = frozenset({"f2", "f4", "f8"})
_MOST_INSTRUCTIONS = 200
_MARK = object()

# Instruction -> the struct code of the length that its text or bytes begin with.
_TEXTS = {0x8C: "<B", 0x58: "<I", 0x8D: "<Q"}
_BYTES = {0x43: "<B", 0x42: "<I", 0x8E: "<Q", 0x96: "<Q", 0x55: "<B", 0x54: "<I"}
_NUMBERS = {0x4B: "<B", 0x4D: "<H", 0x4A: "<i"}
_TUPLES = {0x29: 0, 0x85: 1, 0x86: 2, 0x87: 3}
_CONSTANTS = {0x4E: None, 0x88: True, 0x89: False}


@dataclass(frozen=True, slots=True)
class _Name:
    """Something the pickle would import."""

    path: str


@dataclass(slots=True)
class _Type:
    """An array's type: "f4". order: "<" or ">"."""

    code: str
    order: str = "<"


@dataclass(slots=True)
class _Array:
    shape: Any = None
    kind: Any = None
    data: Any = None


def read_array_pickle(data: bytes) -> NDArray[Any]:
    """The numbers of the array of float16, float32 or float64 that `data` is a pickle of (protocols 2 to 5).

    Raises InvalidEmbeddingError, with the reason, for every other pickle.
    """
    try:
        found = _Reader(data).run()
    except (struct.error, IndexError, UnicodeError, ValueError, TypeError) as exc:
        if isinstance(exc, InvalidEmbeddingError):
            raise
        raise InvalidEmbeddingError("The pickle is damaged or ends early.") from exc
    if not isinstance(found, _Array) or not isinstance(found.kind, _Type):
        raise InvalidEmbeddingError(f"The pickle holds {_kind_of(found)}; only a plain numpy array is read.")
    shape, kind, content = found.shape, found.kind, found.data
    if not isinstance(content, (bytes, bytearray)):
        raise InvalidEmbeddingError("The pickle's array holds objects; only an array of numbers is read.")
    plain = isinstance(shape, tuple) and all(type(side) is int and 0 <= side <= len(data) for side in shape)
    if not plain:
        raise InvalidEmbeddingError("The pickle's array has a shape that it can't have.")
    if embedding_length(shape) * int(kind.code[1]) != len(content):
        raise InvalidEmbeddingError("The pickle's array holds more or fewer numbers than its shape says.")
    return np.frombuffer(content, dtype=kind.order + kind.code)


class _Reader:
    """Steps through the instructions; see the module pickletools of Python for what each means."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        data, stack = self._data, self._stack
        if len(data) < 2 or data[0] != 0x80 or not 2 <= data[1] <= 5:
            raise InvalidEmbeddingError("The pickle is of no protocol from 2 to 5.")
        self._at = 2
        for _ in range(_MOST_INSTRUCTIONS):
            code = data[self._at]
            self._at += 1
            if code == 0x2E:  # STOP
                if self._at != len(data) or len(stack) != 1:
                    raise InvalidEmbeddingError("The pickle goes on after its end.")
                return stack[0]
            self._step(code)
        raise InvalidEmbeddingError("The pickle is longer than that of a plain array.")

    def _step(self, code: int) -> None:
        stack = self._stack
        if code == 0x94:  # MEMOIZE
            self._memo[len(self._memo)] = stack[-1]
        elif code in _TEXTS:
            stack.append(str(self._take(self._number(_TEXTS[code])), "utf-8"))
        elif code in _BYTES:
            stack.append(self._take(self._number(_BYTES[code])))
        elif code in _NUMBERS:
            stack.append(self._number(_NUMBERS[code]))
        elif code in _TUPLES:
            self._tuple(len(stack) - _TUPLES[code])
        elif code in _CONSTANTS:
            stack.append(_CONSTANTS[code])
        elif code == 0x28:  # MARK
            stack.append(_MARK)
        elif code == 0x74:  # TUPLE
            start = max(place for place, value in enumerate(stack) if value is _MARK)
            self._tuple(start + 1)
            del stack[start]
        elif code in (0x71, 0x72):  # BINPUT, LONG_BINPUT: a dict, so that a large number costs no memory
            self._memo[self._number("<B" if code == 0x71 else "<I")] = stack[-1]
        elif code in (0x68, 0x6A):  # BINGET, LONG_BINGET
            place = self._number("<B" if code == 0x68 else "<I")
            if place not in self._memo:
                raise InvalidEmbeddingError("The pickle is damaged or ends early.")
            stack.append(self._memo[place])
        elif code == 0x95:  # FRAME
            self._number("<Q")
        elif code == 0x63:  # GLOBAL
            self._name(self._line(), self._line())
        elif code == 0x93:  # STACK_GLOBAL
            name, module = stack.pop(), stack.pop()
            self._name(module, name)
        elif code == 0x52:  # REDUCE
            arguments, function = stack.pop(), stack.pop()
            stack.append(_result(function, arguments))
        elif code == 0x62:  # BUILD
            state = stack.pop()
            _set_state(stack[-1], state)
        else:
            raise InvalidEmbeddingError(
                f"The pickle does what no plain array needs (instruction {code:#04x}); it was not run."
            )

    def _number(self, form: str) -> int:
        (number,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return int(number)

    def _take(self, length: int) -> bytes:
        if length > len(self._data) - self._at:
            raise InvalidEmbeddingError("The pickle is damaged or ends early.")
        self._at += length
        return self._data[self._at - length : self._at]

    def _line(self) -> str:
        end = self._data.index(b"\n", self._at)
        return str(self._take(end + 1 - self._at)[:-1], "ascii")

    def _tuple(self, start: int) -> None:
        if start < 0:
            raise InvalidEmbeddingError("The pickle is damaged or ends early.")
        items = tuple(self._stack[start:])
        del self._stack[start:]
        self._stack.append(items)

    def _name(self, module: object, name: object) -> None:
        path = f"{_text(module)}.{_text(name)}"
        if path not in _KNOWN:
            raise InvalidEmbeddingError(f"The pickle names {path[:80]!r}, which no plain array needs; it was not run.")
        self._stack.append(_Name(path))


def _result(function: object, arguments: Any) -> Any:
    """What numpy would make of a call, as plain values."""
    if not isinstance(function, _Name) or not isinstance(arguments, tuple):
        raise InvalidEmbeddingError("The pickle calls something that no plain array needs; it was not run.")
    if function.path == _DTYPE:
        code = _text(arguments[0])
        if code not in _FLOATS:
            raise InvalidEmbeddingError(f"The pickle's array is of the type {code[:20]!r}; only floats are read.")
        return _Type(code)
    if function.path == _ENCODE:  # how protocol 2 writes bytes
        text, encoding = arguments
        if not isinstance(text, str) or encoding != "latin1":
            raise InvalidEmbeddingError("The pickle calls something that no plain array needs; it was not run.")
        return text.encode("latin-1")
    if function.path in _FROM_BUFFER:
        data, kind, shape, _ = arguments
        return _Array(shape, kind, data)
    if function.path in _RECONSTRUCT and arguments[0] == _Name(_NDARRAY):
        return _Array()
    raise InvalidEmbeddingError("The pickle calls something that no plain array needs; it was not run.")


def _set_state(target: object, state: Any) -> None:
    if not isinstance(state, tuple):
        raise InvalidEmbeddingError("The pickle is damaged or ends early.")
    if isinstance(target, _Type):
        order = _text(state[1])
        if order not in ("<", ">"):
            raise InvalidEmbeddingError("The pickle's array is of a type that no embedding has.")
        target.order = order
    elif isinstance(target, _Array):
        _, target.shape, target.kind, _, target.data = state
    else:
        raise InvalidEmbeddingError("The pickle changes something that no plain array has; it was not run.")


def _text(value: object) -> str:
    """Python 2 wrote its texts as bytes. Nothing else is written out: tuples that hold each other would have no end."""
    if isinstance(value, bytes):
        return str(value, "latin-1")
    if not isinstance(value, str):
        raise InvalidEmbeddingError("The pickle is damaged or ends early.")
    return value


def _kind_of(found: object) -> str:
    return "no array" if isinstance(found, (_Name, _Type, _Array)) else f"a {type(found).__name__}"
