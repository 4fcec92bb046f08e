"""Photos from a zip or a tar that nobody vouches for.

Nothing is unpacked to disk, and no path of the archive is ever opened. What a reader holds at a time is one photo and the
names: each member is cut off at the limit of an image while it inflates, headers and directories have limits of their
own, and the whole is measured before the first photo is handed out.
"""

from __future__ import annotations

import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from gzip import GzipFile
from typing import BinaryIO, Literal, Protocol, cast

from faceward.errors import ImportSourceError
from faceward.jobs.photo_paths import PathError, PhotoPath, is_clutter, photo_path, shown
from faceward.types import JobRefusal

_PIECE = 64 * 1024
_HEADER_BYTES = 64 * 1024  # of all headers of one member of a tar
_DIRECTORY_BYTES = 512  # of a zip's directory for each member, on average
_DIRECTORY_ENTRY = b"PK\x01\x02"
_UTF8_NAME, _ENCRYPTED, _STRONGLY_ENCRYPTED = 0x800, 0x1, 0x40
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RecursionError,
)


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may cost. photo_bytes: of one member. all_bytes: of all, inflated. members: their number."""

    photo_bytes: int = 32 * 1024 * 1024
    all_bytes: int = 8 * 1024 * 1024 * 1024
    members: int = 100_000


@dataclass(frozen=True, slots=True)
class ArchivedPhoto:
    """A photo of an archive. position: among its files, from 0. item: its name there, to be shown."""

    position: int
    item: str
    path: PhotoPath
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Member:
    """read: its content in pieces."""

    name: str
    kind: Literal["file", "directory", "other"]
    size: int
    read: Callable[[], Iterator[bytes]]
    problem: tuple[str, str] | None = None


class _Container(Protocol):
    """A zip or a tar, opened. Its methods raise ImportSourceError or one of _BROKEN."""

    def members(self) -> Iterator[_Member]: ...

    def verify_end(self) -> None:
        """Raises where members may have been lost: to be called behind the last one."""


class Archive:
    """The photos of one archive.

    file: open at its beginning, seekable, and read by nobody else. tick: called often, so that a long reading can keep a
    lease or be stopped; what it raises passes through.
    """

    def __init__(
        self, file: BinaryIO, limits: ArchiveLimits | None = None, *, tick: Callable[[], None] = lambda: None
    ) -> None:
        self._file = file
        self._limits = limits or ArchiveLimits()
        self._tick = tick

    def count(self) -> int:
        """Look through the archive: how many files it holds, be they usable or not.

        Raises ImportSourceError where it is broken, cut off, of an unknown format, empty, or beyond a limit.
        """
        files = size = 0
        with _explained():
            container = _opened(self._file, self._limits)
            for number, member in enumerate(container.members(), start=1):
                self._tick()
                size += member.size
                self._check(number, size)
                files += _is_item(member)
            container.verify_end()
        if not files:
            raise ImportSourceError("The archive holds no file. Pack photos as REGION/PERSON/photo.jpg.")
        return files

    def items(self, start: int = 0) -> Iterator[ArchivedPhoto | JobRefusal]:
        """Its files in the archive's order from the position `start` on; what can't be used is a refusal.

        Raises ImportSourceError as `count` does.
        """
        with _explained():
            seen: set[PhotoPath] = set()
            members = _opened(self._file, self._limits).members()
            for position, member in enumerate(member for member in members if _is_item(member)):
                self._tick()
                self._check(position + 1, 0)
                item = self._item(position, member, seen, wanted=position >= start)
                if item is not None:
                    yield item

    def _item(
        self, position: int, member: _Member, seen: set[PhotoPath], *, wanted: bool
    ) -> ArchivedPhoto | JobRefusal | None:
        """None where it is not wanted: then only its name is taken note of."""
        try:
            path = self._checked(member, seen)
            return self._read(position, path, member) if wanted else None
        except PathError as exc:
            return JobRefusal(position, shown(member.name), exc.code, exc.reason) if wanted else None

    def _check(self, members: int, size: int) -> None:
        if members > self._limits.members:
            raise _too_many(self._limits)
        if size > self._limits.all_bytes:
            raise _too_large(self._limits)

    def _checked(self, member: _Member, seen: set[PhotoPath]) -> PhotoPath:
        path = photo_path(member.name)
        if member.kind != "file":
            raise PathError("not_a_file", "It is a link or a device; only files are taken.")
        if path in seen:
            raise PathError("duplicate_name", "The archive holds this name twice; the first one counts.")
        seen.add(path)
        if member.problem is not None:
            raise PathError(*member.problem)
        if member.size > self._limits.photo_bytes:
            raise self._oversized()
        return path

    def _read(self, position: int, path: PhotoPath, member: _Member) -> ArchivedPhoto:
        data = bytearray()
        try:
            for piece in member.read():
                data += piece
                if len(data) > self._limits.photo_bytes:
                    raise self._oversized()
        except _BROKEN as exc:
            raise PathError("damaged_member", "It is damaged in the archive. Pack it again.") from exc
        return ArchivedPhoto(position, shown(member.name), path, bytes(data))

    def _oversized(self) -> PathError:
        return PathError(
            "image_too_large", f"It holds more than {self._limits.photo_bytes} bytes, the most of a photo."
        )


class _Zip:
    def __init__(self, file: BinaryIO, limits: ArchiveLimits) -> None:
        watched = _WatchedDirectory(file, limits)
        self._zip = zipfile.ZipFile(cast(BinaryIO, watched))

    def members(self) -> Iterator[_Member]:
        for info in self._zip.infolist():
            yield _Member(_zip_name(info), _zip_kind(info), info.file_size, self._reader(info), _zip_problem(info))

    def verify_end(self) -> None:
        """A zip's directory stands at its end: one that was read is whole."""

    def _reader(self, info: zipfile.ZipInfo) -> Callable[[], Iterator[bytes]]:
        def read() -> Iterator[bytes]:
            with self._zip.open(info) as content:
                while piece := content.read(_PIECE):
                    yield piece

        return read


