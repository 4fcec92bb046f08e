"""REGION/PERSON/photo.jpg: what the path of a photo says about whose it is."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from faceward.checks import check_external_id, check_name, check_region
from faceward.errors import InvalidValueError

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp"))
MAX_PATH = 1000
_CLUTTER = frozenset(("__macosx", "thumbs.db", "desktop.ini"))
_DRIVE = re.compile(r"^[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class PhotoPath:
    """external_id: the folder's name. name: the same, to be read by people. file: the photo's own name."""

    region: str
    external_id: str
    file: str

    @property
    def name(self) -> str:
        return self.external_id.replace("_", " ").strip()


class PathError(Exception):
    """A path that can't be used. code, reason: as of a refusal."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def is_clutter(path: str) -> bool:
    """Whether it is what systems leave in folders by themselves: hidden files, thumbnails, macOS's second halves."""
    return any((part.startswith(".") and part not in (".", "..")) or part.lower() in _CLUTTER for part in _parts(path))


def photo_path(path: str) -> PhotoPath:
    """The region and the person of a photo's path, in composed form. Raises PathError."""
    if len(path) > MAX_PATH:
        raise PathError("invalid_name", f"Its name is {len(path)} characters long; {MAX_PATH} are the most.")
    if any(0xD800 <= ord(char) <= 0xDFFF for char in path):
        raise PathError("invalid_name", "Its name is not UTF-8. Pack the archive with names in UTF-8.")
    parts = _parts(path)
    if path.startswith(("/", "\\")) or _DRIVE.match(path) or ".." in parts:
        raise PathError("unsafe_path", "Its path leads out of the archive. Pack it as REGION/PERSON/photo.jpg.")
    if len(parts) != 3:
        raise PathError("misplaced", "It does not lie in REGION/PERSON/: three names, one in the other.")
    dot = parts[2].rfind(".")
    if dot < 0 or parts[2][dot:].lower() not in SUFFIXES:
        raise PathError("not_an_image", "Its name is none of a photo: jpg, jpeg, png, webp or bmp.")
    found = PhotoPath(*(unicodedata.normalize("NFC", part) for part in parts))
    try:
        check_region(found.region)
        check_external_id(found.external_id)
        check_name(found.name)
    except InvalidValueError as exc:
        raise PathError(exc.code, str(exc)) from exc
    return found


def shown(path: str) -> str:
    """The path as a report shows it: one line of text that any database takes."""
    readable = "".join(char if char.isprintable() else "�" for char in path[:MAX_PATH])
    return readable if len(readable) <= 500 else f"{readable[:499]}…"


def _parts(path: str) -> list[str]:
    return [part for part in path[: MAX_PATH + 1].replace("\\", "/").split("/") if part not in ("", ".")]
