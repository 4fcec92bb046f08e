"""Imports that run in the background."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

JobKind: TypeAlias = Literal["archive", "embeddings"]
"""Of an import: photos in a zip or a tar, or embeddings in lines of JSON."""

JobState: TypeAlias = Literal["receiving", "queued", "running", "succeeded", "partial", "failed", "cancelled"]
"""partial: all was done, and something was refused. failed: nothing could be done."""

FINISHED: tuple[JobState, ...] = ("succeeded", "partial", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Job:
    """An import that runs in the background.

    region_limit: the regions that it may write to; None is all of them. options: of its kind. total: how many items the
    upload holds; None until a worker has looked. done: items dealt with, each of which was stored, skipped (it was there
    already) or refused. stored_persons, stored_faces: what is new. error_code, error_message: why it failed. bytes: of the
    upload. attempt: grows each time that a worker takes it up.
    """

    id: int
    client_id: str
    kind: JobKind
    state: JobState
    region_limit: tuple[str, ...] | None
    options: Mapping[str, Any]
    total: int | None
    done: int
    stored_persons: int
    stored_faces: int
    skipped: int
    refused: int
    error_code: str | None
    error_message: str | None
    key_id: int | None
    bytes: int
    attempt: int
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> Job:
        values = {name: row[name] for name in cls.__dataclass_fields__}
        return cls(**{**values, "region_limit": None if row["region_limit"] is None else tuple(row["region_limit"])})

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    def may_enter(self, region: str) -> bool:
        return self.region_limit is None or region in self.region_limit


@dataclass(frozen=True, slots=True)
class JobRefusal:
    """An item of an import that was not stored. position: its place in the upload, from 0. item: its name there."""

    position: int
    item: str
    code: str
    reason: str

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> JobRefusal:
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})