class _Tar:
    def __init__(self, file: BinaryIO, limits: ArchiveLimits) -> None:
        self._file = _WatchedStream(file, limits)
        self._file.allow(_HEADER_BYTES)
        self._tar = tarfile.TarFile(fileobj=cast(BinaryIO, self._file))

    def members(self) -> Iterator[_Member]:
        reached = -1
        while True:
            self._file.allow(_HEADER_BYTES)
            info = self._tar.next()
            # Kept by tarfile for look-ups that nobody makes here.
            self._tar.__dict__.update(members=[], pax_headers={})
            if info is None:
                return
            if info.size < 0 or info.offset <= reached:  # tarfile follows a negative size in circles
                raise tarfile.ReadError("a size below zero")
            reached = info.offset
            kind: Literal["file", "directory", "other"] = "other"
            if info.isdir():
                kind = "directory"
            elif info.isreg() and not info.issparse():
                kind = "file"
            yield _Member(info.name, kind, info.size, self._reader(info))

    def verify_end(self) -> None:
        """tarfile takes a damaged header, which is the last it has read, for the end of the archive."""
        piece = self._file.last
        if len(piece) < tarfile.BLOCKSIZE:
            raise ImportSourceError("The archive ends without its end mark: it was cut off. Send it whole.")
        while piece:
            if piece.count(0) != len(piece):
                raise ImportSourceError(
                    "The archive is damaged in the middle, or another one was appended to it. Nothing was stored; pack it "
                    "again."
                )
            self._file.allow(_PIECE)
            self._file.seek(self._file.tell())
            piece = self._file.read(_PIECE)

    def _reader(self, info: tarfile.TarInfo) -> Callable[[], Iterator[bytes]]:
        def read() -> Iterator[bytes]:
            content = self._tar.extractfile(info)
            assert content is not None
            with content:
                while True:
                    self._file.allow(2 * _PIECE)
                    piece = content.read(_PIECE)
                    if not piece:
                        return
                    yield piece

        return read


