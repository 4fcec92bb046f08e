"""What faceward's tables hold, in a form that two databases can be compared by: rows, digests of them, and answers of searches.

A digest is a sum over the rows, so that their order does not matter: of each row's primary key, and of its embeddings to
the last bit. Photos are only counted with their rows: to read them all would take longer than the backup itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from faceward.errors import SchemaMissingError
from faceward.store.database import APP_ROLE, SET_TENANT
from faceward.store.libpq import Connection
from faceward.store.own_tables import own_schema, own_tables

_PROBES = 8
_NEAREST = 5
# keys: the columns of the primary key in its order. vectors: of pgvector's type.
_COLUMNS = """
SELECT ARRAY(SELECT a.attname::text FROM pg_index i
             CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
             WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY k.place),
       ARRAY(SELECT a.attname::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND t.typname = 'vector' ORDER BY a.attnum)
FROM pg_class c WHERE c.oid = %s
"""
_SAMPLE = "SELECT client_id, region, embedding::text FROM face_encodings ORDER BY hashint8(id), client_id LIMIT %s"
# "+ 0": brute force, not the HNSW index, which may miss.
_SEARCH = """
SELECT array_agg(found.id ORDER BY found.distance, found.id) FROM (
    SELECT f.id, (f.embedding <=> %(probe)s::vector) + 0 AS distance FROM face_encodings f
    WHERE f.client_id = %(client_id)s AND f.region = %(region)s ORDER BY 2, 1 LIMIT %(most)s
) found
"""


@dataclass(frozen=True, slots=True)
class Probe:
    """A search, and the ids of the faces nearest to it as they were found by brute force."""

    client_id: str
    region: str
    embedding: str
    nearest: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """rows, digests: by table. probes: searches with their answers."""

    revision: str
    rows: Mapping[str, int]
    digests: Mapping[str, str]
    probes: Sequence[Probe]


def read_contents(connection: Connection) -> Contents:
    """Of all tenants, in the connection's transaction. The login must be one that row-level security does not bind.

    Raises SchemaMissingError.
    """
    # An error, rather than a part of the rows, where it does bind it. UTC: a key may hold a time.
    connection.execute("SET LOCAL row_security = off")
    connection.execute("SET LOCAL timezone = 'UTC'")
    connection.execute("SET LOCAL statement_timeout = 0")
    rows, digests = {}, {}
    revision = revision_of(connection)
    schema = own_schema(connection)
    assert schema is not None
    for table in own_tables(connection, schema):
        ((keys, vectors),) = connection.execute(_COLUMNS, (table.oid,)).fetchall()
        name = f"{schema}.{table.name}"
        rows[name], digests[name] = _digest(connection, schema, table.name, keys, vectors)
    probes = []
    for client_id, region, embedding in connection.execute(_SAMPLE, (_PROBES,)).fetchall():
        probe = Probe(client_id, region, embedding, ())
        probes.append(replace(probe, nearest=_search(connection, probe)))
    return Contents(revision, rows, digests, probes)


def revision_of(connection: Connection) -> str:
    """The version of the tables. Raises SchemaMissingError where there are none."""
    version = None
    schema = own_schema(connection)
    if schema is not None and own_tables(connection, schema):
        row = connection.execute("SELECT max(version_num) FROM alembic_version").fetchone()
        version = row and row[0]
    if version is None:
        raise SchemaMissingError("The database holds no faceward tables: there is nothing to back up.")
    return str(version)


def differences(before: Contents, after: Contents, connection: Connection) -> list[str]:
    """What the second database lacks of the first, each as a sentence's end; searches are asked as the service asks.

    connection: to the second one.
    """
    found = []
    if before.revision != after.revision:
        found.append(f"the tables are of version {after.revision}, not {before.revision}")
    for name, count in before.rows.items():
        if name not in after.rows:
            found.append(f"the table {name} is missing")
        elif after.rows[name] != count:
            found.append(f"{name} has {after.rows[name]} rows, not {count}")
        elif after.digests[name] != before.digests[name]:
            found.append(f"{name} has other rows")
    for probe in before.probes:
        with connection.transaction():
            connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(APP_ROLE)))
            connection.execute(SET_TENANT, (probe.client_id,))
            if _search(connection, probe) != probe.nearest:
                found.append("a search finds other faces")
                break
    return found


def _digest(connection: Connection, schema: str, table: str, keys: list[str], vectors: list[str]) -> tuple[int, str]:
    parts: list[sql.Composable] = [sql.SQL("{}::text").format(sql.Identifier(key)) for key in keys]
    parts += [sql.SQL("encode(vector_send({}), 'hex')").format(sql.Identifier(name)) for name in vectors]
    if not keys:
        parts = [sql.SQL("t::text")]
    statement = sql.SQL(
        "SELECT count(*), coalesce(sum(hashtextextended(concat_ws(E'\\x1f', {}), 0)::numeric), 0)::text FROM {} t"
    ).format(sql.SQL(", ").join(parts), sql.Identifier(schema, table))
    row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0], row[1]


def _search(connection: Connection, probe: Probe) -> tuple[int, ...]:
    given = {"client_id": probe.client_id, "region": probe.region, "probe": probe.embedding, "most": _NEAREST}
    row = connection.execute(_SEARCH, given).fetchone()
    return tuple((row and row[0]) or ())
