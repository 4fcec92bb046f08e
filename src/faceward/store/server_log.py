"""The log of the embedded server, kept within a bound.

PostgreSQL's own rotation can't do it: it empties a file only when a new hour or day begins while the server runs, so neither
a flood within that time nor a thousand short starts have a bound. The server appends to its log, so it can be emptied
under its hands at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import threading
from pathlib import Path

MAX_BYTES = 16 * 1024 * 1024
_SECONDS = 30.0
_MOST_READ = 256 * 1024
_LINES = 3
_ENDED_BY = re.compile(r" (?:FATAL|PANIC):  (?!the database system is )")
"""What PostgreSQL says before it gives up. Who connects while it starts or stops gets a FATAL too, which tells nothing."""


def size(path: Path) -> int:
    """Bytes of the log; 0 where it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def why_it_ended(path: Path, since: int) -> str:
    """The last lines of the log, and the one above them that says why the server gave up; empty where there is none.

    since: the log's size when the server was started. What is older is of another start.
    """
    try:
        with path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(since if since <= end else 0, end - _MOST_READ))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    shown = lines[-_LINES:]
    reason = next(filter(_ENDED_BY.search, lines), None)
    if reason is not None and reason not in shown:
        shown = [reason, "…", *shown]
    return " / ".join(shown)


class LogKeeper:
    """Moves the log to PATH.1 once it has grown beyond `max_bytes`; both together stay near twice that.

    Every process that uses the server has one; whichever looks first does it. seconds: between looks.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, seconds: float = _SECONDS) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look now, and from then on in the background until close()."""
        self.look()
        self._thread = threading.Thread(target=self._run, name="faceward-server-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def look(self) -> None:
        """What can't be done, as on a full disk, is left for the next look: the server's own work goes on."""
        with contextlib.suppress(OSError), self._path.open("r+b") as log:
            if os.fstat(log.fileno()).st_size <= self._max_bytes:
                return
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(log.fileno())
            if found.st_size <= self._max_bytes:  # another process was first
                return
            fresh = self._path.with_name(f"{self._path.name}.new")
            with fresh.open("wb") as kept:
                fresh.chmod(0o600)
                log.seek(max(0, found.st_size - self._max_bytes))
                shutil.copyfileobj(log, kept)
            if os.geteuid() == 0:  # a copy of the directory, as for a standby, is made by the server's own user
                os.chown(fresh, found.st_uid, found.st_gid)
            fresh.replace(self._path.with_name(f"{self._path.name}.1"))
            os.ftruncate(log.fileno(), 0)

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            self.look()
