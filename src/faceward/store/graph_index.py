"""pgvector's HNSW index: built as the settings say, dropped, and set aside during a large import.

Nothing but the strategy `hnsw` needs it, and every enrolment pays for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import sqlalchemy as sa

from faceward.errors import IndexMissingError, InvalidValueError
from faceward.store.driver_errors import without_values

NAME = "idx_embedding_hnsw"

_PATIENCE = "500ms"
"""How long an import's drop may wait for its lock: as long as it waits, every search waits behind it."""


@dataclass(frozen=True, slots=True)
class GraphSettings:
    """Whether the index exists, and its shape. m: 2..100 links a node. ef_construction: 4..1000, at least 2 m.
    halfvec: index 16-bit copies of the vectors, half the size.
    """

    exists: bool = True
    m: int = 16
    ef_construction: int = 64
    halfvec: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.m <= 100:
            raise InvalidValueError("hnsw m", self.m, "a whole number from 2 to 100")
        if not max(4, 2 * self.m) <= self.ef_construction <= 1000:
            raise InvalidValueError("hnsw ef_construction", self.ef_construction, f"from {max(4, 2 * self.m)} to 1000")


class GraphIndex:
    """The index of one database. engine: of the tables' owner. table: of the faces, another than the live one during a
    change of the model.
    """

    def __init__(self, engine: sa.Engine, table: str = "face_encodings") -> None:
        self._transactions = engine
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._table = table
        self._name = NAME + table.removeprefix("face_encodings")

    def apply(self, settings: GraphSettings) -> bool:
        """Build, drop or rebuild the index so that it is as the settings say; True if anything was done."""
        with self._engine.connect() as connection:
            if not settings.exists:
                had = _definition(connection, self._name) is not None
                self._drop(connection)
                return had
            dimension = connection.exec_driver_sql(
                "SELECT atttypmod FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'embedding'",
                (self._table,),
            ).scalar_one()
            column = f"((embedding::halfvec({dimension})) halfvec_cosine_ops)"
            if not settings.halfvec:
                column = "(embedding vector_cosine_ops)"
            shape = f"USING hnsw {column} WITH (m={settings.m}, ef_construction={settings.ef_construction})"
            standing = _definition(connection, self._name)
            if standing is not None and _plain(shape) in _plain(standing):
                return False
            self._drop(connection)
            _build(connection, f"CREATE INDEX {self._name} ON {self._table} {shape}")
            return True

    def set_aside(self, at_most: int) -> contextlib.AbstractContextManager[None] | None:
        """Drop the index, and return what builds it again at the end of its block.

        None, and nothing done, where there is no index, where the login does not own the table, where the table holds
        more than `at_most` faces: then keeping it up row by row is cheaper; and where a long reader, as a backup, holds the
        index.
        """
        with self._engine.connect() as connection:
            definition = _definition(connection, self._name)
            if definition is None or not connection.exec_driver_sql(_OWNED).scalar():
                return None
            if connection.exec_driver_sql(_SIZE, (at_most + 1,)).scalar_one() > at_most:
                return None
        return self._built_again(definition) if self._dropped_soon() else None

    @contextlib.contextmanager
    def _built_again(self, definition: str) -> Iterator[None]:
        """Raises IndexMissingError where that does not succeed: what the block stored is stored all the same."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(IndexMissingError):
                self._build_again(definition)
            raise
        self._build_again(definition)

    def _build_again(self, definition: str) -> None:
        try:
            with self._engine.connect() as connection:
                _build(connection, definition)
        except sa.exc.SQLAlchemyError as exc:
            raise IndexMissingError(
                "What the report says is stored. Only the HNSW index, which was set aside for so many faces, could not be "
                "built again: `faceward db index` does it. Nothing but the search strategy hnsw needs it."
            ) from without_values(exc)

    def _dropped_soon(self) -> bool:
        try:
            with self._transactions.begin() as tx:
                tx.exec_driver_sql(f"SET LOCAL lock_timeout = '{_PATIENCE}'")
                tx.exec_driver_sql(f"DROP INDEX IF EXISTS {self._name}")
        except sa.exc.OperationalError as exc:
            if isinstance(exc.orig, psycopg.errors.LockNotAvailable):
                return False
            raise
        return True

    def _drop(self, connection: sa.Connection) -> None:
        """However long who reads the table takes: searches go on meanwhile."""
        connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {self._name}")


_OWNED = "SELECT pg_has_role(current_user, relowner, 'USAGE') FROM pg_class WHERE oid = 'face_encodings'::regclass"
# The planner's estimate: nobody's rows are read for it. A table never analysed says -1.
_SIZE = "SELECT least(greatest(reltuples, 0), %s)::bigint FROM pg_class WHERE oid = 'face_encodings'::regclass"


def _build(connection: sa.Connection, definition: str) -> None:
    """CONCURRENTLY: enrolment goes on. IF NOT EXISTS: a change of the model may have brought one meanwhile.

    A graph that fits in memory while it is built is built many times faster.
    """
    memory = (
        "SELECT set_config('maintenance_work_mem', greatest(pg_size_bytes(current_setting('maintenance_work_mem')), "
    )
    connection.exec_driver_sql(memory + "512 * 1024 * 1024)::bigint / 1024 || 'kB', false)")
    connection.exec_driver_sql(definition.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY IF NOT EXISTS", 1))
    if "halfvec" in definition:  # an expression: PostgreSQL would sample short ones, which an erasure can't reach
        name = definition.split()[2]
        connection.exec_driver_sql(f"ALTER INDEX IF EXISTS {name} ALTER COLUMN 1 SET STATISTICS 0")


def _definition(connection: sa.Connection, name: str) -> str | None:
    """The statement that makes the index as it stands; None where it is absent or was left half built."""
    definition: str | None = connection.exec_driver_sql(
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indexrelid = to_regclass(%s) AND indisvalid", (name,)
    ).scalar()
    return definition


def _plain(definition: str) -> str:
    """For comparison: PostgreSQL writes back what it was given with other brackets, quotes and spaces."""
    return "".join(char for char in definition if char not in " '()")
