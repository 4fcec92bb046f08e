from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from faceward.errors import (
    DamagedImageError,
    ImageError,
    ImageNotFoundError,
    ImageTooLargeError,
    InvalidValueError,
    NotAnImageError,
)
from faceward.vision.image_headers import ImageHeader
from faceward.vision.images import ImageLimits, decode_image, read_image_file


def picture(width: int = 64, height: int = 48) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A smooth picture whose corners differ, so that every turn of it is another picture. BGR."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8)


def encode(kind: str, pixels: np.ndarray[Any, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    order = pixels[:, :, ::-1] if pixels.ndim == 3 and pixels.shape[2] == 3 else pixels
    Image.fromarray(np.ascontiguousarray(order)).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_every_format_from_every_source(kind: str, tmp_path: Path) -> None:
    data = encode(kind, picture())
    path = tmp_path / "photo"
    path.write_bytes(data)
    for source in (path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), path.open("rb")):
        image = decode_image(source)
        if isinstance(source, io.IOBase):
            source.close()
        assert image.size == (64, 48)
        assert image.scale == 1.0
        assert image.pixels.dtype == np.uint8
        assert np.abs(image.pixels.astype(int) - picture()).mean() < 4
        assert image.encoded == data
        assert image.sha256 == hashlib.sha256(data).digest()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_pillow_does(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(kind, picture(), exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))[:, :, ::-1]
    image = decode_image(data)
    assert image.size == (upright.shape[1], upright.shape[0])
    assert np.abs(image.pixels.astype(int) - upright).mean() < 2


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "JPEG"), ("CMYK", "JPEG"), ("L", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("1", "PNG")],
)
def test_other_colour_modes_become_bgr(mode: str, kind: str) -> None:
    out = io.BytesIO()
    Image.fromarray(np.full((20, 30, 3), 255, np.uint8)).convert(mode).save(out, kind)
    image = decode_image(out.getvalue())
    assert image.pixels.shape == (20, 30, 3)
    assert image.pixels.min() > 250


def test_sixteen_bits_become_eight() -> None:
    data = cv2.imencode(".png", np.full((8, 9, 3), 0x8000, np.uint16))[1].tobytes()
    assert decode_image(data).pixels[0, 0].tolist() == [128, 128, 128]


@pytest.mark.parametrize(("width", "factor"), [(1600, 1), (3199, 1), (3200, 2), (4000, 2), (6400, 4), (9000, 4)])
def test_a_large_jpeg_is_decoded_at_a_reduced_scale(width: int, factor: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode("JPEG", picture(width, 40), exif=exif)
    image = decode_image(data)
    assert image.size == (40, width)
    assert image.scale == 1 / factor
    assert image.pixels.shape[0] == -(-width // factor)
    full = image.at_full_scale()
    assert full.scale == 1.0
    assert full.size == image.size
    assert full.pixels.shape == (width, 40, 3)
    assert full.sha256 == image.sha256
    assert (full is image) == (factor == 1)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_arrays_of_bytes_are_taken(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    image = decode_image(array)
    assert image.pixels.shape == (5, 7, 3)
    assert image.encoded is None
    expected = array[..., :3] if shape[-1] in (3, 4) and len(shape) == 3 else np.repeat(array.reshape(5, 7, 1), 3, 2)
    assert np.array_equal(image.pixels, expected)


def test_a_view_of_an_array_is_taken() -> None:
    array = picture()
    assert np.array_equal(decode_image(array[::2, ::-1]).pixels, array[::2, ::-1])


def test_the_digest_of_an_array_tells_shapes_and_pixels_apart() -> None:
    one = np.zeros((4, 6, 3), np.uint8)
    other = one.copy()
    other[0, 0, 0] = 1
    digests = {decode_image(array).sha256 for array in (one, other, one.reshape(6, 4, 3))}
    assert len(digests) == 3
    assert decode_image(one).sha256 == decode_image(one.copy()).sha256


@pytest.mark.parametrize(
    ("array", "named"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 3), np.uint16), "uint16"),
        (np.zeros((4, 4), bool), "bool"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (np.zeros(16, np.uint8), r"\(16,\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"\(1, 4, 4, 3\)"),
    ],
)
def test_other_arrays_are_refused_by_what_is_wrong(array: np.ndarray[Any, Any], named: str) -> None:
    with pytest.raises(NotAnImageError, match=named):
        decode_image(array)


@pytest.mark.parametrize("source", [None, 7, [1, 2], io.StringIO("text"), Image.new("RGB", (4, 4))])
def test_other_things_are_refused(source: Any) -> None:
    with pytest.raises(NotAnImageError, match=type(source).__name__):
        decode_image(source)


def test_a_path_without_a_file() -> None:
    with pytest.raises(ImageNotFoundError, match=r"no image file at /nowhere/alice\.jpg"):
        decode_image("/nowhere/alice.jpg")


def test_a_path_with_a_null_character() -> None:
    with pytest.raises(ImageNotFoundError, match="null"):
        decode_image("a\0b.jpg")


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFoundError, match="directory"):
        decode_image(tmp_path)


def test_a_pipe_without_a_writer_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageNotFoundError, match="is not a file"):
        decode_image(tmp_path / "pipe")


