"""Reads size, format and EXIF orientation from the first bytes of an image, before any pixel is decoded.

The size is what a decompression bomb announces, so it must be known before a decoder allocates memory for it. JPEG,
PNG, WebP and BMP are known; whatever else arrives is refused and never reaches a decoder.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal, TypeAlias

from faceward.errors import DamagedImageError, NotAnImageError

ImageFormat: TypeAlias = Literal["JPEG", "PNG", "WebP", "BMP"]

_ORIENTATION_TAG = 0x0112
_MOST_SCANS = 100
"""A progressive JPEG of ordinary software has about ten scans; each costs a pass over all pixels."""
_MOST_PARTS = 20_000
"""Segments or chunks; a photo has tens, and a large PNG some thousands."""
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_MARKERS_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """format, width and height in pixels as stored, and the EXIF orientation (1 to 8; 1 means upright)."""

    format: ImageFormat
    width: int
    height: int
    orientation: int = 1


def read_header(data: bytes) -> ImageHeader:
    """Return the header of an encoded image.

    Raises NotAnImageError where the bytes begin like none of the four formats, and DamagedImageError where they do, but
    end too early or contradict themselves.
    """
    try:
        if data.startswith(b"\xff\xd8\xff"):
            header = _read_jpeg(data)
        elif data.startswith(b"\x89PNG\r\n\x1a\n"):
            header = _read_png(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            header = _read_webp(data)
        elif data.startswith(b"BM"):
            header = _read_bmp(data)
        else:
            raise NotAnImageError(_refusal(data))
    except (struct.error, IndexError) as exc:
        raise DamagedImageError(f"The image ends within its header, after {len(data)} bytes.") from exc
    if header.width <= 0 or header.height <= 0:
        raise DamagedImageError(f"The {header.format} header gives a size of {header.width} x {header.height} pixels.")
    return header


def _refusal(data: bytes) -> str:
    if not data:
        return "The image is empty (0 bytes). Send a JPEG, PNG, WebP or BMP."
    kind = "is of no known image format"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        kind = "is a GIF"
    elif data[:4] in (b"II*\0", b"MM\0*"):
        kind = "is a TIFF"
    elif data[4:8] == b"ftyp":
        kind = "is a HEIC, AVIF or video file"
    elif data[:5] == b"%PDF-":
        kind = "is a PDF"
    return f"The data ({len(data)} bytes) {kind}. Send a JPEG, PNG, WebP or BMP."


def _damaged(name: str, what: str) -> DamagedImageError:
    return DamagedImageError(f"The {name} is damaged: {what}.")


def _read_jpeg(data: bytes) -> ImageHeader:
    size: tuple[int, int] | None = None
    position, orientation, progressive = 2, 1, False
    for _ in range(_MOST_PARTS):
        if data[position] != 0xFF:
            raise _damaged("JPEG", f"no marker at byte {position}")
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        position += 2
        if marker in _MARKERS_WITHOUT_LENGTH:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        if length < 2 or marker == 0xD9:
            raise _damaged("JPEG", f"no picture, but marker {marker:#x} at byte {position}")
        if marker in _FRAME_MARKERS and size is None:
            height, width = struct.unpack_from(">HH", data, position + 3)
            size, progressive = (width, height), marker in _PROGRESSIVE
        elif marker == 0xE1 and data[position + 2 : position + 8] == b"Exif\0\0":
            orientation = exif_orientation(data[position + 8 : position + length])
        elif marker == 0xDA:
            break
        position += length
    if size is None:
        raise _damaged("JPEG", "no frame before its first scan")
    # Entropy-coded data can't hold the end marker, so it is absent exactly where the picture was cut short.
    if data.find(b"\xff\xd9", position) < 0:
        raise _damaged("JPEG", f"it ends early, after {len(data)} bytes")
    if progressive and data.count(b"\xff\xda", position) > _MOST_SCANS:
        raise _damaged("JPEG", f"it has more than {_MOST_SCANS} scans")
    return ImageHeader("JPEG", *size, orientation)


def _read_png(data: bytes) -> ImageHeader:
    if data[12:16] != b"IHDR":
        raise _damaged("PNG", "its first chunk is not IHDR")
    width, height = struct.unpack_from(">II", data, 16)
    position, orientation = 8, 1
    for _ in range(_MOST_PARTS):
        length, kind = struct.unpack_from(">I4s", data, position)
        if position + 12 + length > len(data):
            break
        if kind == b"eXIf":
            orientation = exif_orientation(data[position + 8 : position + 8 + length])
        elif kind == b"IEND":
            return ImageHeader("PNG", width, height, orientation)
        position += 12 + length
    raise _damaged("PNG", f"it ends early, after {len(data)} bytes")


def _read_webp(data: bytes) -> ImageHeader:
    (riff_length,) = struct.unpack_from("<I", data, 4)
    if riff_length + 8 > len(data):
        raise _damaged("WebP", f"it ends early, after {len(data)} of {riff_length + 8} bytes")
    size: tuple[int, int] | None = None
    end, position, orientation = riff_length + 8, 12, 1
    for _ in range(_MOST_PARTS):
        if position + 8 > end:
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        body = position + 8
        if kind == b"VP8X":
            width, height = (int.from_bytes(data[start : start + 3], "little") for start in (body + 4, body + 7))
            size = (1 + width, 1 + height)
        elif kind == b"VP8 " and size is None:
            width, height = struct.unpack_from("<HH", data, body + 6)
            size = (width & 0x3FFF, height & 0x3FFF)
        elif kind == b"VP8L" and size is None:
            (bits,) = struct.unpack_from("<I", data, body + 1)
            size = ((bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1)
        elif kind == b"EXIF":
            orientation = exif_orientation(data[body : body + length].removeprefix(b"Exif\0\0"))
        position = body + length + (length & 1)
    if size is None:
        raise _damaged("WebP", "it holds no picture")
    return ImageHeader("WebP", *size, orientation)


def _read_bmp(data: bytes) -> ImageHeader:
    offset, header_length = struct.unpack_from("<II", data, 10)
    if header_length == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    elif header_length >= 40:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    else:
        raise _damaged("BMP", f"an information header of {header_length} bytes")
    height = abs(height)  # negative where the rows run downward
    if compression in (0, 3) and offset + (width * bits + 31) // 32 * 4 * height > len(data):
        raise _damaged("BMP", f"it ends early, after {len(data)} bytes")
    return ImageHeader("BMP", width, height)


def exif_orientation(tiff: bytes) -> int:
    """The orientation (1 to 8) in the first directory of an EXIF block, a small TIFF file; 1 where there is none.

    A block that can't be read says nothing about the picture, which is then taken as upright.
    """
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    (directory,) = struct.unpack_from(order + "I", tiff, 4)
    if directory + 2 > len(tiff):
        return 1
    (entries,) = struct.unpack_from(order + "H", tiff, directory)
    for index in range(entries):
        entry = directory + 2 + 12 * index
        if entry + 12 > len(tiff):
            return 1
        tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
        if tag == _ORIENTATION_TAG:
            return int(value) if kind == 3 and 1 <= value <= 8 else 1
    return 1