class _WatchedStream:
    """Lets a reader of tars read as much as was allowed, and go no further than an archive may reach."""

    def __init__(self, file: BinaryIO, limits: ArchiveLimits) -> None:
        self._file = file
        self._limits = limits
        self._allowed = 0
        self.last = b""

    def allow(self, count: int) -> None:
        self._allowed = count

    def read(self, size: int) -> bytes:
        self._allowed -= size
        if size < 0 or self._allowed < 0:
            raise ImportSourceError("A header of the archive is larger than any file's name needs. Nothing was stored.")
        self.last = self._file.read(size)
        return self.last

    def seek(self, offset: int) -> int:
        if offset > self._limits.all_bytes + 1024 * (self._limits.members + 20):
            raise _too_large(self._limits)
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()


class _WatchedDirectory:
    """Keeps a reader of zips from a directory that is too large for memory: it reads that at once."""

    def __init__(self, file: BinaryIO, limits: ArchiveLimits) -> None:
        self._file = file
        self._limits = limits
        self._most = _DIRECTORY_BYTES * limits.members + 2 * _PIECE
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > self._most:
            raise _too_many(self._limits)
        data = self._file.read(self._most + 1 if size < 0 else size)
        if len(data) > self._most or data.count(_DIRECTORY_ENTRY) > self._limits.members:
            raise _too_many(self._limits)
        return data


@contextmanager
def _explained() -> Iterator[None]:
    """Say what a broken archive is, whatever its reader raised."""
    try:
        yield
    except ImportSourceError:
        raise
    except _BROKEN as exc:
        raise ImportSourceError(
            f"The archive is damaged or cut off ({type(exc).__name__}). Pack it again, and send it whole."
        ) from exc


def _opened(file: BinaryIO, limits: ArchiveLimits) -> _Container:
    file.seek(0)
    magic = file.read(4)
    file.seek(0)
    if magic in (b"PK\x03\x04", b"PK\x05\x06"):
        return _Zip(file, limits)
    if magic[:2] == b"\x1f\x8b":
        return _Tar(cast(BinaryIO, GzipFile(fileobj=file, mode="rb")), limits)
    try:
        return _Tar(file, limits)
    except tarfile.ReadError as exc:
        raise ImportSourceError(
            "The upload is neither a zip nor a tar (plain or gzip). Pack the photos as one of these."
        ) from exc


def _is_item(member: _Member) -> bool:
    return member.kind != "directory" and not is_clutter(member.name)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Some programs write UTF-8 without saying so; what zip assumes then is code page 437."""
    if info.flag_bits & _UTF8_NAME:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _zip_kind(info: zipfile.ZipInfo) -> Literal["file", "directory", "other"]:
    if info.filename.endswith("/"):  # ZipInfo.is_dir() fails on a name that is empty
        return "directory"
    mode = stat.S_IFMT(info.external_attr >> 16)
    return "file" if mode in (0, stat.S_IFREG) else "other"


def _zip_problem(info: zipfile.ZipInfo) -> tuple[str, str] | None:
    if info.flag_bits & (_ENCRYPTED | _STRONGLY_ENCRYPTED):
        return "encrypted", "It is encrypted. Pack the archive without a password."
    # The others' readers inflate without a limit.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "unsupported_compression", "It is compressed in a way that is not read. Pack the archive with deflate."
    return None


def _too_many(limits: ArchiveLimits) -> ImportSourceError:
    return ImportSourceError(
        f"The archive holds more than {limits.members} files, or too much text in their names. Nothing was stored; send it "
        "in parts."
    )


def _too_large(limits: ArchiveLimits) -> ImportSourceError:
    return ImportSourceError(
        f"The archive inflates to more than {limits.all_bytes} bytes. Nothing was stored; send it in parts."
    )
