"""Which tables of a database are faceward's: it may be one that others keep theirs in too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from faceward.store.libpq import Connection
from faceward.store.schema import TENANT_TABLES
from faceward.store.shadow import NEXT, PREVIOUS

VERSION_TABLE = "alembic_version"
NAMES = frozenset((*TENANT_TABLES, NEXT, PREVIOUS, VERSION_TABLE))
FUNCTION_PREFIX = "faceward_"
POLICIES = frozenset(("tenant", "model_names", "every_client", "key_of_prefix", "admin_keys", "every_job"))
"""The policies of this version's tables; a test holds this equal to what the migrations make."""

# The tables of tenants tell themselves by their policy, also those of a newer version. A name alone does not: another
# application may have its own clients and jobs, or an alembic_version. The policy is looked into as it is stored, where a text
# stands as its bytes: to have it written out, or to ask for a table's size, waits for whoever has locked the table.
_SETTING = " ".join(str(byte) for byte in b"faceward.client_id")
_OWN = """
WITH marked AS (
    SELECT p.polrelid FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND p.polname = 'tenant'
        AND position(%(setting)s in p.polqual::text) > 0
)
SELECT c.oid::bigint, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p') AND EXISTS (SELECT FROM marked)
    AND (c.oid IN (SELECT polrelid FROM marked) OR c.relname = ANY(%(names)s))
ORDER BY 2
"""
_OTHERS = """
SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.oid <> ALL(%(own)s::bigint[]::oid[])
    AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND (d.deptype = 'e'
            OR d.deptype IN ('a', 'i') AND d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY(%(own)s::bigint[]::oid[]))
    )
ORDER BY 1
"""
_SCHEMA = """
SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass('alembic_version')
"""


@dataclass(frozen=True, slots=True)
class OwnTable:
    oid: int
    name: str


def own_tables(connection: Connection, schema: str) -> list[OwnTable]:
    """faceward's tables in a schema, by name."""
    rows = connection.execute(_OWN, {"schema": schema, "names": sorted(NAMES), "setting": _SETTING}).fetchall()
    return [OwnTable(*row) for row in rows]


def other_relations(connection: Connection, schema: str, own: list[OwnTable]) -> list[str]:
    """The tables, views and sequences in that schema that are somebody else's, by name."""
    given: dict[str, Any] = {"schema": schema, "own": [table.oid for table in own]}
    return [str(name) for (name,) in connection.execute(_OTHERS, given)]


def own_schema(connection: Connection) -> str | None:
    """The schema in which this login finds the tables; None where it finds none."""
    row = connection.execute(_SCHEMA).fetchone()
    return None if row is None else str(row[0])
