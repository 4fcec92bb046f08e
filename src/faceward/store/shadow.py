"""The second table of faces, beside the live one: made, indexed, exchanged with it and dropped, as the tables' owner.

`face_encodings_next` is filled with another model's embeddings while the live table serves; at the cut-over the two change
names in one transaction, and what served until then is `face_encodings_previous`. All that others may have added to the
live table (columns, indexes, settings) is read from the catalogue, so that it comes along.

Whichever of the two serves has the key to its person. The other one has keys to the live table and, once it has served, to
persons instead: deleting or erasing a face or a person reaches it in the same transaction, while its rows need not follow
each move.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import sqlalchemy as sa

from faceward.errors import ConflictError
from faceward.store.database import APP_ROLE, EVERY_MODEL, Database
from faceward.store.driver_errors import OF_MODEL
from faceward.store.embedding_models import MODEL_LOCK
from faceward.store.graph_index import NAME as GRAPH

LIVE = "face_encodings"
Shadow: TypeAlias = Literal["face_encodings_next", "face_encodings_previous"]
NEXT: Shadow = "face_encodings_next"
PREVIOUS: Shadow = "face_encodings_previous"
ONLY_BESIDE = f"NOT EXISTS (SELECT 1 FROM {LIVE} l WHERE l.client_id = %(client_id)s AND l.id = f.id)"
"""Of a face `f` of a table beside the live one: it was left behind."""

_PERSON_KEY = "fk_face_person"
_LIVE_KEY = "fk_face_live"
_OWNER_KEY = "fk_face_owner"

_INDEXES = f"""
SELECT c.relname AS name, pg_get_indexdef(i.indexrelid) AS definition, i.indisvalid AS valid,
       k.contype::text AS kind, pg_get_constraintdef(k.oid) AS key
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u')
WHERE i.indrelid = to_regclass(%s) AND c.relname NOT LIKE '{GRAPH}%%' ORDER BY c.relname
"""
_COLUMNS = """
SELECT attname AS name, attstorage::text AS storage, attgenerated <> '' AS generated, attstattarget = 0 AS unsampled
FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_NOT_CARRIED = frozenset({"model_id", "embedding", "code", "row_version"})


def beside_live(tx: sa.Connection) -> list[Shadow]:
    """The tables of faces beside the live one: none, but for while the model is changed. Nobody drops them until the
    transaction ends.
    """
    # To drop one takes the live table, of which this reads nothing.
    found = tx.exec_driver_sql(
        f"SELECT to_regclass(%s), to_regclass(%s) FROM (SELECT count(*) FROM {LIVE} WHERE false) held", (NEXT, PREVIOUS)
    ).one()
    return [table for table, there in zip((NEXT, PREVIOUS), found, strict=True) if there is not None]


def carried_columns(tx: sa.Connection, shadow: Shadow) -> tuple[str, ...]:
    """The columns that a face keeps whatever its model. Raises ConflictError where the two tables differ in them."""
    live, other = (_names(tx, table) for table in (LIVE, shadow))
    if live != other:
        raise ConflictError(
            f"The table {shadow} has not the columns of {LIVE} (different: {', '.join(sorted(live ^ other))}): an upgrade of "
            "the tables came between. `faceward reembed abandon`, then begin again."
        )
    return tuple(sorted(live - _NOT_CARRIED))


def dimension_of(tx: sa.Connection, table: str) -> int | None:
    """Of a table's embeddings; None where there is no such table."""
    found: int | None = tx.exec_driver_sql(
        "SELECT atttypmod FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'embedding'", (table,)
    ).scalar()
    return found