def test_a_closed_file() -> None:
    file = io.BytesIO(b"")
    file.close()
    with pytest.raises(ImageNotFoundError, match="closed"):
        decode_image(file)


class Endless(io.RawIOBase):
    """A file that never ends and gives little at a time."""

    taken = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        assert size > 0, "an unbounded read"
        self.taken += min(size, 100)
        return bytes(min(size, 100))


def test_no_more_is_read_than_the_limit(tmp_path: Path) -> None:
    endless = Endless()
    with pytest.raises(ImageTooLargeError, match="1,000 bytes"):
        decode_image(endless, ImageLimits(max_bytes=1000))
    assert endless.taken == 1001
    path = tmp_path / "large.jpg"
    path.write_bytes(bytes(1001))
    with pytest.raises(ImageTooLargeError, match=r"large\.jpg holds more than 1,000 bytes"):
        read_image_file(path, 1000)
    with pytest.raises(ImageTooLargeError):
        decode_image(bytes(1001), ImageLimits(max_bytes=1000))
    path.write_bytes(bytes(1000))
    assert len(read_image_file(path, 1000)) == 1000


@pytest.mark.parametrize(
    ("length", "said"), [(2_000, "There is no image file at AAAA"), (20_000, "too long for the path of an image")]
)
def test_a_path_as_long_as_an_image_is_not_written_out(length: int, said: str) -> None:
    with pytest.raises(ImageNotFoundError, match=said) as told:
        read_image_file("/".join(["A" * 99] * (length // 100)), 1000)
    assert len(str(told.value)) < 500


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    with pytest.raises(ImageTooLargeError, match="60000 x 60000 = 3,600,000,000 pixels"):
        decode_image(bomb)
    with pytest.raises(ImageTooLargeError, match="limit is 100"):
        decode_image(np.zeros((11, 10, 3), np.uint8), ImageLimits(max_pixels=100))


@pytest.mark.parametrize(("read", "width"), [((63, 48), 64), ((64, 49), 64), ((48, 64), 64), ((3201, 48), 3204)])
def test_a_picture_of_another_size_than_its_header_says_is_refused(
    monkeypatch: pytest.MonkeyPatch, read: tuple[int, int], width: int
) -> None:
    monkeypatch.setattr("faceward.vision.images.read_header", lambda _: ImageHeader("JPEG", *read))
    with pytest.raises(DamagedImageError, match=f"{read[0]} x {read[1]} pixels, but the picture has another"):
        decode_image(encode("JPEG", picture(width, 48)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_truncated_image_is_refused(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    data = encode(kind, noise)
    for part in (0.1, 0.5, 0.9, 0.99):
        with pytest.raises(DamagedImageError):
            decode_image(data[: int(part * len(data))])


@given(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP"]), st.data())
def test_damage_gives_pixels_or_an_error_of_ours(kind: str, draw: st.DataObject) -> None:
    data = bytearray(encode(kind, picture(16, 12)))
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        image = decode_image(bytes(data), ImageLimits(max_pixels=1_000_000))
    except ImageError:
        return
    assert image.pixels.ndim == 3


@given(st.binary(max_size=300))
def test_any_bytes_give_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode_image(data)


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels", "enough_pixels"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_limits_are_checked(name: str, value: Any) -> None:
    with pytest.raises(InvalidValueError, match=name):
        ImageLimits(**{name: value})
