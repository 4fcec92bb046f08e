"""What the tests serve and fetch."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass, field

from faceward.vision.fetch import WantedFile


@dataclass
class Site:
    """pages: path to body. base: the address of the server. asked: the paths that were asked for."""

    base: str = ""
    pages: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    cut: set[str] = field(default_factory=set)
    """Paths whose connection breaks off after half of the body."""


def wanted_file(name: str, member: str, content: bytes) -> WantedFile:
    return WantedFile(name, member, hashlib.sha256(content).hexdigest(), len(content))


def tarball(members: dict[str, bytes], top: str = "package") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return out.getvalue()