def make(tx: sa.Connection, model_id: str, dimension: int) -> None:
    """Make the empty table `face_encodings_next` for another model's embeddings, with its primary key only."""
    tx.exec_driver_sql(
        f"CREATE TABLE {NEXT} (LIKE {LIVE} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING IDENTITY INCLUDING STORAGE)"
    )
    code = f"bit({dimension}) GENERATED ALWAYS AS (binary_quantize(embedding)::bit({dimension})) STORED"
    tx.exec_driver_sql(f"ALTER TABLE {NEXT} DROP CONSTRAINT IF EXISTS {OF_MODEL}, DROP COLUMN code")
    tx.exec_driver_sql(f"ALTER TABLE {NEXT} ALTER COLUMN embedding TYPE vector({dimension})")
    tx.exec_driver_sql(f"ALTER TABLE {NEXT} ADD COLUMN code {code}")
    _require_model(tx, NEXT, model_id)
    for column in tx.exec_driver_sql(_COLUMNS, (LIVE,)):
        storage = {"p": "PLAIN", "m": "MAIN", "e": "EXTERNAL", "x": "EXTENDED"}[column.storage]
        tx.exec_driver_sql(f'ALTER TABLE {NEXT} ALTER COLUMN "{column.name}" SET STORAGE {storage}')
        if column.unsampled:  # as migration 0005 has it: no statistics are to keep what an erasure has to remove
            tx.exec_driver_sql(f'ALTER TABLE {NEXT} ALTER COLUMN "{column.name}" SET STATISTICS 0')
    options = tx.exec_driver_sql("SELECT reloptions FROM pg_class WHERE oid = to_regclass(%s)", (LIVE,)).scalar()
    if options:
        tx.exec_driver_sql(f"ALTER TABLE {NEXT} SET ({', '.join(options)})")
    for index in tx.exec_driver_sql(_INDEXES, (LIVE,)):
        if index.kind == "p":
            tx.exec_driver_sql(f"ALTER TABLE {NEXT} ADD CONSTRAINT {index.name}{_suffix(NEXT)} {index.key}")
    tx.exec_driver_sql(f"ALTER TABLE {NEXT} ENABLE ROW LEVEL SECURITY")
    tx.exec_driver_sql(f"ALTER TABLE {NEXT} FORCE ROW LEVEL SECURITY")
    tx.exec_driver_sql(
        f"CREATE POLICY tenant ON {NEXT} "
        "USING (client_id = current_setting('faceward.client_id', true)) "
        "WITH CHECK (client_id = current_setting('faceward.client_id', true))"
    )
    tx.exec_driver_sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {NEXT} TO {APP_ROLE}")
    _follow_live(tx, NEXT)


def build_indexes(engine: sa.Engine) -> None:
    """Give `face_encodings_next` the indexes of the live table, one after the other, while both are written to.

    What is there already is kept. Raises ConstraintViolatedError where rows await being brought in line first.
    """
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        there = {index.name: index for index in connection.exec_driver_sql(_INDEXES, (NEXT,))}
        for index in connection.exec_driver_sql(_INDEXES, (LIVE,)).all():
            name = index.name + _suffix(NEXT)
            standing = there.get(name)
            if standing is None or not standing.valid:
                connection.exec_driver_sql(f"DROP INDEX IF EXISTS {name}")
                head, _, rest = index.definition.partition(" USING ")
                unique = "UNIQUE " if head.startswith("CREATE UNIQUE") else ""
                connection.exec_driver_sql(f"CREATE {unique}INDEX CONCURRENTLY {name} ON {NEXT} USING {rest}")
            if index.kind == "u" and (standing is None or standing.kind is None):
                connection.exec_driver_sql(f"ALTER TABLE {NEXT} ADD CONSTRAINT {name} UNIQUE USING INDEX {name}")
        connection.exec_driver_sql(f"VACUUM (ANALYZE) {NEXT}")


def missing_indexes(tx: sa.Connection, shadow: Shadow) -> list[str]:
    """Those of the live table that the other one has not, or not whole. The HNSW index is none of them: searches do without."""
    whole = {index.name for index in tx.exec_driver_sql(_INDEXES, (shadow,)) if index.valid}
    return [index.name for index in tx.exec_driver_sql(_INDEXES, (LIVE,)) if index.name + _suffix(shadow) not in whole]


def has_graph(tx: sa.Connection) -> bool:
    """Whether the live table has the HNSW index, whole: an import sets it aside, and `missing_indexes` leaves it out."""
    valid = tx.exec_driver_sql(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s) AND indrelid = to_regclass(%s)",
        (GRAPH, LIVE),
    ).scalar()
    return bool(valid)


def hold_writes(tx: sa.Connection, shadow: Shadow, *, seconds: float) -> None:
    """From here to the transaction's end nobody else writes persons or faces, nor begins a tenant's gallery; searches go on.

    seconds: the longest wait for those who are writing. It has to pass PostgreSQL's deadlock_timeout (a second), after
    which a vacuum makes way. Raises BusyError.
    """
    # In the order in which an enrolment takes them.
    tx.exec_driver_sql("SELECT set_config('lock_timeout', %s, true)", (f"{round(1000 * seconds)}ms",))
    tx.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (MODEL_LOCK,))
    tx.exec_driver_sql(f"LOCK TABLE persons, {LIVE} IN EXCLUSIVE MODE")
    tx.exec_driver_sql(f"LOCK TABLE {shadow} IN SHARE ROW EXCLUSIVE MODE")


