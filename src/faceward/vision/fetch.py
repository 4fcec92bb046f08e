"""Fetches files whose SHA-256 is known, from several sources in order.

What is on the disk is whole and right, or not there. Archives are fetched by the clients that people have configured
for their network (npm, pip), single files by HTTPS. A member of an archive is read by its exact name and
never unpacked to a path that the archive names.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, TypeAlias
from urllib.parse import urlsplit

from faceward.errors import PackUnavailableError
from faceward.vision.files import process_lock, sha256_of_file, write_atomically

Progress: TypeAlias = Callable[[int, int], None]
"""Receives the bytes done and the bytes in all."""

Notify: TypeAlias = Callable[[str], None]
"""Receives a line for the user."""

_CHUNK = 256 * 1024
_CLIENT_SECONDS = 600
_READ_SECONDS = 30


@dataclass(frozen=True, slots=True)
class WantedFile:
    """A file to have. name: in the target directory. member: its path in archives and below base addresses."""

    name: str
    member: str
    sha256: str
    size: int


class SourceError(Exception):
    """A source did not give a file; the text says why. It never leaves this module: the next source is tried."""


Put: TypeAlias = Callable[[WantedFile, Iterable[bytes]], None]
"""Stores the content of a wanted file. Raises SourceError where it is not what was wanted."""


class Source(Protocol):
    """A place that files come from."""

    @property
    def label(self) -> str:
        """What to call it in a message."""

    def deliver(self, wanted: Sequence[WantedFile], put: Put) -> None:
        """Put the wanted files, as many as it has. Raises SourceError."""


@dataclass(frozen=True, slots=True)
class WebFiles:
    """Single files below an address. base: ends with a slash; HTTPS, or HTTP on this machine."""

    base: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.base)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")):
            raise ValueError(f"{self.base} is not an HTTPS address.")

    @property
    def label(self) -> str:
        return self.base

    def deliver(self, wanted: Sequence[WantedFile], put: Put) -> None:
        opener = urllib.request.build_opener()
        opener.addheaders = [("User-Agent", "faceward")]
        for file in wanted:
            try:
                with opener.open(self.base + file.member, timeout=_READ_SECONDS) as answer:
                    put(file, _chunks(answer))
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as exc:
                raise SourceError(f"{file.member}: {exc}") from exc


@dataclass(frozen=True, slots=True)
class LocalArchive:
    """An archive that is there already, because somebody put it there."""

    path: Path
    sha256: str

    @property
    def label(self) -> str:
        return str(self.path)

    def deliver(self, wanted: Sequence[WantedFile], put: Put) -> None:
        _deliver_members(self.path, self.sha256, wanted, put)


@dataclass(frozen=True, slots=True)
class NpmArchive:
    """The tarball of an npm package, fetched by the npm client. package: as in name@version."""

    package: str
    sha256: str

    @property
    def label(self) -> str:
        return f"npm pack {self.package}"

    def deliver(self, wanted: Sequence[WantedFile], put: Put) -> None:
        npm = shutil.which("npm")
        if npm is None:
            raise SourceError("npm is not installed")
        with _scratch() as folder:
            options = ["--ignore-scripts", "--loglevel=error", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
            _run([npm, "pack", self.package, "--pack-destination", str(folder), *options], folder)
            _deliver_members(_only_file(folder), self.sha256, wanted, put)


@dataclass(frozen=True, slots=True)
class PipArchive:
    """An archive of a Python package, fetched by pip. requirement: as in name==version.

    pip itself checks the SHA-256 before it runs anything of a source distribution to learn its dependencies.
    """

    requirement: str
    sha256: str
    options: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"pip download {self.requirement}"

    def deliver(self, wanted: Sequence[WantedFile], put: Put) -> None:
        with _scratch() as folder:
            requirements, target = folder / "requirements.txt", folder / "archive"
            requirements.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n", encoding="utf-8")
            options = ["--no-deps", "--quiet", "--no-input", "--disable-pip-version-check", "--retries", "1"]
            command = [sys.executable, "-m", "pip", "download", *options, *self.options, "--require-hashes"]
            _run([*command, "--dest", str(target), "--requirement", str(requirements)], folder)
            _deliver_members(_only_file(target), self.sha256, wanted, put)


def missing_files(wanted: Sequence[WantedFile], directory: Path) -> list[WantedFile]:
    """Those that are not in the directory with the right content."""
    return [file for file in wanted if not _is_right(file, directory / file.name)]


def fetch_files(
    wanted: Sequence[WantedFile],
    directory: Path,
    sources: Sequence[Source],
    *,
    what: str,
    by_hand: str,
    lock: Path,
    progress: Progress | None = None,
    notify: Notify | None = None,
) -> None:
    """Have every wanted file in the directory, verified. Files that are there and right are not fetched again.

    what: names the files' purpose in messages. by_hand: tells the user how to put them there without a network. lock: a
    file that keeps two processes from fetching the same. Raises PackUnavailableError, naming the first file that is
    missing and what each source said; BusyError.
    """
    if not missing_files(wanted, directory):
        return
    tell = notify or _silent
    try:
        with process_lock(lock, waiting=lambda: tell(f"Another process is fetching {what}; waiting for it.")):
            missing = missing_files(wanted, directory)
            said = _fetch_missing(
                missing, directory, sources, progress, lambda label: tell(f"Fetching {what}: {label}")
            )
            missing = missing_files(missing, directory)
    except OSError as exc:
        raise PackUnavailableError(f"{what} can't be written to {directory}: {exc.strerror or exc}.") from exc
    if missing:
        names = ", ".join(file.name for file in missing)
        tried = "".join(f"\n  - {line}" for line in said)
        raise PackUnavailableError(f"{what}: can't get {names}. Tried:{tried}\n{by_hand}")


def _fetch_missing(
    missing: Sequence[WantedFile],
    directory: Path,
    sources: Sequence[Source],
    progress: Progress | None,
    begin: Callable[[str], None],
) -> list[str]:
    """Ask one source after the other. Returns what those said that did not have everything."""
    total, done = sum(file.size for file in missing), 0

    def put(file: WantedFile, chunks: Iterable[bytes]) -> None:
        nonlocal done
        start = done
        try:
            write_atomically(directory / file.name, _counted(_verified(file, chunks), report))
        except SourceError:
            done = start
            raise

    def report(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done, total)

    said = []
    for source in sources:
        if not missing:
            break
        begin(source.label)
        try:
            source.deliver(missing, put)
        except SourceError as exc:
            said.append(f"{source.label}: {exc}")
        missing = missing_files(missing, directory)
    return said


def _silent(_: str) -> None:
    return None


def _is_right(file: WantedFile, path: Path) -> bool:
    return path.is_file() and path.stat().st_size == file.size and sha256_of_file(path) == file.sha256


def _verified(file: WantedFile, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Pass the content on; raise at its end where it was another, and before that where it is too long."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        size += len(chunk)
        if size > file.size:
            raise SourceError(f"{file.member} is longer than its {file.size} bytes")
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != file.sha256:
        raise SourceError(
            f"{file.member} has the SHA-256 {digest.hexdigest()} over {size} bytes; "
            f"{file.sha256} over {file.size} is wanted"
        )


def _counted(chunks: Iterable[bytes], report: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        report(len(chunk))


def _chunks(file: IO[bytes] | http.client.HTTPResponse) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _deliver_members(archive: Path, sha256: str, wanted: Sequence[WantedFile], put: Put) -> None:
    """Put members of an archive, whose own SHA-256 is checked before any of it is read."""
    found = sha256_of_file(archive)
    if found != sha256:
        raise SourceError(f"{archive.name} has the SHA-256 {found}; {sha256} is wanted")
    by_member = {file.member: file for file in wanted}
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for name in by_member.keys() & set(zipped.namelist()):
                with zipped.open(name) as unpacked:
                    put(by_member[name], _chunks(unpacked))
        return
    with tarfile.open(archive, "r:gz") as packed:
        for entry in packed:
            # The first part is the folder that every npm tarball and source distribution has at its top.
            file = by_member.get(entry.name.partition("/")[2])
            content = packed.extractfile(entry) if file is not None and entry.isfile() else None
            if file is not None and content is not None:
                put(file, _chunks(content))


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="faceward-") as folder:
        yield Path(folder)


def _only_file(folder: Path) -> Path:
    files = [path for path in folder.iterdir() if path.is_file()]
    if len(files) != 1:
        raise SourceError(f"it left {len(files)} files instead of one archive")
    return files[0]


def _run(command: list[str], folder: Path) -> None:
    """Run a client in a scratch folder, away from any project's own settings for it."""
    try:
        ended = subprocess.run(  # noqa: S603 - the program is npm or this Python, the arguments are constants of this package
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_CLIENT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise SourceError(str(exc)) from exc
    if ended.returncode != 0:
        lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()][:4] or lines[-4:] or ["it said nothing"]
        raise SourceError(f"exit status {ended.returncode}: {' '.join(errors)[:500]}")
