"""Backups of faceward's tables in PostgreSQL's own format, and the proof that each of them is one.

pg_dump writes the file, in the snapshot in which this module reads what the database holds. The proof restores the file
into a server made for it and thrown away after it, needing no rights and no room on the server that was backed up, and
compares.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from faceward.errors import AccessDeniedError, BackupFailedError, FacewardError, ProgramMissingError
from faceward.store.contents import Contents, differences, read_contents, revision_of
from faceward.store.database import parse_url, shown
from faceward.store.embedded import BUNDLED_MAJOR
from faceward.store.libpq import Connection, connected, login_environment
from faceward.store.own_tables import other_relations, own_schema, own_tables
from faceward.store.programs import find_programs
from faceward.store.restore import Restoration
from faceward.store.scratch_server import locked, scratch_server
from faceward.target_files import check_target

MAKE_LOGIN = (
    "As a superuser: CREATE ROLE faceward_backup LOGIN BYPASSRLS; GRANT pg_read_all_data TO faceward_backup; then give it a "
    "password (in psql: \\password faceward_backup), and name that login in database.backup_url."
)
_LOCK_SECONDS = 60
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class BackupReport:
    """file: with its size in bytes and SHA-256. version: of the tables. checked: it was restored and compared.

    rows: by table, where it was checked. searches: answered by both databases alike.
    """

    file: Path
    bytes: int
    sha256: str
    version: str | None
    checked: bool
    rows: Mapping[str, int]
    searches: int
    seconds: float


class Backups:
    """Backups of one database.

    url: a login that row-level security doesn't bind, as a superuser or one with BYPASSRLS. programs: the folders to look
    for PostgreSQL's programs in, None for the PATH. scratch: where the server of a check may have its directory.
    """

    def __init__(self, url: str, programs: Sequence[Path | None], scratch: Path, *, connect_timeout: int = 5) -> None:
        self._url = parse_url(url)
        self._programs = programs
        self._scratch = scratch
        self._timeout = connect_timeout

    def bound_login(self) -> str | None:
        """The login, where row-level security binds it, so that it backs up nothing. Raises StoreError."""
        with connected(self._url, "faceward-backup", timeout=self._timeout) as connection:
            return _bound_login(connection)

    def write(
        self,
        file: Path,
        *,
        check: bool = True,
        replace: bool = False,
        progress: Callable[[str, int], None] | None = None,
    ) -> BackupReport:
        """Back up into the file, which is there whole and checked, or not at all.

        check: restore it and compare. replace: an older file of that name, never a directory, pipe or device. progress:
        told what is being done, and the bytes written.

        Raises FileExistsError and other OSErrors of the file, BackupFailedError, ProgramMissingError, AccessDeniedError,
        BusyError, StoreError.
        """
        begun = time.monotonic()
        tell = progress or _quiet
        file = file.absolute()
        check_target(file, replace=replace)
        with _part_of(file) as (part, descriptor):
            contents = self._dump(descriptor, part, check, tell)
            if check:
                tell("Checking the backup", part.stat().st_size)
                self._check(part, contents)
            os.fsync(descriptor)
            digest = _sha256(part)
            part.replace(file)
            _sync_directory(file.parent)
        return BackupReport(
            file=file,
            bytes=file.stat().st_size,
            sha256=digest,
            version=contents.revision,
            checked=check,
            rows=contents.rows,
            searches=len(contents.probes),
            seconds=time.monotonic() - begun,
        )

    def _dump(self, descriptor: int, part: Path, check: bool, tell: Callable[[str, int], None]) -> Contents:
        environment, arguments = login_environment(self._url)
        with self._snapshot() as (connection, snapshot):
            major = connection.info.server_version // 10000
            if check and major > BUNDLED_MAJOR:
                raise ProgramMissingError(
                    f"The check restores into the PostgreSQL {BUNDLED_MAJOR} that comes with faceward, and the server is "
                    f"PostgreSQL {major}. Back up with --no-check, and try the file on a server of that version."
                )
            programs = find_programs(major, self._programs)
            revision = revision_of(connection)
            dump = (
                "--format=custom",
                "--compress=1",  # gzip's fastest: embeddings hardly get smaller with more effort; its checksums tell damage
                f"--snapshot={snapshot}",
                f"--lock-wait-timeout={_LOCK_SECONDS}s",
                "--no-password",
                f"--file={part}",  # to stdout it would write its table of contents twice, the right one last
                *_only_own(connection),
            )
            with programs.running("pg_dump", *dump, *arguments, environment=environment, holds=[descriptor]) as running:
                contents = read_contents(connection) if check else Contents(revision, {}, {}, ())
                while running.process.poll() is None:
                    tell("Writing the backup", part.stat().st_size)
                    time.sleep(_POLL_SECONDS)
                running.finish(_dump_error)
        return contents

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[tuple[Connection, str]]:
        """A transaction that sees what the dump sees, and the name of its snapshot."""
        with connected(self._url, "faceward-backup", timeout=self._timeout) as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            _check_login(connection, shown(self._url))
            row = connection.execute("SELECT pg_export_snapshot()").fetchone()
            assert row is not None
            yield connection, row[0]

    def _check(self, part: Path, before: Contents) -> None:
        with scratch_server(self._scratch) as server:
            try:
                Restoration(server.url, [server.bin_path]).run(part)
                with connected(parse_url(server.url), "faceward-check") as connection:
                    with connection.transaction():
                        after = read_contents(connection)
                    found = differences(before, after, connection)
            except FacewardError as exc:
                raise BackupFailedError(
                    f"The backup was written, and could not be restored to check it: {exc} No file was kept."
                ) from exc
        if found:
            raise BackupFailedError(
                f"The backup does not hold what the database holds: {'; '.join(found)}. No file was kept; try again."
            )


@contextlib.contextmanager
def _part_of(file: Path) -> Iterator[tuple[Path, int]]:
    """FILE.part, its owner's alone; removed where the block fails. pg_dump holds its lock too: where this process is
    killed, the next one is told to wait for the end of it.
    """
    part = file.with_name(f"{file.name}.part")
    with locked(part, f"Another backup is being written to {part}.") as descriptor:
        try:
            os.fchmod(descriptor, 0o600)
            os.ftruncate(descriptor, 0)
            yield part, descriptor
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _only_own(connection: Connection) -> list[str]:
    """The options by which pg_dump leaves out what others keep in the database."""
    schema = own_schema(connection)
    assert schema is not None
    others = other_relations(connection, schema, own_tables(connection, schema))
    return [
        f"--schema={_pattern(schema)}",
        *(f"--exclude-table={_pattern(schema)}.{_pattern(name)}" for name in others),
    ]


def _pattern(name: str) -> str:
    """As pg_dump takes exactly this name."""
    return '"' + name.replace('"', '""') + '"'


def _check_login(connection: Connection, url: str) -> None:
    login = _bound_login(connection)
    if login is not None:
        raise AccessDeniedError(
            f"The login {login} ({url}) is bound by row-level security, so its backup would lack rows. {MAKE_LOGIN}"
        )


def _bound_login(connection: Connection) -> str | None:
    row = connection.execute(
        "SELECT rolsuper OR rolbypassrls, current_user::text FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    assert row is not None
    return None if row[0] else row[1]


def _quiet(_stage: str, _done: int) -> None:
    return


def _dump_error(reason: str) -> BackupFailedError:
    return BackupFailedError(f"The backup could not be written: {reason}. No file was kept.")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