def hold_searches(tx: sa.Connection, shadow: Shadow, *, seconds: float) -> None:
    """From here to the transaction's end nobody reads persons or faces either. Raises BusyError."""
    tx.exec_driver_sql("SELECT set_config('lock_timeout', %s, true)", (f"{round(1000 * seconds)}ms",))
    tx.exec_driver_sql(f"LOCK TABLE {LIVE}, persons, {shadow} IN ACCESS EXCLUSIVE MODE")


def exchange(tx: sa.Connection, incoming: Shadow, outgoing: Shadow, *, model_from: str, model_to: str) -> None:
    """The table `incoming` becomes the live one, and the live one `outgoing`, with all that goes by their names.

    The transaction holds the searches. The rows of the two are in line.
    """
    person_key = tx.exec_driver_sql(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = to_regclass(%s) AND conname = %s",
        (LIVE, _PERSON_KEY),
    ).scalar_one()
    _require_no_other_keys(tx, incoming)
    tx.exec_driver_sql(f"ALTER TABLE {LIVE} DROP CONSTRAINT {_PERSON_KEY}")
    tx.exec_driver_sql(
        f"ALTER TABLE {incoming} DROP CONSTRAINT IF EXISTS {_LIVE_KEY}, DROP CONSTRAINT IF EXISTS {_OWNER_KEY}"
    )
    tx.exec_driver_sql(
        "SELECT setval(pg_get_serial_sequence(%(into)s, 'id'), nextval(pg_get_serial_sequence(%(from)s, 'id')))",
        {"into": incoming, "from": LIVE},
    )
    _require_model(tx, LIVE, model_from)
    for name in _named_after(tx, LIVE):
        _rename(tx, name, name + _suffix(outgoing))
    for name in _named_after(tx, incoming):
        _rename(tx, name, name.removesuffix(_suffix(incoming)).replace(f"{incoming}_", f"{LIVE}_"))
    tx.exec_driver_sql(f"ALTER TABLE {LIVE} RENAME TO {outgoing}")
    tx.exec_driver_sql(f"ALTER TABLE {incoming} RENAME TO {LIVE}")
    # Not validated here, which would read the table while the searches wait; `validate` does it afterwards.
    tx.exec_driver_sql(
        f"ALTER TABLE {LIVE} ADD CONSTRAINT {_PERSON_KEY} {person_key.removesuffix(' NOT VALID')} NOT VALID"
    )
    _follow_live(tx, outgoing)
    # It may hold faces that are left behind now: of these no key to the live table tells.
    tx.exec_driver_sql(
        f"ALTER TABLE {outgoing} ADD CONSTRAINT {_OWNER_KEY} FOREIGN KEY (client_id, person_id) "
        "REFERENCES persons (client_id, id) ON DELETE CASCADE NOT VALID"
    )
    _name_model(tx, model_to)


def validate(tx: sa.Connection) -> None:
    """Tell PostgreSQL that each face of the live table has its person; searches and writes go on."""
    tx.exec_driver_sql(f"ALTER TABLE {LIVE} VALIDATE CONSTRAINT {_PERSON_KEY}")


def drop(tx: sa.Connection, shadow: Shadow, *, seconds: float) -> None:
    """Drop the table that does not serve. Raises BusyError where its keys' tables are not to be had so long."""
    tx.exec_driver_sql("SELECT set_config('lock_timeout', %s, true)", (f"{round(1000 * seconds)}ms",))
    tx.exec_driver_sql(f"DROP TABLE IF EXISTS {shadow}")


def tenants(database: Database) -> list[str]:
    """Every tenant that has, or had, a face."""
    with database.unscoped() as tx:
        tx.exec_driver_sql(EVERY_MODEL)
        found = tx.exec_driver_sql("SELECT DISTINCT client_id FROM embedding_models ORDER BY client_id")
        return list(found.scalars())


