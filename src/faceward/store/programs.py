"""PostgreSQL's own programs, pg_dump, pg_restore and psql: found, and run so that no password is among their arguments."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from faceward.errors import FacewardError, ProgramMissingError

NAMES = ("pg_dump", "pg_restore", "psql")
_PATIENCE = 10.0
"""Seconds that a program gets to end by itself once it is told to."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Those of one folder, of one version of PostgreSQL."""

    folder: Path
    major: int

    @contextlib.contextmanager
    def running(
        self,
        name: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.DEVNULL,
        holds: Sequence[int] = (),
    ) -> Iterator[Running]:
        """A program at work until the end of the block; one that still runs then, as after an interrupt, is ended.

        holds: descriptors that it keeps open, and so their locks, where this process is killed.
        """
        # C: what it says is looked at.
        variables = {**os.environ, "LC_ALL": "C", "PGAPPNAME": "faceward-backup", **(environment or {})}
        with tempfile.TemporaryFile() as told:
            process = subprocess.Popen(  # noqa: S603 - a program of PostgreSQL, by its whole path
                [str(self.folder / name), *arguments],
                env=variables,
                stdin=stdin,
                stdout=stdout,
                stderr=told,
                pass_fds=holds,
            )
            try:
                yield Running(name, process, told)
            finally:
                if process.stdin is not None:
                    with contextlib.suppress(OSError):
                        process.stdin.close()
                if process.poll() is None:
                    process.terminate()
                    try:
                        process.wait(_PATIENCE)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()

    def output(self, name: str, *arguments: str, error: Callable[[str], FacewardError]) -> str:
        """What a program prints that connects to nothing."""
        with tempfile.TemporaryFile() as printed:
            with self.running(name, *arguments, stdout=printed) as running:
                running.finish(error)
            printed.seek(0)
            return printed.read().decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Running:
    """A program at work. process: its process. told: its stderr."""

    name: str
    process: subprocess.Popen[bytes]
    told: IO[bytes]

    def finish(self, error: Callable[[str], FacewardError]) -> None:
        """Wait until it ends. Raises `error` with its reason where it fails."""
        if status := self.process.wait():
            raise error(self.reason(status))

    def reason(self, status: int) -> str:
        """Why it failed: its first error. What may quote a row (details, contexts, refused values) is left out."""
        self.told.seek(0)
        lines = self.told.read(1 << 16).decode(errors="replace").splitlines()
        said = [line for line in lines if re.search(r"\b(error|fatal):", line, flags=re.IGNORECASE)] or lines[:1]
        if not said:
            return f"{self.name} was ended by {_signal(-status)}" if status < 0 else f"{self.name} ended with {status}"
        text = re.sub(r"^.*?\b(error|FATAL|ERROR): +", "", said[0].strip())
        text = re.sub(r"^(error returned by|query failed:|Command was:) *", "", text)
        if "invalid input syntax" in text:
            text = text.partition(": ")[0]
        return f"{self.name}: {text.rstrip('.')}"


def find_programs(server_major: int, folders: Sequence[Path | None]) -> Programs:
    """The first folder's programs that are not older than the server: pg_dump refuses a newer one.

    folders: None stands for the PATH. Raises ProgramMissingError.
    """
    older = []
    for folder in folders:
        found = _folder_on_path() if folder is None else folder
        version = None if found is None else _version(found)
        if found is None or version is None:
            continue
        if version >= server_major:
            return Programs(found, version)
        older.append(f"{version} in {found}")
    have = f"those found are older: {', '.join(older)}" if older else "none were found"
    raise ProgramMissingError(
        f"PostgreSQL {server_major} needs {', '.join(NAMES)} of version {server_major} or newer, and {have}. Install "
        f"them (Debian and Ubuntu: apt-get install postgresql-client-{server_major}), and put their folder first on the PATH."
    )


def _folder_on_path() -> Path | None:
    found = shutil.which(NAMES[0])
    return None if found is None else Path(found).parent


def _version(folder: Path) -> int | None:
    """The major version of a folder's programs; None where one of them is absent."""
    if any(shutil.which(name, path=str(folder)) is None for name in NAMES):
        return None
    try:
        told = subprocess.run(  # noqa: S603 - a program of PostgreSQL, by its whole path
            [str(folder / NAMES[0]), "--version"], capture_output=True, text=True, timeout=30, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    number = re.search(r"\) (\d+)", told)
    return None if number is None else int(number[1])


def _signal(number: int) -> str:
    try:
        return f"the signal {signal.Signals(number).name}"
    except ValueError:
        return f"signal {number}"
