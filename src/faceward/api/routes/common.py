"""Parameters that several routes have."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query
from pydantic import BeforeValidator

from faceward.checks import MAX_CLIENT_ID, MAX_REGION, composed
from faceward.http_types.fields import LINE

_TEXT = {"pattern": LINE}
RegionName = Annotated[
    str, BeforeValidator(composed), Path(min_length=1, max_length=MAX_REGION, json_schema_extra=_TEXT)
]
ClientName = Annotated[str, Path(min_length=1, max_length=MAX_CLIENT_ID, json_schema_extra=_TEXT)]
RowId = Annotated[int, Path(ge=1, le=2**63 - 1)]
Limit = Annotated[int, Query(ge=1, le=1000, description="The most items of a page.")]
Cursor = Annotated[
    str | None,
    Query(max_length=255, description="The `next` of the page before.", json_schema_extra={"pattern": "^[1-9][0-9]*$"}),
]


def next_cursor(after: int | None) -> str | None:
    return None if after is None else str(after)
