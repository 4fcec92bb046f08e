"""Files that a command writes: for their owner's eyes, and whole or not there at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from faceward.target_files import check_target


@contextmanager
def new_file(path: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """Written beside `path` and renamed at the end of the block; an exception leaves nothing. Mode 0600.

    replace: an older file of that name. What is there and no regular file, as a directory, a pipe or a device, is refused
    before the block all the same. Raises FileExistsError and other OSErrors.
    """
    check_target(path, replace=replace)
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, str(path)) from exc
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as exc:
        temporary.unlink(missing_ok=True)
        if isinstance(exc, OSError) and exc.errno is not None and exc.filename in (None, name):
            raise OSError(exc.errno, exc.strerror, str(path)) from exc  # the name that was given
        raise
