"""Files that are either whole or not there: atomic writes, SHA-256, and a lock between processes."""

from __future__ import annotations

import hashlib
import importlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from faceward.errors import BusyError

_CHUNK = 1024 * 1024


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file so that no reader and no crash ever sees a part of it. Makes the directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The temporary file lies in the same directory, for a rename is atomic within one file system only.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def copy_atomically(source: Path, target: Path) -> None:
    """Copy a file so that the target is either whole or not there."""
    with source.open("rb") as file:
        write_atomically(target, iter(lambda: file.read(_CHUNK), b""))


@contextmanager
def process_lock(path: Path, *, timeout: float = 900.0, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock that one process at a time can have; it ends with the process, however that ends.

    waiting: called once where another process holds the lock. Raises BusyError after `timeout` seconds. Where the
    system or the file system has no such locks the work goes on without: every write is atomic, so that two processes
    then do the same work twice and nothing worse.
    """
    try:
        fcntl = importlib.import_module("fcntl")
    except ImportError:  # Windows
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        deadline = time.monotonic() + timeout
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as exc:
                if time.monotonic() > deadline:
                    raise BusyError(
                        f"Another process has held the lock {path} for {timeout:.0f} seconds. "
                        "Try again when it has ended."
                    ) from exc
                if waiting is not None and not told:
                    told = True
                    waiting()
                time.sleep(0.1)
            except OSError:  # a file system without locks
                break
        yield
