"""From what a caller sends to BGR pixels: bounded reading, EXIF orientation, and a reduced decode of large JPEGs."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, BinaryIO, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from faceward.errors import (
    DamagedImageError,
    ImageError,
    ImageNotFoundError,
    ImageTooLargeError,
    InvalidValueError,
    NotAnImageError,
)
from faceward.types import BGRImage, ImageSource, NamedImage
from faceward.vision.image_headers import ImageHeader, read_header

_MOST_SHOWN = 300  # characters of a path: what is longer may be an image as a text
_REDUCED: Final = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may cost. max_bytes: encoded size. max_pixels: width x height before any reduction.

    enough_pixels: a JPEG is decoded at half or a quarter of its scale where its longer side stays at least this long.
    Raises InvalidValueError where a value is below 1.
    """

    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 80_000_000
    enough_pixels: int = 1600

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "enough_pixels"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidValueError(name, value, "a whole number of at least 1")


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """An upright image.

    pixels: BGR uint8. size: width and height in pixels of the original, upright. scale: pixels of `pixels` for one
    pixel of the original, 1.0 unless the decode was reduced. encoded: the bytes that arrived, None for an array.
    """

    pixels: BGRImage = field(repr=False)
    size: tuple[int, int]
    scale: float = 1.0
    encoded: bytes | None = field(default=None, repr=False)

    @cached_property
    def sha256(self) -> bytes:
        """SHA-256 of the encoded bytes; for an array, of its shape and pixels. 32 bytes."""
        if self.encoded is not None:
            return hashlib.sha256(self.encoded).digest()
        digest = hashlib.sha256(repr(self.pixels.shape).encode())
        digest.update(np.ascontiguousarray(self.pixels).data)
        return digest.digest()

    def at_full_scale(self) -> DecodedImage:
        """The same image decoded without reduction; itself where it was not reduced."""
        if self.scale == 1.0 or self.encoded is None:
            return self
        return _decode(self.encoded, read_header(self.encoded), 1)


def decode_image(source: ImageSource, limits: ImageLimits | None = None) -> DecodedImage:
    """Read and decode an image: a path, encoded bytes, an open binary file, or an array.

    Bytes and files: JPEG, PNG, WebP or BMP; the EXIF orientation is applied; alpha is dropped, grey becomes BGR,
    16 bits become 8. Arrays: uint8 of shape (h, w), (h, w, 1), (h, w, 3) in BGR order or (h, w, 4) in BGRA order; an array
    of any other shape or dtype is refused, for nobody can know the range of its values.

    Raises ImageNotFoundError, NotAnImageError, DamagedImageError and ImageTooLargeError.
    """
    limits = limits or ImageLimits()
    if isinstance(source, NamedImage):
        source = source.data
    if isinstance(source, np.ndarray):
        return _from_array(source, limits)
    if isinstance(source, (bytes, bytearray, memoryview)):
        if len(source) > limits.max_bytes:
            raise _too_many_bytes("The image", limits)
        encoded = bytes(source)
    elif isinstance(source, (str, os.PathLike)):
        encoded = read_image_file(source, limits.max_bytes)
        try:
            return _from_encoded(encoded, limits)
        except ImageError as exc:
            raise type(exc)(f"{os.fspath(source)}: {exc}") from exc
    else:
        encoded = _read_open_file(source, limits)
    return _from_encoded(encoded, limits)


def _from_encoded(encoded: bytes, limits: ImageLimits) -> DecodedImage:
    header = read_header(encoded)
    if header.width * header.height > limits.max_pixels:
        raise _too_many_pixels(header.width, header.height, limits)
    reduction = 1
    if header.format == "JPEG":
        longer = max(header.width, header.height)
        reduction = next((factor for factor in (4, 2) if longer >= factor * limits.enough_pixels), 1)
    return _decode(encoded, header, reduction)


