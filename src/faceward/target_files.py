"""Where a command may write a file of its own."""

from __future__ import annotations

import errno
from pathlib import Path


def check_target(path: Path, *, replace: bool) -> None:
    """Raises FileExistsError where something is there that must stay: a directory, a pipe or a device always, an older file
    unless it may be replaced.
    """
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "It is there and no regular file. Name another one", str(path))
    if path.exists() and not replace:
        raise FileExistsError(errno.EEXIST, "It exists already. Name another file, or say --replace", str(path))
