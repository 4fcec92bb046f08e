"""Writes the smallest ONNX models: the mean of each colour, scaled, as the whole network. No package is needed for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _block(field: int, content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, shape: Sequence[int | None]) -> bytes:
    dimensions = b"".join(_block(1, _block(2, "n") if side is None else _number(1, side)) for side in shape)
    return _block(1, name) + _block(2, _block(1, _number(1, 1) + _block(2, dimensions)))


def write_mean_model(
    path: Path, shape: Sequence[int | None], axes: tuple[int, int], outputs: Sequence[int | None]
) -> Path:
    """A model of one input `x` of the shape and one output `y`, the mean over the two axes."""
    attributes = _block(5, _block(1, "axes") + b"".join(_number(8, axis) for axis in axes) + _number(20, 7))
    attributes += _block(5, _block(1, "keepdims") + _number(3, 0) + _number(20, 2))
    node = _block(1, "x") + _block(2, "y") + _block(4, "ReduceMean") + attributes
    graph = _block(1, node) + _block(2, "mean") + _block(11, _tensor("x", shape)) + _block(12, _tensor("y", outputs))
    path.write_bytes(_number(1, 8) + _block(7, graph) + _block(8, _block(1, "") + _number(2, 13)))
    return path
