"""Pages of what only grows, the newest first: the audit log and the decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

_OF_ALL = {"since": "at >= %(since)s", "before": "id < %(before)s"}


def newest(
    tx: sa.Connection,
    client_id: str,
    table: str,
    columns: str,
    filters: Mapping[str, str],
    given: Mapping[str, Any],
    limit: int,
) -> tuple[Sequence[sa.RowMapping], int | None]:
    """Rows of a client, and the `before` of the next page, or None at the end.

    filters: a condition for each name that may be given, beside `since` and `before`. given: None filters nothing.
    """
    wanted = {name: value for name, value in given.items() if value is not None}
    conditions = ["client_id = %(client_id)s", *((_OF_ALL | dict(filters))[name] for name in wanted)]
    rows = (
        tx.exec_driver_sql(
            f"SELECT {columns} FROM {table} WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT %(most)s",
            {"client_id": client_id, "most": limit + 1, **wanted},
        )
        .mappings()
        .all()
    )
    page = rows[:limit]
    return page, page[-1]["id"] if len(rows) > limit else None
