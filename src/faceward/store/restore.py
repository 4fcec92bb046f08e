"""A backup brought into a database, in one transaction: all of it, or nothing and what was there stays.

pg_restore writes the backup as SQL, and psql executes it between a BEGIN and a COMMIT of ours, so that running services
see the old rows or the new ones. They wait meanwhile. The tables are new ones, with files of their own: that is how a service's
sketches know that they are of another gallery (watermarks.py).
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

from faceward.errors import BackupFileError, BusyError, DatabaseNotEmptyError, FacewardError, RestoreFailedError
from faceward.store.database import parse_url, shown
from faceward.store.graph_index import NAME as GRAPH_INDEX
from faceward.store.libpq import Connection, connected, login_environment
from faceward.store.programs import Programs, find_programs
from faceward.store.schema import HEAD, TENANT_TABLES, Schema, known_revisions

_LOCK_SECONDS = 60
_OPTIONS = ("--no-owner", "--no-comments", "--no-publications", "--no-subscriptions", "--no-security-labels")
# What the database has by then (the extension, its schemas), and the graph, which is built once all services go on.
_LEFT_OUT = re.compile(
    rf" (EXTENSION|SCHEMA|COMMENT|DATABASE|DATABASE PROPERTIES|EVENT TRIGGER) | INDEX \S+ {GRAPH_INDEX} "
)
_DATA = re.compile(r" TABLE DATA (\S+ \S+) ")
_NEEDED = ("alembic_version", "persons", "face_encodings")
# All tables of tenants have a policy of this name, also those of a newer version and of a change of model under way.
_STANDING = """
SELECT n.nspname, c.relname, pg_relation_size(c.oid), row_security_active(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid IN (SELECT polrelid FROM pg_policy WHERE polname = 'tenant')
    OR c.oid IN (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name)
ORDER BY 1, 2
"""
# Those of a version that the backup does not know would be in the way of its migration.
_FUNCTIONS = "SELECT oid::regprocedure::text FROM pg_proc WHERE proname LIKE 'faceward\\_%' ORDER BY 1"
_CHECK_VERSION = """
DO $$ BEGIN IF NOT EXISTS (SELECT FROM {schema}.alembic_version WHERE version_num IN ({known})) THEN
RAISE EXCEPTION 'unknown version: the tables are of version %',
    (SELECT coalesce(max(version_num), 'none') FROM {schema}.alembic_version); END IF; END $$;
"""


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """rows: by table, as the backup had them. version: of the tables as they are now."""

    file: Path
    rows: Mapping[str, int]
    version: str


class Restoration:
    """Restores into one database. url: the login that owns, or will own, the tables. programs: as of Backups."""

    def __init__(self, url: str, programs: Sequence[Path | None], *, connect_timeout: int = 5) -> None:
        self._url = parse_url(url)
        self._schema = Schema(url, connect_timeout=connect_timeout)
        self._programs = programs
        self._timeout = connect_timeout

    def run(self, file: Path, *, replace: bool = False, dimension: int = 512) -> RestoreReport:
        """Restore, and bring the tables to this version of faceward. The HNSW index is left out: build it afterwards.

        replace: what the database holds. dimension: as of Schema.upgrade.

        Raises OSError (the file can't be read), BackupFileError, DatabaseNotEmptyError, RestoreFailedError, BusyError,
        ProgramMissingError, StoreError.
        """
        with file.open("rb"):  # says why, where it can't be read
            pass
        with connected(self._url, "faceward-restore", timeout=self._timeout) as connection:
            programs = find_programs(connection.info.server_version // 10000, self._programs)
            entries = _entries(programs, file)
            functions = [str(row[0]) for row in connection.execute(_FUNCTIONS)]
            standing = connection.execute(_STANDING, ([*TENANT_TABLES, "alembic_version"],)).fetchall()
            if not replace and (held := _with_rows(connection, standing)):
                raise DatabaseNotEmptyError(
                    f"The database {shown(self._url)} holds data already (in {', '.join(held)}). --replace puts the backup "
                    "in its place."
                )
        tables = [sql.Identifier(str(row[0]), str(row[1])) for row in standing]
        self._schema.prepare()
        rows = self._load(programs, file, entries, _before(tables, functions))
        self._schema.upgrade(dimension=dimension)
        self._vacuum()
        return RestoreReport(file, rows, HEAD)

    def _load(self, programs: Programs, file: Path, entries: Sequence[str], before: Sequence[str]) -> dict[str, int]:
        environment, arguments = login_environment(self._url)
        options = ("-X", "-w", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=terse")  # no detail: it would quote rows
        with tempfile.NamedTemporaryFile("w", suffix=".list") as listed, tempfile.TemporaryFile() as printed:
            listed.writelines(f"{entry}\n" for entry in entries)
            listed.flush()
            with programs.running(
                "psql", *options, *arguments, environment=environment, stdin=subprocess.PIPE, stdout=printed
            ) as psql:
                script = psql.process.stdin
                assert script is not None
                try:
                    script.write("".join(f"{line}\n" for line in before).encode())
                    script.flush()
                    # Straight from one to the other. What is not followed by the COMMIT below is rolled back.
                    written = ("--clean", "--if-exists", *_OPTIONS, f"--use-list={listed.name}", "--file=-", str(file))
                    with programs.running("pg_restore", *written, stdout=script) as restoring:
                        restoring.finish(lambda reason: _damaged(file, reason))
                    script.write(_after(entries).encode())
                    script.close()
                except (BrokenPipeError, _PsqlEndedError):
                    with contextlib.suppress(OSError):
                        script.close()  # psql has ended, and says why
                psql.finish(self._failed)
            printed.seek(0)
            done = printed.read().decode(errors="replace").splitlines()
        if "COMMIT" not in done[-1:]:
            raise self._failed("psql ended before the last statement")
        counts = [int(line.removeprefix("COPY ")) for line in done if re.fullmatch(r"COPY \d+", line)]
        tables = [found[1].replace(" ", ".") for entry in entries if (found := _DATA.search(entry))]
        return dict(zip(tables, counts, strict=True)) if len(tables) == len(counts) else {}

    def _failed(self, reason: str) -> RestoreFailedError | BusyError | BackupFileError:
        if "lock timeout" in reason or "deadlock" in reason:
            return BusyError(
                f"Running services kept the tables for {_LOCK_SECONDS} s. Nothing was changed; stop them, and try again."
            )
        if "unknown version" in reason:
            found = reason.partition("unknown version: ")[2]
            return BackupFileError(
                f"The backup can't be used by this faceward, whose tables are of version {HEAD}: {found}. A newer faceward "
                "made it: install that one. Nothing was changed."
            )
        return RestoreFailedError(f"The backup could not be restored: {reason}. Nothing was changed.")

    def _vacuum(self) -> None:
        """Index-only scans need the visibility map, and the planner its figures: not to wait for autovacuum."""
        with connected(self._url, "faceward-restore", timeout=self._timeout) as connection:
            for schema, table, *_ in connection.execute(_STANDING, ([*TENANT_TABLES],)).fetchall():
                connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(str(schema), str(table))))


def _with_rows(connection: Connection, standing: Sequence[tuple[Any, ...]]) -> list[str]:
    """The names of the tables of tenants that hold rows. Of one whose rows are hidden from this login its size tells, which
    stays when they are deleted.
    """
    held = []
    for schema, table, size, hidden in standing:
        if not size or table == "alembic_version":
            continue
        any_row = sql.SQL("SELECT FROM {} LIMIT 1").format(sql.Identifier(schema, table))
        if hidden or connection.execute(any_row).rowcount:
            held.append(str(table))
    return held


def _entries(programs: Programs, file: Path) -> list[str]:
    """The lines of the backup's table of contents that are to be restored. Raises BackupFileError."""
    listed = programs.output("pg_restore", "--list", str(file), error=lambda reason: _damaged(file, reason))
    entries = [line for line in listed.splitlines() if line and not line.startswith(";")]
    if lacking := [name for name in _NEEDED if not any(re.search(rf" TABLE \S+ {name} ", entry) for entry in entries)]:
        raise BackupFileError(f"{file} is a backup, but not of faceward: it has no table {', '.join(lacking)}.")
    return [entry for entry in entries if not _LEFT_OUT.search(entry)]


def _before(tables: Sequence[sql.Identifier], functions: Sequence[str]) -> list[str]:
    lines = ["BEGIN;", f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s';"]
    # Foreign keys are checked by joins of tables that have no statistics yet: those other than by hash took 20 s for 20,000
    # faces of one region, and grow with the square of them.
    lines += ["SET LOCAL enable_mergejoin = off;", "SET LOCAL enable_nestloop = off;"]
    if tables:
        listed = sql.SQL(", ").join(tables).as_string()
        # All at once, in one order: dropped one by one they would meet the services' transactions the other way round.
        lines += [f"LOCK TABLE {listed} IN ACCESS EXCLUSIVE MODE;", f"DROP TABLE {listed} CASCADE;"]
    return lines + [f"DROP FUNCTION {function};" for function in functions]


def _after(entries: Sequence[str]) -> str:
    (schema,) = {found[1] for entry in entries if (found := re.search(r" TABLE (\S+) alembic_version ", entry))}
    known = sql.SQL(", ").join(map(sql.Literal, sorted(known_revisions())))
    check = sql.SQL(_CHECK_VERSION).format(schema=sql.Identifier(schema), known=known)
    return f"{check.as_string()}\nCOMMIT;\n"


def _damaged(file: Path, reason: str) -> BackupFileError | _PsqlEndedError:
    if "Broken pipe" in reason or "SIGPIPE" in reason:
        return _PsqlEndedError()
    return BackupFileError(
        f"{file} can't be restored: it is no backup, or a damaged one ({reason}). Nothing was changed."
    )


class _PsqlEndedError(FacewardError):
    """The reader of the backup's SQL has ended, and says why itself."""
