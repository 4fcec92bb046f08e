"""The reader of archives: what it takes, what it refuses one by one, and what ends it, within bounded memory."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed import tar_of, zip_of

from faceward.errors import ImportSourceError
from faceward.jobs.archive import Archive, ArchivedPhoto, ArchiveLimits
from faceward.types import JobRefusal

Packer = Callable[[Mapping[str, bytes]], io.BytesIO]
PACKERS: dict[str, Packer] = {
    "zip": zip_of,
    "stored zip": partial(zip_of, compression=zipfile.ZIP_STORED),
    "tar": tar_of,
    "tar.gz": partial(tar_of, mode="w:gz"),
}
SMALL = ArchiveLimits(photo_bytes=1000, all_bytes=100_000, members=50)
FILES = {"A/ada/1.jpg": b"one", "A/ada/2.PNG": b"two", "B/bob_b/1.webp": b"three" * 100}


@pytest.fixture(params=PACKERS)
def pack(request: pytest.FixtureRequest) -> Packer:
    return PACKERS[request.param]


def read(file: io.BytesIO, limits: ArchiveLimits = SMALL, start: int = 0) -> list[ArchivedPhoto | JobRefusal]:
    archive = Archive(file, limits)
    count = archive.count()
    items = list(archive.items(start))
    assert [item.position for item in items] == list(range(start, count))
    return items


def codes(file: io.BytesIO, limits: ArchiveLimits = SMALL) -> list[str]:
    return [item.code if isinstance(item, JobRefusal) else "photo" for item in read(file, limits)]


def test_photos_of_each_kind_of_archive(pack: Packer) -> None:
    items = read(pack(FILES))
    assert [(item.item, item.data) for item in items if isinstance(item, ArchivedPhoto)] == list(FILES.items())
    last = items[-1]
    assert isinstance(last, ArchivedPhoto)
    assert (last.path.region, last.path.external_id, last.path.name) == ("B", "bob_b", "bob b")


def test_it_goes_on_from_any_position(pack: Packer) -> None:
    file = pack({**FILES, "A/ada/1.jpg/": b"", "A/ada/x.txt": b"", "A/eve/1.jpg": b"1"})
    whole = read(file)
    for start in range(len(whole) + 1):
        assert read(file, start=start) == whole[start:]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("/etc/passwd", "unsafe_path"),
        ("/A/ada/1.jpg", "unsafe_path"),
        ("../A/ada.jpg", "unsafe_path"),
        ("A/../../1.jpg", "unsafe_path"),
        ("A/ada/..", "unsafe_path"),
        ("A\\..\\1.jpg", "unsafe_path"),
        ("\\\\host\\share\\1.jpg", "unsafe_path"),
        ("C:/A/1.jpg", "unsafe_path"),
        ("C:\\A\\ada\\1.jpg", "unsafe_path"),
        ("ada.jpg", "misplaced"),
        ("A/ada.jpg", "misplaced"),
        ("people/A/ada/1.jpg", "misplaced"),
        ("A/ada/1.heic", "not_an_image"),
        ("A/ada/jpg", "not_an_image"),
        ("A/ada/nested.zip", "not_an_image"),
        (f"A/{'x' * 1200}/1.jpg", "invalid_name"),
        (f"A/{'x' * 256}/1.jpg", "invalid_value"),
        (f"{'A' * 51}/ada/1.jpg", "invalid_value"),
        ("A /ada/1.jpg", "invalid_value"),
        ("A/a\nb/1.jpg", "invalid_value"),
        ("A/___/1.jpg", "invalid_value"),
    ],
)
def test_a_path_that_cannot_be_used_is_refused_by_itself(pack: Packer, name: str, code: str) -> None:
    assert codes(pack({name: b"1", "A/ada/1.jpg": b"2"})) == [code, "photo"]


def test_what_systems_leave_in_folders_is_no_item(pack: Packer) -> None:
    clutter = ("__MACOSX/A/ada/._1.jpg", ".DS_Store", "A/.DS_Store", "A/ada/Thumbs.db", "A/ada/.hidden.jpg")
    assert codes(pack({**dict.fromkeys(clutter, b"x"), "A/ada/1.jpg": b"1"})) == ["photo"]


def test_separators_of_windows_and_a_leading_dot() -> None:
    paths = [
        (item.path.region, item.path.external_id)
        for item in read(tar_of({"./A/ada/1.jpg": b"1", "A\\eve\\1.jpg": b"2"}))
        if isinstance(item, ArchivedPhoto)
    ]
    assert paths == [("A", "ada"), ("A", "eve")]


def test_a_name_given_twice_counts_once(pack: Packer) -> None:
    first = {"A/ada/1.jpg": b"1", "./A/ada/1.jpg": b"2", "A//ada/1.jpg": b"3"}
    assert codes(pack(first)) == ["photo", "duplicate_name", "duplicate_name"]


def test_composed_and_decomposed_names_are_the_same() -> None:
    composed, decomposed = "A/Zo\u00eb/1.jpg", "A/Zoe\u0308/1.jpg"
    assert codes(tar_of({composed: b"1", decomposed: b"2"})) == ["photo", "duplicate_name"]


def test_utf8_in_a_zip_that_does_not_say_so() -> None:
    packed = zip_of({"A/Zoë/1.jpg": b"1"}).getvalue()
    # What says so is bit 11 of the flags, in the file's header and in the directory.
    local, directory = packed.index(b"PK\x03\x04") + 6, packed.index(b"PK\x01\x02") + 8
    silent = bytearray(packed)
    silent[local + 1] &= ~0x08 & 0xFF
    silent[directory + 1] &= ~0x08 & 0xFF
    (item,) = read(io.BytesIO(bytes(silent)))
    assert isinstance(item, ArchivedPhoto)
    assert item.path.external_id == "Zoë"


def test_a_name_that_is_not_utf8_is_refused_and_can_be_shown() -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        archive.addfile(tarfile.TarInfo("A/Zoë/1.jpg"))
    (refusal,) = read(made)
    assert isinstance(refusal, JobRefusal)
    assert refusal.code == "invalid_name"
    assert refusal.item.encode() == "A/Zo�/1.jpg".encode()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"?"]
)
def test_links_and_devices_of_a_tar_are_refused(kind: bytes) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        info = tarfile.TarInfo("A/ada/1.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    assert codes(made) == ["not_a_file"]


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_of_a_zip_are_refused(mode: int) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        info = zipfile.ZipInfo("A/ada/1.jpg")
        info.external_attr = (mode | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
        archive.writestr("A/ada/2.jpg", b"2")
    assert codes(made) == ["not_a_file", "photo"]


def test_an_encrypted_member_is_refused_and_named() -> None:
    packed = bytearray(zip_of({"A/ada/1.jpg": b"1"}).getvalue())
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    assert codes(io.BytesIO(bytes(packed))) == ["encrypted"]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_inflate_without_a_limit_are_refused(method: int) -> None:
    assert codes(zip_of({"A/ada/1.jpg": bytes(500)}, method)) == ["unsupported_compression"]


def test_a_damaged_member_of_a_zip_spares_the_others() -> None:
    packed = bytearray(zip_of({"A/ada/1.jpg": b"x" * 300, "A/ada/2.jpg": b"y"}, zipfile.ZIP_STORED).getvalue())
    packed[packed.index(b"x" * 300) + 7] ^= 1
    assert codes(io.BytesIO(bytes(packed))) == ["damaged_member", "photo"]


def test_a_photo_beyond_the_limit_is_refused(pack: Packer) -> None:
    assert codes(pack({"A/ada/1.jpg": bytes(1001), "A/ada/2.jpg": bytes(1000)})) == ["image_too_large", "photo"]


def test_a_zip_that_lies_about_a_size_gives_no_more_than_it_said() -> None:
    packed = bytearray(zip_of({"A/ada/1.jpg": bytes(50_000_000)}).getvalue())
    struct.pack_into("<L", packed, packed.index(b"PK\x01\x02") + 24, 10)
    assert codes(io.BytesIO(bytes(packed))) == ["damaged_member"]


def test_an_archive_that_inflates_beyond_the_limit_is_refused_whole(pack: Packer) -> None:
    bomb = {f"A/ada/{number}.jpg": bytes(900) for number in range(40)}
    with pytest.raises(ImportSourceError, match="inflates to more than 20000 bytes"):
        read(pack(bomb), ArchiveLimits(photo_bytes=1000, all_bytes=20_000, members=50))


def test_an_archive_of_too_many_members_is_refused_whole(pack: Packer) -> None:
    with pytest.raises(ImportSourceError, match="more than 50 files"):
        read(pack({f"A/ada/{number}.jpg": b"" for number in range(51)}))
    assert len(read(pack({f"A/ada/{number}.jpg": b"" for number in range(50)}))) == 50


BOMB = 300_000_000


def gz_bomb(head: bytes) -> io.BytesIO:
    made = io.BytesIO()
    with gzip.GzipFile(fileobj=made, mode="wb", compresslevel=1) as file:
        file.write(head)
        for _ in range(BOMB // 1_000_000):
            file.write(bytes(1_000_000))
    made.seek(0)
    return made


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def many_names() -> io.BytesIO:
    entry = zip_of({"A/a/1.jpg": b""}).getvalue()
    directory = entry[entry.index(b"PK\x01\x02") : entry.index(b"PK\x05\x06")] * 100_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(directory), 0, 0)
    return io.BytesIO(b"PK\x03\x04" + directory + end)


@pytest.mark.parametrize(
    "bomb",
    [
        lambda: gz_bomb(header("A/ada/1.jpg", BOMB)),
        lambda: gz_bomb(header("x", BOMB, tarfile.GNUTYPE_LONGNAME)),
        lambda: gz_bomb(header("x", BOMB, tarfile.XHDTYPE)),
        lambda: gz_bomb(header("x", BOMB, tarfile.XGLTYPE)),
        lambda: zip_of({"A/ada/1.jpg": bytes(BOMB)}),
        many_names,
    ],
    ids=["member", "long name", "pax header", "global header", "zip member", "zip directory"],
)
def test_a_bomb_is_refused_in_little_memory(bomb: Callable[[], io.BytesIO]) -> None:
    file = bomb()
    tracemalloc.start()
    try:
        with pytest.raises(ImportSourceError):
            read(file)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_photo_that_inflates_without_end_is_cut_off_in_little_memory() -> None:
    file = zip_of({"A/ada/1.jpg": bytes(BOMB), "A/ada/2.jpg": b"2"})
    tracemalloc.start()
    try:
        assert codes(file, ArchiveLimits(photo_bytes=1000)) == ["image_too_large", "photo"]
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_every_truncation_of_a_tar_is_noticed_before_a_photo_is_handed_out() -> None:
    """Up to the end mark, a block of zeros: what comes behind is padding."""
    whole = tar_of(FILES).getvalue()
    for cut in range(0, 7 * 512, 128):
        with pytest.raises(ImportSourceError):
            Archive(io.BytesIO(whole[:cut]), SMALL).count()


@pytest.mark.parametrize("name", ["zip", "tar.gz"])
def test_every_truncation_of_a_compressed_archive_is_noticed(name: str) -> None:
    whole = PACKERS[name](FILES).getvalue()
    for cut in range(len(whole)):
        with pytest.raises(ImportSourceError):
            Archive(io.BytesIO(whole[:cut]), SMALL).count()


def test_a_damaged_header_in_the_middle_of_a_tar_is_not_its_end() -> None:
    packed = bytearray(tar_of(FILES).getvalue())
    packed[2 * 512 + 3] ^= 1
    with pytest.raises(ImportSourceError, match="damaged in the middle"):
        Archive(io.BytesIO(bytes(packed)), SMALL).count()


def test_an_appended_tar_is_not_lost_in_silence() -> None:
    both = tar_of(FILES).getvalue() + tar_of({"B/eve/1.jpg": b"1"}).getvalue()
    with pytest.raises(ImportSourceError, match="another one was appended"):
        Archive(io.BytesIO(both), SMALL).count()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither a zip nor a tar"),
        (b"\xff\xd8\xff\xe0 a photo", "neither a zip nor a tar"),
        (gzip.compress(gzip.compress(tar_of(FILES).getvalue())), "damaged or cut off"),
        (tar_of(FILES, "w:xz").getvalue(), "neither a zip nor a tar"),
        (zip_of({}).getvalue(), "holds no file"),
        (tar_of({}).getvalue(), "holds no file"),
        (zip_of({"A/ada/": b""}).getvalue(), "holds no file"),
    ],
)
def test_what_is_no_archive_is_told_so(content: bytes, message: str) -> None:
    with pytest.raises(ImportSourceError, match=message):
        Archive(io.BytesIO(content), SMALL).count()


def test_a_negative_size_in_a_tar_leads_nowhere() -> None:
    block = bytearray(header("A/ada/1.jpg", 0))
    block[124:136] = b"\xff" * 10 + b"\xfc\x00"  # -1024 in the binary form
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    for kind in (tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        block[156:157] = kind
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        with pytest.raises(ImportSourceError):
            read(io.BytesIO(bytes(block) * 3 + bytes(1024)))


def test_a_long_reading_can_be_stopped(pack: Packer) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        Archive(pack(FILES), SMALL, tick=stop).count()
    with pytest.raises(Stopped):
        list(Archive(pack(FILES), SMALL, tick=stop).items())


SEEDS = [pack(FILES).getvalue() for pack in PACKERS.values()]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, len(content) - 1))
        content[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=8))
        if not content:
            content += b"P"
    return bytes(content)


def test_a_member_without_a_name_is_refused() -> None:
    (item,) = read(zip_of({"": b"x"}))
    assert not isinstance(item, ArchivedPhoto)


@settings(max_examples=400, deadline=None)
@given(damaged() | st.binary(max_size=2000) | st.binary(max_size=600).map(lambda tail: b"PK\x03\x04" + tail + SEEDS[0]))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    """Whatever comes: items within their limits, or the one error that says so."""
    try:
        items = read(io.BytesIO(content))
    except ImportSourceError:
        return
    for item in items:
        if isinstance(item, ArchivedPhoto):
            assert len(item.data) <= SMALL.photo_bytes
            assert ".." not in (item.path.region, item.path.external_id)
        item.item.encode()
        assert "\0" not in item.item
