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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from faceward.errors import BackupFileError, BusyError, DatabaseNotEmptyError, FacewardError, RestoreFailedError
from faceward.store.backup_entries import Contents, Entry, chosen, granted, lacking, parsed
from faceward.store.carried_over import ChangedExpiry, carried_over, remembered, told_expiries
from faceward.store.database import parse_url, shown
from faceward.store.libpq import Connection, connected, login_environment
from faceward.store.own_tables import FUNCTION_PREFIX, VERSION_TABLE, OwnTable, own_tables
from faceward.store.programs import Programs, find_programs
from faceward.store.schema import HEAD, Schema, known_revisions

_LOCK_SECONDS = 60
_OPTIONS = ("--no-owner", "--no-comments", "--no-publications", "--no-subscriptions", "--no-security-labels")
_NAMED = """
SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = ANY(%s) ORDER BY 1
"""
_SIZED = "SELECT pg_relation_size(%s::oid), row_security_active(%s::oid)"
# Those of a version that the backup does not know would be in the way of its migration.
_FUNCTIONS = """
SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = %s AND starts_with(p.proname, %s) ORDER BY 1
"""
# Without CASCADE: what others made of these tables (views, foreign keys) is not for a restore to drop. PostgreSQL names them in
# a detail, of which psql says nothing here.
_DROP = """
DO $$ DECLARE others text; BEGIN DROP TABLE {tables};
EXCEPTION WHEN dependent_objects_still_exist THEN GET STACKED DIAGNOSTICS others = PG_EXCEPTION_DETAIL;
RAISE EXCEPTION 'others need the tables: %', replace(others, E'\\n', '; '); END $$;
"""
_CHECK_VERSION = """
DO $$ BEGIN IF NOT EXISTS (SELECT FROM {schema}.alembic_version WHERE version_num IN ({known})) THEN
RAISE EXCEPTION 'unknown version: the tables are of version %',
    (SELECT coalesce(max(version_num), 'none') FROM {schema}.alembic_version); END IF; END $$;
"""


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """rows: by table, as the backup had them. version: of the tables as they are now. left_out: what the file has and
    faceward did not make, as pg_restore names it, and grants to roles that this server has not. expired: people whose
    time is over by the backup. changed_expiries: of people who were there before too, MOST_EXPIRIES at most.
    """

    file: Path
    rows: Mapping[str, int]
    version: str
    left_out: Sequence[str]
    expired: int
    changed_expiries: Sequence[ChangedExpiry]


