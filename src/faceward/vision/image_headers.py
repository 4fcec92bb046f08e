"""Reads size, format and EXIF orientation of an image from its structure, before any pixel is decoded.

The size is what a decompression bomb announces, so it must be known before a decoder allocates memory for it. JPEG,
PNG, WebP and BMP are known; whatever else arrives is refused and never reaches a decoder. Nor does a file that a decoder
might read as another picture than is read here, or that makes it work far beyond its pixels: the structure is followed to
the picture's end as libjpeg, libpng and libwebp follow it, and only what photos are made of is let through.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from faceward.errors import DamagedImageError, NotAnImageError

ImageFormat: TypeAlias = Literal["JPEG", "PNG", "WebP", "BMP"]

_ORIENTATION_TAG = 0x0112
_MOST_SCANS = 100
"""A progressive JPEG of ordinary software has about ten scans; each costs a pass over all pixels."""
_MOST_PARTS = 20_000
"""Segments or chunks; a photo has tens, and a large PNG some thousands."""
_MOST_DEFLATED = 16
"""Texts and colour profiles of a PNG; libpng inflates each of them to as much as 8 MB, and keeps it."""
_FRAME_MARKERS = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive. Lossless, hierarchical and arithmetic JPEGs are no photos of a camera."""
_OTHER_MARKERS = frozenset({0xC4, 0xDA, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE})
"""Tables, scans, the number of lines, the restart interval, applications' data and comments."""
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_WEBP_ANIMATION = 0x02
_BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})


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
    end too early, contradict themselves, or hold what no decoder should be given.
    """
    try:
        header = _READERS[image_format(data)](data)
    except (struct.error, IndexError) as exc:
        raise DamagedImageError(f"The image ends early, after {len(data)} bytes.") from exc
    if header.width <= 0 or header.height <= 0:
        raise DamagedImageError(f"The {header.format} header gives a size of {header.width} x {header.height} pixels.")
    return header


def image_format(data: bytes) -> ImageFormat:
    """The format that the first bytes announce, whatever follows. Raises NotAnImageError."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data.startswith(b"BM"):
        return "BMP"
    raise NotAnImageError(_refusal(data))


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


def _animated(name: str) -> DamagedImageError:
    return DamagedImageError(f"The {name} is an animation. Send one picture.")


def _read_jpeg(data: bytes) -> ImageHeader:
    size: tuple[int, int] | None = None
    position, orientation, scans = 2, 1, 0
    for _ in range(_MOST_PARTS):
        if data[position] != 0xFF:
            raise _damaged("JPEG", f"no marker at byte {position}")
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        position += 2
        if marker == 0xD9 and size is not None and scans:
            return ImageHeader("JPEG", *size, orientation)
        if marker not in _FRAME_MARKERS and marker not in _OTHER_MARKERS:
            raise _damaged("JPEG", f"the marker {marker:#04x} at byte {position - 2} has no place there")
        (length,) = struct.unpack_from(">H", data, position)
        if length < 2:
            raise _damaged("JPEG", f"a segment of {length} bytes at byte {position}")
        if marker in _FRAME_MARKERS:
            if size is not None:
                raise _damaged("JPEG", "it holds two frames")
            size = _frame_size(data, position, length)
        elif marker == 0xE1 and data[position + 2 : position + 8] == b"Exif\0\0":
            orientation = exif_orientation(data[position + 8 : position + length])
        position += length
        if marker == 0xDA:
            scans += 1
            if size is None:
                raise _damaged("JPEG", "no frame before its first scan")
            if scans > _MOST_SCANS:
                raise _damaged("JPEG", f"it has more than {_MOST_SCANS} scans")
            # In a scan a marker is a restart, or ends it; behind the last one it is the picture's end.
            end = _END_OF_SCAN.search(data, position)
            if end is None:
                raise _damaged("JPEG", f"it ends early, after {len(data)} bytes")
            position = end.start()
    raise _damaged("JPEG", f"no end of the picture within {_MOST_PARTS} segments")


def _frame_size(data: bytes, position: int, length: int) -> tuple[int, int]:
    _, height, width, components = struct.unpack_from(">BHHB", data, position + 2)
    if components not in (1, 3, 4) or length != 8 + 3 * components:
        raise _damaged("JPEG", f"a frame of {components} components in {length} bytes")
    return width, height


