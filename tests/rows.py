"""What a database holds, seen by its superuser."""

from __future__ import annotations

import psycopg
from psycopg import sql


def count_rows(url: str) -> dict[str, int]:
    """The number of rows of each table, but for decisions, which come in the background."""
    counted = {}
    with psycopg.connect(url) as connection:
        for (table,) in connection.execute(
            "SELECT relname FROM pg_stat_user_tables WHERE relname NOT IN ('decisions', 'decision_candidates')"
        ).fetchall():
            row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
            assert row is not None
            counted[table] = row[0]
    return counted


def waiting(url: str) -> bool:
    """Whether anybody waits for a lock."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    return bool(row and row[0])
