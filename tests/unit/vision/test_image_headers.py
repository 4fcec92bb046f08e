from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from faceward.errors import DamagedImageError, ImageError, NotAnImageError
from faceward.vision.image_headers import exif_orientation, read_header


def encoded(kind: str, size: tuple[int, int] = (37, 23), orientation: int | None = None, **options: object) -> bytes:
    out = io.BytesIO()
    image = Image.new(str(options.pop("mode", "RGB")), size)
    if orientation is not None:
        exif = Image.Exif()
        exif[0x010F] = "a camera"
        exif[0x0112] = orientation
        options["exif"] = exif
    image.save(out, kind, **options)
    return out.getvalue()


KINDS = ["JPEG", "PNG", "WEBP", "BMP"]


@given(
    kind=st.sampled_from(KINDS),
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    mode=st.sampled_from(["RGB", "L"]),
)
def test_size_is_what_pillow_wrote(kind: str, width: int, height: int, mode: str) -> None:
    header = read_header(encoded(kind, (width, height), mode=mode))
    assert (header.width, header.height, header.orientation) == (width, height, 1)


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 50}, {"mode": "RGBA", "quality": 50}])
def test_every_kind_of_webp(options: dict[str, object]) -> None:
    header = read_header(encoded("WEBP", (301, 17), **options))
    assert (header.format, header.width, header.height) == ("WebP", 301, 17)


def test_progressive_jpeg() -> None:
    header = read_header(encoded("JPEG", progressive=True))
    assert (header.format, header.width, header.height) == ("JPEG", 37, 23)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read(kind: str, orientation: int) -> None:
    assert read_header(encoded(kind, orientation=orientation)).orientation == orientation


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("value", "read"), [(6, 6), (0, 1), (9, 1)])
def test_exif_in_both_byte_orders(order: str, value: int, read: int) -> None:
    start = b"II*\0" if order == "<" else b"MM\0*"
    block = start + struct.pack(order + "IHHHIHH", 8, 1, 0x0112, 3, 1, value, 0)
    assert exif_orientation(block) == read


@given(st.binary(max_size=200), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_any_exif_block_is_survived(noise: bytes, start: bytes) -> None:
    assert 1 <= exif_orientation(start + noise) <= 8


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "0 bytes"),
        (b"hello, this is text", "no known image format"),
        (b"GIF89a" + bytes(30), "GIF"),
        (b"II*\0" + bytes(30), "TIFF"),
        (b"\0\0\0\x18ftypheic" + bytes(30), "HEIC"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_other_formats_are_named(data: bytes, named: str) -> None:
    with pytest.raises(NotAnImageError, match=named):
        read_header(data)


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation_is_refused(kind: str) -> None:
    data = encoded(kind, (64, 48))
    assert read_header(data)
    for length in range(1, len(data) - 1):
        with pytest.raises(ImageError):
            read_header(data[:length])


@given(st.sampled_from([encoded(kind) for kind in KINDS]), st.data())
def test_a_damaged_header_gives_a_size_or_an_error_of_ours(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 8))):
        damaged[draw.draw(st.integers(2, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        header = read_header(bytes(damaged))
    except ImageError:
        return
    assert header.width > 0
    assert header.height > 0


def test_a_size_of_zero_is_refused() -> None:
    data = bytearray(encoded("PNG"))
    data[16:20] = bytes(4)
    with pytest.raises(DamagedImageError, match="0 x 23"):
        read_header(bytes(data))


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = encoded("JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    bomb = data[:scan] + data[scan:-2] * 200 + data[-2:]
    with pytest.raises(DamagedImageError, match="more than 100 scans"):
        read_header(bomb)


@pytest.mark.parametrize("filler", [b"\xff", b"\xff\xfe\x00\x02", b"\xff\x01"])
def test_a_header_without_end_is_refused(filler: bytes) -> None:
    with pytest.raises(DamagedImageError):
        read_header(b"\xff\xd8\xff\xfe\x00\x02" + filler * 1_000_000)
