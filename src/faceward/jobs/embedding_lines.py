"""Persons with embeddings, one JSON object a line (NDJSON), that nobody vouches for.

Each line is {"external_id", "region", "name", "embedding": [numbers], "description"?}. What a reader holds at a time is one
line; a line that can't be used is a refusal with its number, and the next one is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NoReturn

from faceward.checks import (
    check_description,
    check_external_id,
    check_name,
    check_region,
    unit_embedding,
)
from faceward.errors import ImportSourceError, InputError
from faceward.jobs.photo_paths import shown
from faceward.types import Embedding, JobRefusal

_REQUIRED = ("external_id", "region", "name", "embedding")
_KNOWN = frozenset((*_REQUIRED, "description"))
_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class LineLimits:
    """What lines may cost. line_bytes: of one. lines: their number."""

    line_bytes: int = 1024 * 1024
    lines: int = 10_000_000


@dataclass(frozen=True, slots=True)
class EmbeddingLine:
    """A person of a line. position: among the lines that aren't blank, from 0. item: the line's number, to be shown."""

    position: int
    item: str
    external_id: str
    region: str
    name: str
    description: str | None
    embedding: Embedding = field(repr=False)


class _LineError(Exception):
    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class EmbeddingLines:
    """The lines of one file.

    file: open at its beginning, seekable, and read by nobody else. dimension: of the embeddings. tick: as of an Archive.
    """

    def __init__(
        self,
        file: BinaryIO,
        dimension: int,
        limits: LineLimits | None = None,
        *,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._file = file
        self._dimension = dimension
        self._limits = limits or LineLimits()
        self._tick = tick

    def count(self) -> int:
        """How many lines there are that aren't blank. Raises ImportSourceError: none, or more than the limit."""
        lines = 0
        for _ in self._lines():
            lines += 1
            if lines > self._limits.lines:
                raise ImportSourceError(
                    f"The upload holds more than {self._limits.lines} lines. Nothing was stored; send it in parts."
                )
        if not lines:
            raise ImportSourceError("The upload holds no line. Send one JSON object for each person, one a line.")
        return lines

    def items(self, start: int = 0) -> Iterator[EmbeddingLine | JobRefusal]:
        """The lines in their order from the position `start` on; what can't be used is a refusal."""
        for position, (number, line) in enumerate(self._lines()):
            if position < start:
                continue
            item = f"line {number}"
            try:
                yield self._read(position, item, line)
            except (_LineError, InputError) as exc:
                yield JobRefusal(position, item, exc.code, shown(str(exc)))

    def _lines(self) -> Iterator[tuple[int, bytes | None]]:
        """(number from 1, line) of each line that isn't blank; None stands for one that is too long."""
        self._file.seek(0)
        most, number = self._limits.line_bytes, 0
        while line := self._file.readline(most + 1):
            self._tick()
            number += 1
            if number == 1:
                line = line.removeprefix(_MARK)
            if len(line) > most and not line.endswith(b"\n"):
                while (rest := self._file.readline(most + 1)) and not rest.endswith(b"\n"):
                    self._tick()
                yield number, None
            elif line.strip():
                yield number, line

    def _read(self, position: int, item: str, line: bytes | None) -> EmbeddingLine:
        if line is None:
            raise _LineError("line_too_long", f"It is longer than {self._limits.line_bytes} bytes.")
        given = _parsed(line)
        missing = [name for name in _REQUIRED if name not in given]
        if missing:
            raise _LineError("missing_field", f"It has no {', '.join(missing)}.")
        if strange := [name for name in given if name not in _KNOWN]:
            raise _LineError(
                "unknown_field", f"It has the field {strange[0]!r}; known are {', '.join(sorted(_KNOWN))}."
            )
        return EmbeddingLine(
            position,
            item,
            check_external_id(given["external_id"]),
            check_region(given["region"]),
            check_name(given["name"]),
            check_description(given.get("description")),
            self._embedding(given["embedding"]),
        )

    def _embedding(self, given: Any) -> Embedding:
        if not isinstance(given, list) or not all(type(number) in (int, float) for number in given):
            raise _LineError("invalid_embedding", f"Its embedding is no list of {self._dimension} numbers.")
        return unit_embedding(given, self._dimension)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        # Lines are UTF-8; json.loads on bytes would also guess at others.
        value = json.loads(line.decode("utf-8"), parse_constant=_not_finite, parse_float=_finite)
    except UnicodeDecodeError as exc:
        raise _LineError("not_json", "It is not UTF-8.") from exc
    except json.JSONDecodeError as exc:
        raise _LineError("not_json", f"It is not JSON: {exc.msg} at character {exc.pos + 1}.") from exc
    except (RecursionError, ValueError) as exc:  # nested without end; a number of thousands of digits
        raise _LineError("not_json", "It is nested too deeply, or holds a number that is too long.") from exc
    if not isinstance(value, dict):
        raise _LineError("not_json", "It is not a JSON object.")
    return value


def _not_finite(_: str) -> NoReturn:
    raise _LineError("invalid_embedding", "It holds NaN or infinity, which are no numbers of JSON.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _LineError("invalid_embedding", "It holds a number that is too large.")
    return number