class Restoration:
    """Restores into one database. url: the login that owns, or will own, the tables. programs: as of Backups."""

    def __init__(self, url: str, programs: Sequence[Path | None], *, connect_timeout: int = 5) -> None:
        self._url = parse_url(url)
        self._schema = Schema(url, connect_timeout=connect_timeout)
        self._programs = programs
        self._timeout = connect_timeout

    def run(self, file: Path, *, replace: bool = False, dimension: int = 512) -> RestoreReport:
        """Restore, and bring the tables to this version of faceward. The HNSW index is left out: build it afterwards.

        replace: what of faceward the database holds. dimension: as of Schema.upgrade.

        Raises OSError (the file can't be read), BackupFileError, DatabaseNotEmptyError, RestoreFailedError, BusyError,
        ProgramMissingError, StoreError.
        """
        with file.open("rb"):  # says why, where it can't be read
            pass
        with connected(self._url, "faceward-restore", timeout=self._timeout) as connection:
            programs = find_programs(connection.info.server_version // 10000, self._programs)
            backup = _contents(programs, file)
            own = own_tables(connection, backup.schema)
            self._check_place(connection, backup, own)
            functions = [str(row[0]) for row in connection.execute(_FUNCTIONS, (backup.schema, FUNCTION_PREFIX))]
            if not replace and (held := _with_rows(connection, backup.schema, own)):
                raise DatabaseNotEmptyError(
                    f"The database {shown(self._url)} holds data already (in {', '.join(held)}). --replace puts the backup "
                    "in its place."
                )
        self._schema.prepare()
        grants, unknown = self._grants(programs, file, backup)
        after = [*grants, *_after(backup, own)]
        rows, printed = self._load(programs, file, backup, _before(backup.schema, own, functions), after)
        self._schema.upgrade(dimension=dimension)
        self._vacuum(backup.schema)
        left_out = [*backup.left_out, *(f"GRANT to the role {role}" for role in unknown)]
        changed, expired = told_expiries(printed)
        return RestoreReport(file, rows, HEAD, left_out, expired, changed)

    def _check_place(self, connection: Connection, backup: Contents, own: Sequence[OwnTable]) -> None:
        """Raises DatabaseNotEmptyError where others have what the backup would make, RestoreFailedError where the tables would
        come where this login does not look for them.
        """
        row = connection.execute("SELECT current_schema()::text").fetchone()
        if row != (backup.schema,):
            raise RestoreFailedError(
                f"The backup's tables are in the schema {backup.schema}, and this login's are in {row and row[0]}. Make that "
                f"schema, and name it in the URL: ?options=-csearch_path%3D{backup.schema}. Nothing was changed."
            )
        ours = {table.name for table in own}
        there = connection.execute(_NAMED, (backup.schema, sorted(backup.tables))).fetchall()
        if others := [name for (name,) in there if name not in ours]:
            raise DatabaseNotEmptyError(
                f"The database {shown(self._url)} has tables that are not faceward's and have the names of its own: "
                f"{', '.join(others)}. Restore into a database without these. Nothing was changed."
            )

    def _grants(self, programs: Programs, file: Path, backup: Contents) -> tuple[list[str], list[str]]:
        """The statements for the roles that this server has, and the names of the others."""
        with connected(self._url, "faceward-restore", timeout=self._timeout) as connection:
            roles = {str(name) for (name,) in connection.execute("SELECT rolname::text FROM pg_roles")}
        with _listed(backup.privileges) as use_list:
            script = programs.output(
                "pg_restore", use_list, "--file=-", str(file), error=lambda reason: _damaged(file, reason)
            )
        return granted(script, roles)

    def _load(
        self, programs: Programs, file: Path, backup: Contents, before: Sequence[str], after: Sequence[str]
    ) -> tuple[dict[str, int], str]:
        """The rows by table, and all that psql printed."""
        environment, arguments = login_environment(self._url)
        options = ("-X", "-w", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=terse")  # no detail: it would quote rows
        with _listed(backup.kept) as use_list, tempfile.TemporaryFile() as printed:
            with programs.running(
                "psql", *options, *arguments, environment=environment, stdin=subprocess.PIPE, stdout=printed
            ) as psql:
                script = psql.process.stdin
                assert script is not None
                try:
                    script.write("".join(f"{line}\n" for line in before).encode())
                    script.flush()
                    # Straight from one to the other. What is not followed by the COMMIT below is rolled back.
                    # It drops nothing: what of somebody else's is in its way is an error.
                    with programs.running(
                        "pg_restore", *_OPTIONS, use_list, "--file=-", str(file), stdout=script
                    ) as restoring:
                        restoring.finish(lambda reason: _damaged(file, reason))
                    script.write("".join(f"{line}\n" for line in after).encode())
                    script.close()
                except (BrokenPipeError, _PsqlEndedError):
                    with contextlib.suppress(OSError):
                        script.close()  # psql has ended, and says why
                psql.finish(self._failed)
            printed.seek(0)
            told = printed.read().decode(errors="replace")
        done = told.splitlines()
        if "COMMIT" not in done[-1:]:
            raise self._failed("psql ended before the last statement")
        counts = [int(line.removeprefix("COPY ")) for line in done if re.fullmatch(r"COPY \d+", line)]
        tables = [f"{entry.schema}.{entry.name}" for entry in backup.kept if entry.kind == "TABLE DATA"]
        return (dict(zip(tables, counts, strict=True)) if len(tables) == len(counts) else {}), told

    def _failed(self, reason: str) -> RestoreFailedError | BusyError | BackupFileError | DatabaseNotEmptyError:
        if "lock timeout" in reason or "deadlock" in reason:
            return BusyError(
                f"Running services kept the tables for {_LOCK_SECONDS} s. Nothing was changed; stop them, and try again."
            )
        if "others need the tables" in reason:
            needing = reason.partition("others need the tables: ")[2]
            return DatabaseNotEmptyError(
                f"Somebody made what needs faceward's tables, and would be lost with them: {needing}. Drop it, restore, and "
                "make it anew. Nothing was changed."
            )
        if "unknown version" in reason:
            found = reason.partition("unknown version: ")[2]
            return BackupFileError(
                f"The backup can't be used by this faceward, whose tables are of version {HEAD}: {found}. A newer faceward "
                "made it: install that one. Nothing was changed."
            )
        return RestoreFailedError(f"The backup could not be restored: {reason}. Nothing was changed.")

    def _vacuum(self, schema: str) -> None:
        """Index-only scans need the visibility map, and the planner its figures: not to wait for autovacuum."""
        with connected(self._url, "faceward-restore", timeout=self._timeout) as connection:
            for table in own_tables(connection, schema):
                connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(schema, table.name)))


