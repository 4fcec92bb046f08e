"""What the methods of a client are made of: how their arguments travel."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias
from urllib.parse import quote

from faceward.client.transport import Answer, Transport
from faceward.errors import ImageNotFoundError, InvalidValueError
from faceward.types import Unchanged

Image: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO"
"""A path, the bytes of an image file, or an open binary file."""


class Requests:
    """Sends requests over one transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def _send(
        self,
        method: str,
        path: str,
        answer: type[Answer],
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        form: Mapping[str, Any] | None = None,
        files: list[tuple[str, tuple[str, bytes]]] | None = None,
        repeatable: bool = True,
    ) -> Answer:
        parts: dict[str, Any] = {"params": present(query or {}), "repeatable": repeatable}
        if body is not None:
            parts["json"] = body
        if files is not None:
            parts |= {"data": present(form or {}), "files": files}
        return self._transport.value(method, path, answer, **parts)

    def _delete(self, path: str) -> None:
        self._transport.ask("DELETE", path)


def files_of(field: str, images: Image | Sequence[Image]) -> list[tuple[str, tuple[str, bytes]]]:
    """Images as the files of a form's field."""
    several = images if isinstance(images, (list, tuple)) else [images]
    return [(field, (f"{field}-{number}", _bytes(image))) for number, image in enumerate(several, start=1)]


def _bytes(image: Any) -> bytes:
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if hasattr(image, "read"):
        data: bytes = image.read()
        return data
    try:
        return Path(image).read_bytes()
    except OSError as exc:
        raise ImageNotFoundError(f"The image {image} can't be read: {exc.strerror}.") from exc


def present(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was left out."""
    return {name: value for name, value in values.items() if value is not None}


def given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not isinstance(value, Unchanged)}


def path_of(collection: str, name: str) -> str:
    """The path of the item that has this name. Raises InvalidValueError where the path would be another's."""
    if name in ("", ".", ".."):
        raise InvalidValueError("name", name, "a text that no path takes for a step")
    return f"{collection}/{quote(name, safe='')}"