def changed_tenants(tx: sa.Connection, since: str) -> list[str]:
    """The tenants with a face that was written by the transaction `since` or a later one."""
    tx.exec_driver_sql(EVERY_MODEL)
    tx.exec_driver_sql("SELECT set_config('faceward.since', %s, true)", (since,))
    tx.exec_driver_sql("CREATE TEMPORARY TABLE IF NOT EXISTS changed_tenants (client_id text) ON COMMIT DROP")
    tx.exec_driver_sql("TRUNCATE changed_tenants")
    tx.exec_driver_sql(_FIND_CHANGED)
    tx.exec_driver_sql("SELECT set_config('faceward.every_model', '', true)")
    return list(tx.exec_driver_sql("SELECT client_id FROM changed_tenants ORDER BY 1").scalars())


# One round trip for all tenants, each inside its own policy.
_FIND_CHANGED = f"""
DO $$
DECLARE
    tenant text;
BEGIN
    FOR tenant IN SELECT DISTINCT client_id FROM embedding_models LOOP
        PERFORM set_config('faceward.client_id', tenant, true);
        IF EXISTS (
            SELECT 1 FROM regions r CROSS JOIN LATERAL (
                SELECT 1 FROM {LIVE} f WHERE f.client_id = r.client_id AND f.region = r.name
                AND f.row_version >= current_setting('faceward.since')::xid8 LIMIT 1
            ) f WHERE r.client_id = tenant
        ) THEN
            INSERT INTO changed_tenants VALUES (tenant);
        END IF;
    END LOOP;
END $$
"""
_NAME_MODEL = """
DO $$
DECLARE
    tenant text;
BEGIN
    FOR tenant IN SELECT DISTINCT client_id FROM embedding_models LOOP
        PERFORM set_config('faceward.client_id', tenant, true);
        UPDATE embedding_models SET model_id = current_setting('faceward.model_to') WHERE client_id = tenant;
    END LOOP;
END $$
"""


def _name_model(tx: sa.Connection, model_id: str) -> None:
    tx.exec_driver_sql(EVERY_MODEL)
    tx.exec_driver_sql("SELECT set_config('faceward.model_to', %s, true)", (model_id,))
    tx.exec_driver_sql(_NAME_MODEL)
    tx.exec_driver_sql("SELECT set_config('faceward.every_model', '', true)")


def _follow_live(tx: sa.Connection, shadow: Shadow) -> None:
    """What is deleted from the live table is deleted from the other one. NOT VALID: the other one may hold faces that the
    live one has not, which were left behind; they go with their person.
    """
    tx.exec_driver_sql(
        f"ALTER TABLE {shadow} ADD CONSTRAINT {_LIVE_KEY} FOREIGN KEY (client_id, id) "
        f"REFERENCES {LIVE} (client_id, id) ON DELETE CASCADE NOT VALID"
    )


def _require_model(tx: sa.Connection, table: str, model_id: str) -> None:
    tx.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {OF_MODEL}")
    literal = tx.exec_driver_sql("SELECT quote_literal(%s)", (model_id,)).scalar_one().replace("%", "%%")
    tx.exec_driver_sql(f"ALTER TABLE {table} ADD CONSTRAINT {OF_MODEL} CHECK (model_id = {literal}) NOT VALID")


def _require_no_other_keys(tx: sa.Connection, shadow: Shadow) -> None:
    """A key of a further table to the live one would go on pointing to the table that no longer serves."""
    others = tx.exec_driver_sql(
        "SELECT conrelid::regclass::text FROM pg_constraint "
        "WHERE contype = 'f' AND confrelid = to_regclass(%s) AND conrelid <> to_regclass(%s)",
        (LIVE, shadow),
    ).scalars()
    if named := sorted(others):
        raise ConflictError(
            f"The tables {', '.join(named)} refer to {LIVE}, which faceward's own don't. Drop those foreign keys first."
        )


def _names(tx: sa.Connection, table: str) -> set[str]:
    return {column.name for column in tx.exec_driver_sql(_COLUMNS, (table,))}


def _named_after(tx: sa.Connection, table: str) -> list[str]:
    """The indexes (with the constraints that they carry) and the sequence of a table."""
    found = tx.exec_driver_sql(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = to_regclass(%(table)s) "
        "UNION ALL SELECT relname FROM pg_class WHERE oid = pg_get_serial_sequence(%(table)s, 'id')::regclass",
        {"table": table},
    )
    return list(found.scalars())


def _rename(tx: sa.Connection, name: str, to: str) -> None:
    if name != to:
        tx.exec_driver_sql(f'ALTER TABLE "{name}" RENAME TO "{to}"')


def _suffix(shadow: Shadow) -> str:
    return shadow.removeprefix(LIVE)
