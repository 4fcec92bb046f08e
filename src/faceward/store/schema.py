"""The tables' shape in a given database: made, checked and described.

Migrations run as the role of the migration URL (the tables' owner); all other work as `faceward_app`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from faceward.errors import AccessDeniedError, ExtensionMissingError, ModelMismatchError, SchemaMissingError
from faceward.store.database import APP_ROLE, EVERY_MODEL, Database, parse_url, shown
from faceward.store.driver_errors import translate, without_values
from faceward.store.graph_index import GraphIndex, GraphSettings
from faceward.store.shadow import LIVE, NEXT, PREVIOUS, build_indexes

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0013"
"""The newest migration. Kept here so that a start on a current database needs no Alembic; a test holds the two equal."""

MIN_PGVECTOR = (0, 7)
_MIGRATION_LOCK = 0x66616365  # "face"
TENANT_TABLES = (
    "regions",
    "embedding_models",
    "persons",
    "former_names",
    "face_encodings",
    "clients",
    "api_keys",
    "request_tokens",
    "jobs",
    "job_chunks",
    "job_refusals",
    "audit_log",
    "decisions",
    "decision_candidates",
    "reembeddings",
    "reembedding_refusals",
)
"""Those that hold rows of tenants; a test holds this equal to the tables that have a client_id."""

CONTRACT_INDEXES = ("idx_embedding_hnsw", "idx_person_region_client")


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """What stands in a database. Versions are None where the thing is absent. unforced: tables of tenants' rows on which
    row-level security is not enabled or not forced.
    """

    server_version: str
    pgvector: str | None
    pgvector_available: str | None
    revision: str | None
    app_role: bool
    app_role_is_safe: bool
    indexes: frozenset[str]
    unforced: frozenset[str]

    @property
    def current(self) -> bool:
        return self.revision == HEAD


class Schema:
    """The schema of one database, through the URL that may change it."""

    def __init__(self, migration_url: str, *, connect_timeout: int = 5) -> None:
        self._url = parse_url(migration_url)
        self._engine = sa.create_engine(
            self._url,
            poolclass=sa.NullPool,
            hide_parameters=True,
            connect_args={"connect_timeout": connect_timeout, "application_name": "faceward-schema"},
        )

    def status(self) -> SchemaStatus:
        """Reads only."""
        with self._connection() as connection:
            return _status(connection)

    def upgrade(self, *, dimension: int = 512) -> bool:
        """Bring the database to HEAD; True if anything was done.

        Under an advisory lock, in one transaction: of two processes that start together one migrates and the other
        waits, and a failure leaves nothing behind. dimension: of the embeddings, for a database that has no tables yet.
        """
        with self._connection() as connection:
            if _revision(connection) == HEAD:
                return False
        # A connection of its own: one that has looked for a table and found none goes on believing so in its transaction.
        with self._connection() as connection:
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
            revision = _revision(connection)
            if revision == HEAD:
                return False
            if revision is not None and revision not in known_revisions():
                raise SchemaMissingError(
                    f"The database holds the tables of version {revision}, which this faceward (version {HEAD}) does not "
                    "know: a newer faceward made them. Install that one here too."
                )
            _ensure_extension(connection)
            _ensure_app_role(connection)
            from alembic import command  # here, as in what follows: a start on a current database does without it

            config = _alembic_config()
            config.attributes.update(connection=connection, dimension=dimension)
            command.upgrade(config, HEAD)
            return True

    def transaction(self) -> AbstractContextManager[sa.Connection]:
        """A transaction as the tables' owner, who is no tenant."""
        return self._connection()

    def build_shadow_indexes(self) -> None:
        """As `faceward.store.shadow.build_indexes`."""
        with self._translated():
            build_indexes(self._engine)

    def prepare(self) -> None:
        """The extension and the role that the tables need, where they are absent. Raises ExtensionMissingError,
        AccessDeniedError.
        """
        with self._connection() as connection:
            _ensure_extension(connection)
            _ensure_app_role(connection)

    def apply_graph(self, settings: GraphSettings, table: str = LIVE) -> bool:
        """Build, drop or rebuild the HNSW index so that it is as the settings say; True if anything was done."""
        with self._translated():
            return GraphIndex(self._engine, table).apply(settings)

    def set_graph_aside(self, at_most: int) -> AbstractContextManager[None] | None:
        """As GraphIndex.set_aside."""
        with self._translated():
            aside = GraphIndex(self._engine).set_aside(at_most)
        return None if aside is None else self._within(aside)

    @contextmanager
    def _within(self, block: AbstractContextManager[None]) -> Iterator[None]:
        with self._translated(), block:
            yield

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        with self._translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, psycopg.Error) as exc:
            raise translate(exc, shown(self._url)) from without_values(exc)


_OTHER_PACK = (
    "Set model.pack in config.json to the pack that made it; `faceward reembed --pack NAME` then changes it to another one. Or "
    "use a database of its own for this pack."
)
"""Told to whoever starts a service or a command, never over HTTP: a service that runs looks at no settings."""