def _with_rows(connection: Connection, schema: str, own: Sequence[OwnTable]) -> list[str]:
    """The names of the tables of tenants that hold rows. Of one whose rows are hidden from this login its size tells, which
    stays when they are deleted.
    """
    held = []
    for table in own:
        ((size, hidden),) = connection.execute(_SIZED, (table.oid, table.oid)).fetchall()
        if not size or table.name == VERSION_TABLE:
            continue
        any_row = sql.SQL("SELECT FROM {} LIMIT 1").format(sql.Identifier(schema, table.name))
        if hidden or connection.execute(any_row).rowcount:
            held.append(table.name)
    return held


def _contents(programs: Programs, file: Path) -> Contents:
    """What of the backup is to be restored. Raises BackupFileError."""
    listing = programs.output(
        "pg_restore", "--list", "--verbose", str(file), error=lambda reason: _damaged(file, reason)
    )
    entries = parsed(listing)
    if missing := lacking(entries):
        raise BackupFileError(f"{file} is a backup, but not of faceward: it has no table {', '.join(missing)}.")
    return chosen(entries)


@contextlib.contextmanager
def _listed(entries: Sequence[Entry]) -> Iterator[str]:
    """The option by which pg_restore takes these entries only."""
    with tempfile.NamedTemporaryFile("w", suffix=".list") as listed:
        listed.writelines(f"{entry.line}\n" for entry in entries)
        listed.flush()
        yield f"--use-list={listed.name}"


def _before(schema: str, own: Sequence[OwnTable], functions: Sequence[str]) -> list[str]:
    lines = ["BEGIN;", f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s';"]
    # Foreign keys are checked by joins of tables that have no statistics yet: those other than by hash took 20 s for 20,000
    # faces of one region, and grow with the square of them.
    lines += ["SET LOCAL enable_mergejoin = off;", "SET LOCAL enable_nestloop = off;"]
    if own:
        listed = sql.SQL(", ").join(sql.Identifier(schema, table.name) for table in own)
        # All at once, in one order: dropped one by one they would meet the services' transactions the other way round.
        lines += [f"LOCK TABLE {listed.as_string()} IN ACCESS EXCLUSIVE MODE;"]
        lines += remembered(schema, own)
        lines += [sql.SQL(_DROP).format(tables=listed).as_string()]
    return lines + [f"DROP FUNCTION {function};" for function in functions]


def _after(backup: Contents, own: Sequence[OwnTable]) -> list[str]:
    known = sql.SQL(", ").join(map(sql.Literal, sorted(known_revisions())))
    check = sql.SQL(_CHECK_VERSION).format(schema=sql.Identifier(backup.schema), known=known)
    return [check.as_string(), *carried_over(backup.schema, own, backup.tables), "COMMIT;"]


def _damaged(file: Path, reason: str) -> BackupFileError | _PsqlEndedError:
    if "Broken pipe" in reason or "SIGPIPE" in reason:
        return _PsqlEndedError()
    return BackupFileError(
        f"{file} can't be restored: it is no backup, or a damaged one ({reason}). Nothing was changed."
    )


class _PsqlEndedError(FacewardError):
    """The reader of the backup's SQL has ended, and says why itself."""
