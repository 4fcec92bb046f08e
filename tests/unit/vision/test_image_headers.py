from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from faceward.errors import DamagedImageError, ImageError, NotAnImageError
from faceward.vision.image_headers import exif_orientation, image_format, read_header


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


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def png_chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body))


def webp_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(body)) + body + bytes(len(body) & 1)


def webp(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def parts(data: bytes) -> list[bytes]:
    """The segments of a JPEG behind its first marker, or the chunks of a PNG or WebP; a BMP has two."""
    if data.startswith(b"BM"):
        return [data[:18], data[18:]]
    found = []
    position = {b"\xff": 2, b"\x89": 8, b"R": 12}[data[:1]]
    while position < len(data):
        if data[:1] == b"\x89":
            length = 12 + int.from_bytes(data[position : position + 4])
        elif data[:1] == b"R":
            length = 8 + int.from_bytes(data[position + 4 : position + 8], "little")
            length += length & 1
        elif data[position + 1] == 0xD9:
            length = 2
        else:
            length = 2 + int.from_bytes(data[position + 2 : position + 4])
            while data[position + 1] == 0xDA and (
                data[position + length] != 0xFF or data[position + length + 1] in (0, *range(0xD0, 0xD8))
            ):
                length += 1
        found.append(data[position : position + length])
        position += length
    return found


def joined(kind: str, pieces: list[bytes]) -> bytes:
    if kind == "WEBP":
        return webp(*pieces)
    return {"JPEG": b"\xff\xd8", "PNG": b"\x89PNG\r\n\x1a\n", "BMP": b""}[kind] + b"".join(pieces)


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


PIECES = {
    "JPEG": [
        *parts(encoded("JPEG", (16, 8))),
        *parts(encoded("JPEG", (40, 33), progressive=True)),
        *parts(encoded("JPEG", (48, 24), mode="L")),
        b"\xff\xd8",
        b"\xff\xd9",
        b"\xff",
        b"\xff\x01",
        b"\xff\xd0",
        b"\0",
        jpeg_segment(0x00, b"".join(parts(encoded("JPEG", (64, 64))))),
        jpeg_segment(0xE1, encoded("JPEG", (64, 64))),
        jpeg_segment(0xDC, b"\0\x50"),
        jpeg_segment(0xDD, b"\0\1"),
    ],
    "PNG": [
        *parts(encoded("PNG", (16, 8))),
        *parts(encoded("PNG", (40, 33), mode="P")),
        png_chunk(b"acTL", struct.pack(">II", 2, 0)),
        png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 40, 33, 0, 0, 1, 1, 0, 0)),
        png_chunk(b"zTXt", b"key\0\0" + zlib.compress(b"text")),
        struct.pack(">I4s", 100, b"tEXt"),
    ],
    "WEBP": [
        *parts(encoded("WEBP", (16, 8))),
        *parts(encoded("WEBP", (40, 33), lossless=True)),
        *parts(encoded("WEBP", (24, 50), mode="RGBA", quality=50)),
        webp_chunk(b"VP8X", bytes(10)),
        webp_chunk(b"VP8X", bytes([2, 0, 0, 0, 39, 0, 0, 32, 0, 0])),
        webp_chunk(b"ANIM", bytes(6)),
        webp_chunk(b"JUNK", encoded("WEBP", (64, 64))),
    ],
    "BMP": [*parts(encoded("BMP", (16, 8))), *parts(encoded("BMP", (40, 33), mode="P")), bytes(40)],
}