def _read_png(data: bytes) -> ImageHeader:
    size: tuple[int, int] | None = None
    position, orientation, deflated, pictured = 8, 1, 0, False
    for _ in range(_MOST_PARTS):
        length, kind = struct.unpack_from(">I4s", data, position)
        body = position + 8
        if body + length + 4 > len(data):
            break
        if size is None:
            if kind != b"IHDR" or length != 13:
                raise _damaged("PNG", "its first chunk is not IHDR")
            size = struct.unpack_from(">II", data, body)
        elif kind == b"IHDR":
            raise _damaged("PNG", "it holds two headers")
        elif kind == b"acTL":
            raise _animated("PNG")
        elif kind in (b"zTXt", b"iTXt", b"iCCP"):
            deflated += 1
            if deflated > _MOST_DEFLATED:
                raise _damaged("PNG", f"it holds more than {_MOST_DEFLATED} compressed texts and profiles")
        elif kind == b"eXIf":
            orientation = exif_orientation(data[body : body + length])
        elif kind == b"IDAT":
            pictured = True
        elif kind == b"IEND":
            if not pictured:
                raise _damaged("PNG", "it holds no picture")
            return ImageHeader("PNG", *size, orientation)
        position = body + length + 4
    raise _damaged("PNG", f"it ends early, after {len(data)} bytes")


def _read_webp(data: bytes) -> ImageHeader:
    (riff_length,) = struct.unpack_from("<I", data, 4)
    if riff_length + 8 > len(data):
        raise _damaged("WebP", f"it ends early, after {len(data)} of {riff_length + 8} bytes")
    canvas: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    end, position, orientation = riff_length + 8, 12, 1
    for _ in range(_MOST_PARTS):
        if position + 8 > end:
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        body = position + 8
        if body + length > end:
            raise _damaged("WebP", f"a chunk of {length} bytes at byte {position}, beyond its end")
        # libwebp takes the size from the first chunk, whatever comes later.
        if position == 12 and kind not in (b"VP8X", b"VP8 ", b"VP8L"):
            raise _damaged("WebP", f"its first chunk is {kind!r}")
        if kind == b"VP8X":
            if position != 12 or length != 10:
                raise _damaged("WebP", f"a header of {length} bytes at byte {position}")
            if data[body] & _WEBP_ANIMATION:
                raise _animated("WebP")
            width, height = (int.from_bytes(data[start : start + 3], "little") for start in (body + 4, body + 7))
            canvas = (1 + width, 1 + height)
        elif kind in (b"VP8 ", b"VP8L"):
            if size is not None:
                raise _damaged("WebP", "it holds two pictures")
            size = _webp_picture_size(data, kind, body)
        elif kind == b"EXIF":
            orientation = exif_orientation(data[body : body + length].removeprefix(b"Exif\0\0"))
        position = body + length + (length & 1)
    if size is None:
        raise _damaged("WebP", "it holds no picture")
    if canvas not in (None, size):
        raise _damaged("WebP", f"its picture has {size[0]} x {size[1]} pixels, and its header says another size")
    return ImageHeader("WebP", *size, orientation)


def _webp_picture_size(data: bytes, kind: bytes, body: int) -> tuple[int, int]:
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, body + 6)
        return width & 0x3FFF, height & 0x3FFF
    (bits,) = struct.unpack_from("<I", data, body + 1)
    return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1


def _read_bmp(data: bytes) -> ImageHeader:
    offset, header_length = struct.unpack_from("<II", data, 10)
    if header_length == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    elif header_length in _BMP_HEADERS:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    else:
        raise _damaged("BMP", f"an information header of {header_length} bytes")
    height = abs(height)  # negative where the rows run downward
    if compression in (0, 3) and offset + (width * bits + 31) // 32 * 4 * height > len(data):
        raise _damaged("BMP", f"it ends early, after {len(data)} bytes")
    return ImageHeader("BMP", width, height)


_READERS: Final[Mapping[ImageFormat, Callable[[bytes], ImageHeader]]] = {
    "JPEG": _read_jpeg,
    "PNG": _read_png,
    "WebP": _read_webp,
    "BMP": _read_bmp,
}


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
