"""Rows of the import's temporary table as binary COPY takes them, made in blocks: many times faster than row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from struct import Struct
from typing import Protocol

from faceward.store.boxes import box_text, crop_text
from faceward.store.photo_vault import Sealed
from faceward.types import Embedding, NewFace

# toast_tuple_target: else each embedding would be written out of line, and read back.
STAGING = """
CREATE TEMPORARY TABLE import_staging (
    position integer, region varchar(50), external_id varchar(255), name varchar(255), description text, embedding vector,
    image_path varchar(500), image_data bytea, image_key_id varchar(100), image_box varchar(100), image_sha256 bytea,
    face_bbox varchar(100), confidence real, quality_score real
) WITH (toast_tuple_target = 8160) ON COMMIT DROP
"""
COPY = "COPY import_staging FROM STDIN (FORMAT BINARY)"

_BLOCK_BYTES = 96 * 1024  # above 128 kB psycopg copies a block once more, and each is new memory from the system
_SIGNATURE = b"PGCOPY\n\xff\r\n\x00" + bytes(8)  # no flags, no extension
_END = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_LENGTH = Struct(">i")
_POSITION = Struct(">hii")  # the number of fields, then an integer with its length
_VECTOR = Struct(">ihh")  # length, dimension, unused
_REAL = Struct(">if")
_FIELDS = 14
_NOTHING_ELSE = 8 * _NULL


class Owner(Protocol):
    """Whom a face belongs to."""

    @property
    def region(self) -> str: ...
    @property
    def external_id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str | None: ...


def copy_blocks(
    rows: Iterable[tuple[Owner, Embedding | NewFace]], seal: Callable[[NewFace], Sealed | None]
) -> Iterator[bytes]:
    """What COPY reads, in blocks of some 100 kB. The faces of one person follow each other. seal: what is stored of a
    face's photo.
    """
    parts = [_SIGNATURE]
    size = 0
    last: Owner | None = None
    region = whose = b""
    for position, (person, face) in enumerate(rows):
        if person is not last:
            if last is None or person.region != last.region:
                region = _text(person.region)
            last = person
            whose = region + _text(person.external_id) + _text(person.name) + _text(person.description)
        embedding = face.embedding if isinstance(face, NewFace) else face
        vector = embedding.astype(">f4").tobytes()
        length = len(vector)
        size += length
        parts += (_POSITION.pack(_FIELDS, 4, position), whose, _VECTOR.pack(4 + length, length // 4, 0), vector)
        if isinstance(face, NewFace):
            parts += _rest(face, seal(face))
            size += len(face.image_data or b"")
        else:
            parts.append(_NOTHING_ELSE)
        if size >= _BLOCK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    parts.append(_END)
    yield b"".join(parts)


def _rest(face: NewFace, photo: Sealed | None) -> tuple[bytes, ...]:
    return (
        _text(face.image_path),
        _bytes(None if photo is None else photo.data),
        _text(None if photo is None else photo.key_id),
        _text(crop_text(face.image_crop)),
        _bytes(face.image_sha256),
        _text(box_text(face.box)),
        _real(face.confidence),
        _real(face.quality),
    )


def _text(value: str | None) -> bytes:
    if value is None:
        return _NULL
    encoded = value.encode()
    return _LENGTH.pack(len(encoded)) + encoded


def _bytes(value: bytes | None) -> bytes:
    return _NULL if value is None else _LENGTH.pack(len(value)) + value


def _real(value: float | None) -> bytes:
    return _NULL if value is None else _REAL.pack(4, value)