def read_image_file(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """The bytes of an image file. Reads at most max_bytes + 1; never waits for a pipe or a device.

    Raises ImageNotFoundError and ImageTooLargeError.
    """
    shown = _shown(path)
    try:
        with open(path, "rb", buffering=0, opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ImageNotFoundError(f"{shown} is not a file: give the path of an image file.")
            data = _read_bounded(file, max_bytes)
    except FileNotFoundError as exc:
        raise ImageNotFoundError(f"There is no image file at {shown}.") from exc
    except OSError as exc:
        if exc.errno == errno.ENAMETOOLONG:
            raise ImageNotFoundError(
                f"{shown} is too long for the path of an image. An image that is written as a text (base64) is not read."
            ) from exc
        raise ImageNotFoundError(f"The image file {shown} can't be read: {exc.strerror}.") from exc
    except ValueError as exc:  # a null character
        raise ImageNotFoundError(f"{shown!r} is no path of a file: {exc}.") from exc
    if len(data) > max_bytes:
        raise ImageTooLargeError(f"{shown} holds more than {max_bytes:,} bytes, the limit. Send a smaller image.")
    return data


def _shown(path: str | os.PathLike[str]) -> str:
    text = str(os.fspath(path))
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _open_at_once(path: str, flags: int) -> int:
    # A pipe without a writer would block for ever.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_open_file(file: BinaryIO, limits: ImageLimits) -> bytes:
    try:
        data = _read_bounded(file, limits.max_bytes)
    except (OSError, ValueError) as exc:
        raise ImageNotFoundError(f"The open image file can't be read: {exc}.") from exc
    except (AttributeError, TypeError) as exc:
        raise NotAnImageError(
            f"A {type(file).__name__} can't be read as an image. "
            "Send a path, bytes, an open binary file or a uint8 array in BGR order."
        ) from exc
    if len(data) > limits.max_bytes:
        raise _too_many_bytes("The open image file", limits)
    return data


def _read_bounded(file: BinaryIO | Any, max_bytes: int) -> bytes:
    """Read to the end or to one byte past the limit; a read may return less than it was asked for."""
    parts: list[bytes] = []
    missing = max_bytes + 1
    while missing > 0:
        part = file.read(missing)
        if not part:
            break
        if not isinstance(part, bytes):
            raise TypeError(f"read() returned {type(part).__name__}, not bytes")
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _decode(encoded: bytes, header: ImageHeader, reduction: int) -> DecodedImage:
    flags = _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        stored = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error as exc:
        raise DamagedImageError(f"The image ({len(encoded)} bytes) can't be decoded: {exc.err}.") from exc
    if stored is None:
        raise DamagedImageError(f"The image ({len(encoded)} bytes) can't be decoded: its data is damaged.")
    # The limit was held against the header: what the decoder takes for the picture must be the same one.
    if stored.shape[:2] != (-(-header.height // reduction), -(-header.width // reduction)):
        raise DamagedImageError(
            f"The {header.format} header gives a size of {header.width} x {header.height} pixels, but the picture has another."
        )
    size = (header.height, header.width) if header.orientation >= 5 else (header.width, header.height)
    return DecodedImage(_turn_upright(stored, header.orientation), size, 1.0 / reduction, encoded)


def _turn_upright(pixels: NDArray[Any], orientation: int) -> BGRImage:
    """Apply an EXIF orientation: 2 to 4 mirror or turn by half, 5 to 8 exchange the axes."""
    if orientation == 1:
        return np.asarray(pixels, np.uint8)
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return np.asarray(pixels if flip is None else cv2.flip(pixels, flip), np.uint8)


def _from_array(array: NDArray[Any], limits: ImageLimits) -> DecodedImage:
    if array.dtype != np.uint8:
        raise NotAnImageError(
            f"The image array has the dtype {array.dtype}: it must be uint8, values 0 to 255, in BGR order. "
            "Scale and convert it first, as in (255 * image).astype(numpy.uint8) for values 0 to 1."
        )
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or array.size == 0:
        raise NotAnImageError(
            f"The image array has the shape {array.shape}: it must be (height, width), or (height, width, channels) "
            "with 1, 3 (BGR) or 4 (BGRA) channels, and not empty."
        )
    height, width = array.shape[:2]
    if height * width > limits.max_pixels:
        raise _too_many_pixels(width, height, limits)
    pixels = np.ascontiguousarray(array)
    if channels == 1:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    elif channels == 4:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2BGR)
    return DecodedImage(pixels, (width, height))


def _too_many_bytes(what: str, limits: ImageLimits) -> ImageTooLargeError:
    return ImageTooLargeError(f"{what} holds more than {limits.max_bytes:,} bytes, the limit. Send a smaller image.")


def _too_many_pixels(width: int, height: int, limits: ImageLimits) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"The image has {width} x {height} = {width * height:,} pixels; the limit is {limits.max_pixels:,}. "
        "Send a smaller image."
    )
