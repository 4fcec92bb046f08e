"""A server for a moment: made for one purpose, and gone with its files after it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from faceward.errors import BusyError, EmbeddedServerError
from faceward.store.embedded import EmbeddedServer

_PREFIX = "scratch-server-"
# Enough for one load, and nothing that outlives it.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "shared_buffers": "128MB",
    "max_connections": "20",
}


@contextlib.contextmanager
def scratch_server(within: Path) -> Iterator[EmbeddedServer]:
    """A server with an empty database. within: the directory to make its own in. Raises EmbeddedServerError, OSError."""
    within.mkdir(parents=True, exist_ok=True)
    for left in within.glob(f"{_PREFIX}*.busy"):
        with contextlib.suppress(BusyError), locked(left, "in use"):
            _remove(left.with_suffix(""))  # of a process that was killed
            left.unlink()
    directory = within / f"{_PREFIX}{secrets.token_hex(4)}"
    lock = directory.with_name(f"{directory.name}.busy")
    with locked(lock, "in use"):
        try:
            with contextlib.closing(EmbeddedServer(directory, _SETTINGS)) as server:
                server.ensure_database()
                yield server
        finally:
            _remove(directory)
            lock.unlink()


@contextlib.contextmanager
def locked(file: Path, message: str) -> Iterator[int]:
    """The file, made where it is absent, while no other process has it so; its descriptor. Raises BusyError."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who held it may have renamed it since: what is locked now must still be what is at this path.
            if not os.path.samestat(os.fstat(descriptor), file.stat()):
                raise BusyError(message)
        except (BlockingIOError, FileNotFoundError) as exc:
            raise BusyError(message) from exc
        yield descriptor
    finally:
        os.close(descriptor)


def _remove(directory: Path) -> None:
    if (directory / "postmaster.pid").exists():
        with contextlib.suppress(EmbeddedServerError):
            EmbeddedServer(directory).close()  # stops the one that still runs
    for place in (directory, directory.with_name(f"{directory.name}.new")):
        shutil.rmtree(place, ignore_errors=True)
    for suffix in ("lock", "users"):
        directory.with_name(f"{directory.name}.{suffix}").unlink(missing_ok=True)