@settings(max_examples=300)
@given(st.sampled_from(KINDS), st.data())
def test_what_is_accepted_is_decoded_at_the_size_that_was_read(kind: str, draw: st.DataObject) -> None:
    pieces = parts(encoded(kind, draw.draw(st.sampled_from([(16, 8), (40, 33)]))))
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(pieces)))
        piece = draw.draw(st.sampled_from(PIECES[kind]))
        pieces[at : at + draw.draw(st.integers(0, 1))] = [piece]
    data = bytearray(joined(kind, pieces))
    for _ in range(draw.draw(st.integers(0, 2))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        header = read_header(bytes(data))
    except ImageError:
        return
    if header.width * header.height <= 1_000_000:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        assert pixels is None or pixels.shape[:2] == (header.height, header.width)


def test_a_photo_as_a_telephone_writes_it() -> None:
    """With a preview in its EXIF block, a colour profile, fill bytes, restarts, and a second picture and a film behind it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    preview = encoded("JPEG", (160, 120))
    photo = encoded("JPEG", (400, 300), exif=exif, icc_profile=bytes(70_000), comment=b"\xff\xd9\xff\xda")
    first, *rest = parts(photo)
    photo = joined(
        "JPEG",
        [
            first,
            jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + preview),
            jpeg_segment(0xDD, b"\0\4"),
            jpeg_segment(0xE2, b"MPF\0" + bytes(80)),
            b"\xff\xff\xff",
            *rest,
            bytes(64),
            encoded("JPEG", (800, 600)),
            b"\0\0\0\x18ftypmp42" + b"\xff\xda\xff\xc0" * 1000,
        ],
    )
    header = read_header(photo)
    assert (header.width, header.height, header.orientation) == (400, 300, 6)
    pixels = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert pixels.shape == (300, 400, 3)


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"restart_marker_blocks": 1}, {"mode": "CMYK"}, {"mode": "L"}]
)
def test_every_kind_of_jpeg_that_cameras_and_editors_write(options: dict[str, object]) -> None:
    header = read_header(encoded("JPEG", (301, 17), **options) + bytes(100))
    assert (header.width, header.height) == (301, 17)


LARGE = b"".join(parts(encoded("JPEG", (500, 400))))


@pytest.mark.parametrize(
    ("inserted", "named"),
    [
        (jpeg_segment(0x00, LARGE), "0x00"),
        (jpeg_segment(0x02, LARGE), "0x02"),
        (jpeg_segment(0xBF, LARGE), "0xbf"),
        (b"\xff\xd8", "0xd8"),
        (b"\xff\xd9", "0xd9"),
        (b"\xff\xd0", "0xd0"),
        (b"\xff\x01", "0x01"),
        (jpeg_segment(0xC3, bytes(9)), "0xc3"),
        (jpeg_segment(0xC9, bytes(9)), "0xc9"),
        (jpeg_segment(0xDE, bytes(9)), "0xde"),
        (b"\0", "no marker"),
        (jpeg_segment(0xC0, struct.pack(">BHHB", 8, 9, 9, 1) + bytes(3)), "two frames"),
        (jpeg_segment(0xC0, struct.pack(">BHHB", 8, 9, 9, 10) + bytes(30)), "10 components"),
        (jpeg_segment(0xC0, struct.pack(">BHHB", 8, 9, 9, 3) + bytes(3)), "frame of 3 components in 11 bytes"),
    ],
)
def test_a_jpeg_of_segments_that_photos_do_not_have_is_refused(inserted: bytes, named: str) -> None:
    first, *rest = parts(encoded("JPEG"))
    with pytest.raises(DamagedImageError, match=named):
        read_header(joined("JPEG", [first, inserted, *rest]))


def test_a_scan_is_followed_to_its_end() -> None:
    data = encoded("JPEG")
    for inserted in (jpeg_segment(0x05, bytes(9)), jpeg_segment(0xC0, struct.pack(">BHHB", 8, 9, 9, 1) + bytes(3))):
        with pytest.raises(DamagedImageError):
            read_header(data[:-2] + inserted + data[-2:])
    with pytest.raises(DamagedImageError, match="early"):
        read_header(data[:-2] + jpeg_segment(0xFE, b"\xff\xd9"))


HEADER, *_, PICTURE, END = parts(encoded("PNG"))


@pytest.mark.parametrize(
    ("chunks", "named"),
    [
        ([PICTURE, HEADER, END], "first chunk is not IHDR"),
        ([png_chunk(b"IHDR", HEADER[8:-4] + b"\0"), PICTURE, END], "first chunk is not IHDR"),
        ([HEADER, png_chunk(b"IHDR", struct.pack(">IIBBBBB", 500, 400, 8, 2, 0, 0, 0)), PICTURE, END], "two headers"),
        ([HEADER, END, struct.pack(">I4s", 0x7FFF_FFF0, b"tEXt")], "no picture"),
        ([HEADER, PICTURE, struct.pack(">I4s", 0x7FFF_FFF0, b"tEXt"), END], "ends early"),
        ([HEADER, png_chunk(b"acTL", struct.pack(">II", 2, 0)), PICTURE, END], "animation"),
        ([HEADER, *[png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(99)))] * 17, PICTURE, END], "more than 16"),
        ([HEADER, *[png_chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(99)))] * 17, PICTURE, END], "more than 16"),
    ],
)
def test_a_png_of_chunks_that_photos_do_not_have_is_refused(chunks: list[bytes], named: str) -> None:
    with pytest.raises(DamagedImageError, match=named):
        read_header(joined("PNG", chunks))


def test_a_png_with_some_texts_is_taken() -> None:
    texts = [png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(99)))] * 16 + [png_chunk(b"tEXt", b"k\0v")] * 500
    assert read_header(joined("PNG", [HEADER, *texts, PICTURE, END])).width == 37


SMALL, LOSSLESS = parts(encoded("WEBP"))[-1], parts(encoded("WEBP", (500, 400), lossless=True))[-1]


def canvas(width: int, height: int, flags: int = 0) -> bytes:
    sides = [(side - 1).to_bytes(3, "little") for side in (width, height)]
    return webp_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + b"".join(sides))


@pytest.mark.parametrize(
    ("chunks", "named"),
    [
        ([LOSSLESS, canvas(1, 1)], "a header of 10 bytes at byte"),
        ([canvas(37, 23), canvas(37, 23), SMALL], "a header of 10 bytes at byte 30"),
        ([canvas(37, 23), LOSSLESS], "500 x 400 pixels, and its header says another"),
        ([canvas(1, 1), SMALL], "37 x 23 pixels, and its header says another"),
        ([SMALL, LOSSLESS], "two pictures"),
        ([webp_chunk(b"EXIF", b""), SMALL], "first chunk is b'EXIF'"),
        ([canvas(37, 23, 2), webp_chunk(b"ANIM", bytes(6))], "animation"),
        ([canvas(37, 23)], "no picture"),
        ([canvas(37, 23), SMALL, struct.pack("<4sI", b"XMP ", 99)], "beyond its end"),
        ([webp_chunk(b"VP8X", bytes(12)), SMALL], "a header of 12 bytes"),
    ],
)
def test_a_webp_of_chunks_that_photos_do_not_have_is_refused(chunks: list[bytes], named: str) -> None:
    with pytest.raises(DamagedImageError, match=named):
        read_header(webp(*chunks))


def test_animations_are_refused_as_a_gif_is() -> None:
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    for kind in ("PNG", "WEBP"):
        out = io.BytesIO()
        frames[0].save(out, kind, save_all=True, append_images=frames[1:])
        with pytest.raises(DamagedImageError, match="is an animation"):
            read_header(out.getvalue())


@pytest.mark.parametrize("height", [20, -20])
@pytest.mark.parametrize("length", [12, 40, 52, 56, 64, 108, 124])
def test_every_header_of_a_bmp(length: int, height: int) -> None:
    size = struct.pack("<HH", 30, 20) if length == 12 else struct.pack("<ii", 30, height)
    header = (struct.pack("<I", length) + size + struct.pack("<HH", 1, 24)).ljust(length, b"\0")
    data = b"BM" + struct.pack("<III", 0, 0, 14 + length) + header + bytes(92 * 20)
    assert (read_header(data).width, read_header(data).height) == (30, 20)
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (20, 30, 3)


@pytest.mark.parametrize("length", [0, 16, 36, 41, 1 << 31])
def test_other_headers_of_a_bmp_are_refused(length: int) -> None:
    data = bytearray(encoded("BMP"))
    struct.pack_into("<I", data, 14, length)
    with pytest.raises(DamagedImageError, match=f"header of {length} bytes"):
        read_header(bytes(data))


def test_the_format_is_told_whatever_follows() -> None:
    assert [image_format(encoded(kind)[:12]) for kind in KINDS] == ["JPEG", "PNG", "WebP", "BMP"]
    with pytest.raises(NotAnImageError):
        image_format(b"GIF89a")


def test_a_size_of_zero_is_refused() -> None:
    data = bytearray(encoded("PNG"))
    data[16:20] = bytes(4)
    with pytest.raises(DamagedImageError, match="0 x 23"):
        read_header(bytes(data))


@pytest.mark.parametrize("progressive", [True, False])
def test_a_jpeg_of_endless_scans_is_refused(progressive: bool) -> None:
    data = encoded("JPEG", progressive=progressive)
    scan = data.rindex(b"\xff\xda")
    bomb = data[:scan] + data[scan:-2] * 200 + data[-2:]
    with pytest.raises(DamagedImageError, match="more than 100 scans"):
        read_header(bomb)


@pytest.mark.parametrize("filler", [b"\xff", b"\xff\xfe\x00\x02", b"\xff\x01"])
def test_a_header_without_end_is_refused(filler: bytes) -> None:
    with pytest.raises(DamagedImageError):
        read_header(b"\xff\xd8\xff\xfe\x00\x02" + filler * 1_000_000)
