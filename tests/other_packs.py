"""Model packs of another model than the default one, made from it: its embeddings turned, or projected to fewer numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from faceward.vision import ModelPack, PackStore

_GRAPH, _NODE, _WEIGHTS, _OUTPUT = 7, 1, 5, 12


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


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(number, content, all bytes) of each field of a protobuf message; content is empty for one that is a number."""
    at = 0
    while at < len(message):
        start = at
        key, at = _read_varint(message, at)
        content = b""
        if key & 7 == 2:
            length, at = _read_varint(message, at)
            content, at = message[at : at + length], at + length
        elif key & 7 == 0:
            _, at = _read_varint(message, at)
        else:
            at += 4 if key & 7 == 5 else 8
        yield key >> 3, content, message[start:at]


def projected(model: bytes, weights: np.ndarray) -> bytes:
    """An ONNX model whose output is that of `model` times the weights (numbers before, numbers after)."""
    before, after = weights.shape
    parts, graph, output = [], b"", b""
    for number, content, whole in _fields(model):
        if number == _GRAPH:
            graph = content
        else:
            parts.append(whole)
    kept = []
    for number, content, whole in _fields(graph):
        if number == _OUTPUT:
            output = next(name for field, name, _ in _fields(content) if field == 1)
        else:
            kept.append(whole)
    node = b"".join((_block(1, output), _block(1, "turn"), _block(2, "turned"), _block(4, "MatMul")))
    tensor = b"".join(
        (
            _number(1, before),
            _number(1, after),
            _number(2, 1),
            _block(8, "turn"),
            _block(9, weights.astype("<f4").tobytes()),
        )
    )
    shape = b"".join(_block(1, _number(1, side)) for side in (1, after))
    result = _block(1, "turned") + _block(2, _block(1, _number(1, 1) + _block(2, shape)))
    whole_graph = b"".join((*kept, _block(_NODE, node), _block(_WEIGHTS, tensor), _block(_OUTPUT, result)))
    return b"".join((*parts, _block(_GRAPH, whole_graph)))


def add_pack(home: Path, pack: ModelPack, name: str, dimension: int) -> str:
    """Add the pack of `folder_of` to a home; returns its model id."""
    return PackStore(home).add(folder_of(home / f"folder-{name}", pack, name, dimension)).model_id


def folder_of(folder: Path, pack: ModelPack, name: str, dimension: int) -> Path:
    """Make a folder with a pack whose embeddings are those of `pack` seen along random axes."""
    axes = np.linalg.qr(np.random.default_rng(3).standard_normal((512, 512)))[0][:, :dimension]
    folder.mkdir(parents=True)
    data = projected(pack.embedder.read_bytes(), axes)
    (folder / "embed.onnx").write_bytes(data)
    manifest = {
        "name": name,
        "licence": {"name": "MIT", "allows": "any use"},
        "files": {"embed.onnx": hashlib.sha256(data).hexdigest()},
        "embedding": {
            "file": "embed.onnx",
            "dimension": dimension,
            "colour": "bgr",
            "mean": 127.5,
            "scale": 128.0,
            "min_norm": round(1.9 * (dimension / 512) ** 0.5, 3),
        },
        "threshold": 0.35,
    }
    (folder / "faceward-pack.json").write_text(json.dumps(manifest))
    return folder


def home_with(home: Path, pack: ModelPack, own: Path) -> Path:
    """A home of a test's own, with the default pack and all models that were compiled before."""
    (own / "packs").mkdir(parents=True)
    (own / "packs" / pack.name).symlink_to(PackStore(home).directory(pack.name))
    (home / "compiled").mkdir(exist_ok=True)
    (own / "compiled").symlink_to(home / "compiled")
    return own
