"""The PostgreSQL server: reaching it through psql, and what it has."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import pwd
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from config_file import APP, OWNER, Address, SetupError

OLDEST_SERVER = 140000
OLDEST_VECTOR = (0, 7)
PSQL = ("psql", "-X", "-w", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1")
UNREACHABLE = (
    "Connection refused",
    "No such file or directory",
    "could not translate host name",
    "timeout",
    "No route to host",
    "Network is unreachable",
    "starting up",
)
FACTS = """
SELECT json_build_object(
    'version_number', current_setting('server_version_num')::int,
    'version', split_part(current_setting('server_version'), ' ', 1),
    'is_standby', pg_is_in_recovery(),
    'admin', current_user,
    'admin_is_super', a.rolsuper,
    'admin_may_create', a.rolsuper OR (a.rolcreaterole AND a.rolcreatedb),
    'vector_available', (SELECT default_version FROM pg_available_extensions WHERE name = 'vector'),
    'database_owner', (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = :'database'),
    'server_encoding', (SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'template0'),
    'database_encoding', (SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = :'database'),
    'roles', (SELECT coalesce(json_object_agg(rolname, json_build_object(
                  'can_login', rolcanlogin, 'is_bound', NOT (rolsuper OR rolbypassrls))), '{}')
              FROM pg_roles WHERE rolname IN (:'owner', :'app')),
    'app_is_owner', EXISTS (SELECT FROM pg_auth_members WHERE pg_get_userbyid(roleid) = :'owner'
                            AND pg_get_userbyid(member) = :'app'))
FROM pg_roles a WHERE a.rolname = current_user;
"""


class PsqlError(Exception):
    """psql failed; the text is what it said."""


@dataclass(frozen=True, slots=True)
class RoleFacts:
    can_login: bool
    is_bound: bool  # by row-level security


@dataclass(frozen=True, slots=True)
class Facts:
    """What the server has now. admin: the role that set-up runs as."""

    version_number: int
    version: str
    is_standby: bool
    admin: str
    admin_is_super: bool
    admin_may_create: bool
    vector_available: str | None
    vector_installed: str | None
    database_owner: str | None
    server_encoding: str
    database_encoding: str | None
    roles: Mapping[str, RoleFacts]
    app_is_owner: bool

    @property
    def major(self) -> int:
        return self.version_number // 10000


@dataclass(frozen=True, slots=True)
class Server:
    """psql as a role that may create roles and databases.

    prefix: the command that changes the account first, for a local server that trusts the account `postgres`.
    """

    prefix: tuple[str, ...]
    host: str | None
    port: int
    environment: Mapping[str, str]
    shown: str

    def run(self, sql: str, database: str, variables: Mapping[str, str] | None = None) -> str:
        """Run SQL and return its output. It goes in by standard input, so that no secret is among the arguments."""
        command = [*self.prefix, *PSQL, "-p", str(self.port), "-d", database]
        if self.host:
            command += ["-h", self.host]
        for name, value in (variables or {}).items():
            command += ["-v", f"{name}={value}"]
        # Not the caller's folder, which the account `postgres` may not enter.
        return _output(command, sql, self.environment, folder="/")

    def facts(self, database: str) -> Facts:
        names = {"database": database, "owner": OWNER, "app": APP}
        answer = json.loads(self.run(FACTS, "postgres", names))
        installed = None
        if answer["database_owner"] is not None:
            installed = self.run("SELECT extversion FROM pg_extension WHERE extname = 'vector';", database).strip()
        roles = {name: RoleFacts(**found) for name, found in answer.pop("roles").items()}
        return Facts(**answer, roles=roles, vector_installed=installed or None)


def _output(command: list[str], sql: str, environment: Mapping[str, str], folder: str | None = None) -> str:
    done = subprocess.run(
        command, input=sql, env=dict(environment), cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise PsqlError(done.stderr.strip() or f"psql ended with status {done.returncode}")
    return done.stdout


def login_problem(address: Address, database: str, role: str, password: str, environment: Mapping[str, str]) -> str:
    """Log in as the service will; return what the server said against it, or an empty text."""
    command = [*PSQL, "-h", address.host, "-p", str(address.port), "-U", role, "-d", database]
    try:
        _output(command, "SELECT 1;", {**environment, "PGPASSWORD": password})
    except PsqlError as exc:
        return str(exc)
    return ""


def is_local(host: str | None) -> bool:
    return not host or host in ("localhost", "127.0.0.1", "::1") or host.startswith("/")


def superuser_settings(text: str) -> dict[str, str]:
    """The environment variables of libpq that say what --superuser says: the name of a role, or a URL."""
    if "://" not in text:
        return {"PGUSER": text}
    wanted = "The URL of --superuser must look like postgresql://user:password@host:port/postgres"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as exc:
        raise SetupError(f"{wanted}: {exc}.") from exc
    if parts.scheme not in ("postgresql", "postgres") or not parts.username:
        raise SetupError(f"{wanted}.")
    settings = {"PGUSER": unquote(parts.username)}
    if parts.password:
        settings["PGPASSWORD"] = unquote(parts.password)
    if parts.hostname:
        settings["PGHOST"] = parts.hostname
    if port:
        settings["PGPORT"] = str(port)
    for name, value in parse_qsl(parts.query):
        if name not in ("sslmode", "sslrootcert", "sslcert", "sslkey"):
            raise SetupError(f"The URL of --superuser has the parameter {name!r}, which is not understood here.")
        settings[f"PG{name.upper()}"] = value
    return settings


def find_server(host: str | None, port: int, environment: Mapping[str, str]) -> Server:
    """As $PGUSER where that is set or the server is elsewhere; else as the account `postgres` where that is possible."""
    clean = {**environment, "LC_ALL": "C", "PGAPPNAME": "setup_postgres"}
    clean.setdefault("PGCONNECT_TIMEOUT", "10")
    if "PGUSER" not in environment and is_local(host):
        prefix = _prefix_to_postgres()
        if prefix is not None:
            # Over the socket: without a host, unless that names the folder of the socket.
            socket_folder = host if host and host.startswith("/") else None
            clean.pop("PGHOST", None)
            return Server(prefix, socket_folder, port, clean, f"this machine, port {port}")
    return Server((), host, port, clean, f"{host or 'this machine'}, port {port}")


def _prefix_to_postgres() -> tuple[str, ...] | None:
    try:
        account = pwd.getpwnam("postgres")
    except KeyError:
        return None
    if os.geteuid() == account.pw_uid:
        return ()
    if os.geteuid() == 0:
        if shutil.which("runuser"):
            return ("runuser", "-u", "postgres", "--")
        return ("su", "postgres", "-s", "/bin/sh", "-c", 'exec "$@"', "--", "sh")
    if shutil.which("sudo"):
        return ("sudo", "-u", "postgres", "env", "LC_ALL=C")
    return None


def scram_verifier(password: str) -> str:
    """What PostgreSQL stores for a password (RFC 5803): so the password itself never reaches a server log."""
    salt = secrets.token_bytes(16)
    rounds = 4096  # PostgreSQL's own
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, rounds)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in (salt, stored_key, server_key))
    return f"SCRAM-SHA-256${rounds}:{salt_text}${stored_text}:{server_text}"


def version_tuple(version: str) -> tuple[int, ...]:
    """Like (0, 8, 1) for "0.8.1"; a part that is no number ends it."""
    numbers: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def is_new_enough(vector_version: str) -> bool:
    return version_tuple(vector_version) >= OLDEST_VECTOR
