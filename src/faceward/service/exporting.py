"""A person's data as a zip: JSON in the names of the tables' columns, and the stored photos."""

from __future__ import annotations

import datetime as dt
import json
import zipfile
from collections.abc import Iterable
from typing import IO, Any

from faceward.errors import ImageError
from faceward.store.personal_data import PersonalData
from faceward.vision.image_headers import image_format

_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WebP": "webp", "BMP": "bmp"}


def write_export(held: PersonalData, file: IO[bytes]) -> tuple[int, ...]:
    """Write it while it is read: neither all faces nor more than one photo are in memory at once. Returns the ids of the
    faces whose photo does not open, which the zip names too. Raises OSError.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        limited = {} if held.regions is None else {"limited_to_regions": held.regions}
        _write(archive, "person.json", {"exported_at": dt.datetime.now(dt.UTC).isoformat(), **limited, **held.person()})
        for name, rows in (
            ("faces", held.faces()),
            ("audit", held.audit()),
            ("decisions", held.decisions()),
            ("requests", held.requests()),
            ("imports", held.refusals()),
            *held.more(),
        ):
            _write_list(archive, f"{name}.json", rows)
        for photo in held.photos():
            archive.writestr(
                f"photos/face-{photo.face_id}.{_suffix(photo.data)}", photo.data, compress_type=zipfile.ZIP_STORED
            )
        if held.unopened:
            _write(archive, "unopened_photos.json", [{"face_id": face_id} for face_id in held.unopened])
    return tuple(held.unopened)


def _write(archive: zipfile.ZipFile, name: str, value: Any) -> None:
    archive.writestr(name, json.dumps(value, indent=1, ensure_ascii=False).encode())


def _write_list(archive: zipfile.ZipFile, name: str, rows: Iterable[Any]) -> None:
    with archive.open(name, "w", force_zip64=True) as entry:
        separator = b"[\n"
        for row in rows:
            entry.write(separator + json.dumps(row, ensure_ascii=False).encode())
            separator = b",\n"
        entry.write(b"[]\n" if separator == b"[\n" else b"\n]\n")


def _suffix(data: bytes) -> str:
    try:
        return _SUFFIXES[image_format(data)]
    except ImageError:  # what somebody else stored
        return "bin"