def check_database(database: Database, model_id: str, dimension: int) -> None:
    """Refuse a database that the service can't work with: not migrated, or made by another model.

    Raises SchemaMissingError or ModelMismatchError.
    """
    with database.unscoped() as connection:
        revision = _revision(connection)
        if revision != HEAD:
            found = "no faceward tables" if revision is None else f"the tables of version {revision}"
            raise SchemaMissingError(
                f"The database holds {found}; this faceward needs version {HEAD}. Run `faceward db upgrade`."
            )
        column = connection.exec_driver_sql(
            "SELECT atttypmod FROM pg_attribute WHERE attrelid = 'face_encodings'::regclass AND attname = 'embedding'"
        ).scalar_one()
        connection.exec_driver_sql(EVERY_MODEL)
        others = (
            connection.exec_driver_sql(
                "SELECT DISTINCT model_id FROM embedding_models WHERE model_id <> %s", (model_id,)
            )
            .scalars()
            .all()
        )
    if column != dimension:
        raise ModelMismatchError(
            f"The database holds embeddings of {column} numbers, the model pack in use makes {dimension}. {_OTHER_PACK}"
        )
    if others:
        raise ModelMismatchError(
            f"The database was made by the model {', '.join(sorted(others))}; the pack in use is {model_id}. Their "
            f"embeddings can't be compared. {_OTHER_PACK}"
        )


def pgvector_version(database: Database) -> tuple[int, ...]:
    """As (0, 8, 5); empty where the extension is absent."""
    with database.unscoped() as connection:
        version = connection.exec_driver_sql("SELECT extversion FROM pg_extension WHERE extname = 'vector'").scalar()
    return version_tuple(version or "")


def newest_revision() -> str | None:
    """The newest migration that the package carries."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_alembic_config()).get_current_head()


def known_revisions() -> frozenset[str]:
    """The migrations that the package carries."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_alembic_config())
    return frozenset(script.revision for script in scripts.walk_revisions())


def _alembic_config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(resources.files("faceward.store") / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _revision(connection: sa.Connection) -> str | None:
    if connection.exec_driver_sql("SELECT to_regclass('alembic_version')").scalar() is None:
        return None
    revision: str | None = connection.exec_driver_sql("SELECT max(version_num) FROM alembic_version").scalar()
    return revision


def _status(connection: sa.Connection) -> SchemaStatus:
    def scalar(statement: str, *parameters: Any) -> Any:
        return connection.exec_driver_sql(statement, parameters).scalar()

    role = connection.exec_driver_sql(
        "SELECT rolsuper OR rolbypassrls AS unsafe FROM pg_roles WHERE rolname = %s", (APP_ROLE,)
    ).first()
    indexes = connection.exec_driver_sql(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indrelid IN (to_regclass('face_encodings'), to_regclass('persons')) AND i.indisvalid"
    ).scalars()
    unforced = connection.exec_driver_sql(
        "SELECT relname FROM pg_class WHERE oid = ANY(SELECT to_regclass(name) FROM unnest(%s::text[]) AS name) "
        "AND NOT (relrowsecurity AND relforcerowsecurity)",
        ([*TENANT_TABLES, NEXT, PREVIOUS],),
    ).scalars()
    return SchemaStatus(
        server_version=scalar("SHOW server_version"),
        pgvector=scalar("SELECT extversion FROM pg_extension WHERE extname = 'vector'"),
        pgvector_available=scalar("SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"),
        revision=_revision(connection),
        app_role=role is not None,
        app_role_is_safe=role is not None and not role.unsafe,
        indexes=frozenset(indexes),
        unforced=frozenset(unforced),
    )


def version_tuple(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _ensure_extension(connection: sa.Connection) -> None:
    status = _status(connection)
    if status.pgvector is None:
        if status.pgvector_available is None:
            raise ExtensionMissingError(
                f"PostgreSQL {status.server_version} has no pgvector installed. Install its package (Debian and Ubuntu: "
                "postgresql-NN-pgvector from PostgreSQL's own apt repository), or use the embedded server: "
                '"url": "embedded" in config.json.'
            )
        may_create = connection.exec_driver_sql("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").scalar()
        if not may_create:
            raise ExtensionMissingError(
                "The extension is installed but not in this database. As a superuser, there: CREATE EXTENSION vector;"
            )
        connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector")
        status = _status(connection)
    assert status.pgvector is not None
    if version_tuple(status.pgvector) < MIN_PGVECTOR:
        raise ExtensionMissingError(
            f"pgvector {status.pgvector} is too old: faceward needs 0.7 or newer. Install a newer package, then as a "
            "superuser: ALTER EXTENSION vector UPDATE;"
        )


def _ensure_app_role(connection: sa.Connection) -> None:
    """The role of all work. Roles belong to the whole server, so another database's migration may make it meanwhile."""
    may_create = connection.exec_driver_sql(
        "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
    ).scalar()
    exists = connection.exec_driver_sql("SELECT 1 FROM pg_roles WHERE rolname = %s", (APP_ROLE,)).scalar()
    if not exists:
        if not may_create:
            raise AccessDeniedError(
                f"The role {APP_ROLE} is missing, and this login may not create it. Run ./setup_postgres.sh, or as a "
                f"superuser: CREATE ROLE {APP_ROLE} NOLOGIN; GRANT {APP_ROLE} TO the login of database.url;"
            )
        connection.exec_driver_sql(
            f"DO $$ BEGIN CREATE ROLE {APP_ROLE} NOLOGIN; "
            "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        )
    # From PostgreSQL 16 on, who creates a role is its member but may not act as it.
    may_act = connection.exec_driver_sql(
        f"SELECT pg_has_role(current_user, '{APP_ROLE}', "
        "CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)"
    ).scalar()
    if not may_act and may_create:
        connection.exec_driver_sql(f"GRANT {APP_ROLE} TO CURRENT_USER")
    schema = connection.exec_driver_sql("SELECT quote_ident(current_schema())").scalar()
    connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO {APP_ROLE}")
