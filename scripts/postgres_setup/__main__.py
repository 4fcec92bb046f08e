"""Prepare a PostgreSQL server for faceward: two roles, a database, the extension `vector`, the URLs in config.json.

Creates on a server of PostgreSQL 14 or newer with pgvector 0.7 or newer
  - the role faceward_owner, which owns the database and runs its migrations,
  - the role faceward_app, which the service uses; row-level security holds for it,
  - the database with the extension vector,
and writes their URLs into config.json (mode 600). Run again, it changes nothing, and no password.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import advice
from config_file import (
    APP,
    OWNER,
    VARIABLES,
    Address,
    Credential,
    SetupError,
    check_writable,
    find_credential,
    merged,
    read_config,
    without_password,
    write_config,
)
from server import (
    OLDEST_SERVER,
    UNREACHABLE,
    Facts,
    PsqlError,
    Server,
    find_server,
    is_local,
    is_new_enough,
    login_problem,
    scram_verifier,
    superuser_settings,
)

EPILOG = """\
Environment: FACEWARD_OWNER_PASSWORD and FACEWARD_APP_PASSWORD. Without them, passwords that stand in config.json are
kept and others are generated.

No server to prepare? faceward brings its own: put "url": "embedded" into config.json, and skip this script.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One change. what: like "role faceward_app"; how: a verb, like "create"."""

    how: str
    what: str
    run: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Setup:
    """All that is known once the server and the config have been looked at."""

    server: Server
    facts: Facts
    address: Address
    credentials: tuple[Credential, ...]
    config_path: Path
    reset_passwords: bool

    def check(self) -> None:
        """Raise SetupError for what this script does not mend by itself. Changes nothing."""
        facts, shown = self.facts, self.server.shown
        if facts.version_number < OLDEST_SERVER:
            raise SetupError(f"The server at {shown} is PostgreSQL {facts.version}; faceward needs 14 or newer.")
        if facts.is_standby:
            raise SetupError(f"The server at {shown} is a standby and can't be written to.", "Name its primary: --host")
        if not facts.admin_may_create:
            raise SetupError(
                f"{facts.admin} may not create roles and databases on the server at {shown}.",
                "Name a role that may: --superuser NAME, or a URL.",
            )
        if not any(is_new_enough(found) for found in (facts.vector_installed, facts.vector_available) if found):
            raise advice.no_vector(self.server, facts)
        self._check_database()
        for credential in self.credentials:
            self._check_role(credential)

    def _check_database(self) -> None:
        name, owner = self.address.database, self.facts.database_owner
        if owner not in (None, OWNER):
            raise SetupError(
                f"The database {name} exists and belongs to {owner}, not to {OWNER}.",
                f'Take another name (--database), or hand it over: ALTER DATABASE "{name}" OWNER TO {OWNER}',
            )
        if self.facts.database_encoding not in (None, "UTF8"):
            raise SetupError(
                f"The database {name} has the encoding {self.facts.database_encoding}; names of people need UTF8.",
                "Take another name (--database), or drop that database if nothing of value is in it.",
            )
        if self.facts.app_is_owner:
            raise SetupError(
                f"{APP} is a member of {OWNER}, so row-level security would not hold for it.",
                f"Mend it: REVOKE {OWNER} FROM {APP}",
            )

    def _check_role(self, credential: Credential) -> None:
        role = credential.role
        found = self.facts.roles.get(role)
        if found is None:
            return
        if not found.is_bound:
            raise SetupError(
                f"{role} is a superuser or has BYPASSRLS, so the data of clients would not be kept apart.",
                f"Mend it: ALTER ROLE {role} NOSUPERUSER NOBYPASSRLS",
            )
        if not found.can_login:
            raise SetupError(f"{role} may not log in.", f"Mend it: ALTER ROLE {role} LOGIN")
        if self.reset_passwords:
            return
        ways = (
            f"Give it: {VARIABLES[role]}=... ./setup_postgres.sh",
            "or set new passwords with --reset-passwords; every service that uses the old ones needs them then.",
        )
        if credential.source == "generated":
            raise SetupError(f"{role} exists, and its password does not stand in {self.config_path}.", *ways)
        said = self._login_problem(credential, self.address.database if self.facts.database_owner else "postgres")
        if "password authentication failed" in said:
            where = VARIABLES[role] if credential.source == "environment" else str(self.config_path)
            raise SetupError(f"{role} exists, and has another password than {where} says.", *ways)
        if said:
            raise advice.no_login(self.address, role, said)

    def _login_problem(self, credential: Credential, database: str) -> str:
        environment = self.server.environment
        return login_problem(self.address, database, credential.role, credential.password, environment)

    def steps(self) -> Iterator[Step]:
        """What is to be done, in an order that can be taken up again after any interruption.

        The passwords are written to the config before anything can fail that would lose them.
        """
        facts, database = self.facts, self.address.database
        for credential in self.credentials:
            if credential.role not in facts.roles:
                options = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
                yield self._sql("create", f"role {credential.role}", self._role_sql("CREATE", credential, options))
            elif self.reset_passwords:
                yield self._sql("renew", f"password of {credential.role}", self._role_sql("ALTER", credential, ""))
        config = read_config(self.config_path)
        changed = merged(config, self.address, self.credentials)
        if changed != config:
            before, after = (
                without_password(str(section.get("url", "embedded")))
                for section in (config.get("database", {}), changed["database"])
            )
            note = "" if before in ("embedded", after) else f" (before: {before})"
            yield Step("write", f"{self.config_path}{note}", lambda: write_config(self.config_path, changed))
        elif self.config_path.stat().st_mode & 0o077:
            yield Step("protect", f"{self.config_path} (mode 600)", lambda: self.config_path.chmod(0o600))
        if facts.database_owner is None:
            # An administrator who is no superuser may only give a database to a role that it is a member of.
            grant = "" if facts.admin_is_super else f"GRANT {OWNER} TO CURRENT_USER;\n"
            # A server made without a locale stores bytes of no known encoding by itself; the C locale goes with any.
            text = "ENCODING 'UTF8'" + ("" if facts.server_encoding == "UTF8" else " LOCALE 'C'")
            sql = f'{grant}CREATE DATABASE "{database}" OWNER {OWNER} TEMPLATE template0 {text};'
            yield self._sql("create", f"database {database}", sql)
            if facts.version_number < 150000:
                # As it is from 15 on: the owner of the database rules its public schema, and nobody else makes tables.
                sql = f"ALTER SCHEMA public OWNER TO {OWNER};\nREVOKE CREATE ON SCHEMA public FROM PUBLIC;"
                yield self._sql("hand", f"schema public to {OWNER}", sql, database)
        version = facts.vector_available
        if facts.vector_installed is None:
            yield self._sql("create", f"extension vector {version}", "CREATE EXTENSION vector;", database)
        elif not is_new_enough(facts.vector_installed):
            yield self._sql("update", f"extension vector to {version}", "ALTER EXTENSION vector UPDATE;", database)

    def _sql(self, how: str, what: str, sql: str, database: str = "postgres") -> Step:
        def run() -> None:
            try:
                self.server.run(sql, database)
            except PsqlError as exc:
                raise SetupError(f"The server would not {how} {what}.", f"psql: {exc}") from exc

        return Step(how, what, run)

    @staticmethod
    def _role_sql(verb: str, credential: Credential, options: str) -> str:
        return f"{verb} ROLE {credential.role} {options} PASSWORD '{scram_verifier(credential.password)}';"

    def check_logins(self) -> None:
        for credential in self.credentials:
            said = self._login_problem(credential, self.address.database)
            if said:
                raise advice.no_login(self.address, credential.role, said)


def parse_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="setup_postgres.sh",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", help="the server; default: $PGHOST, else this machine")
    parser.add_argument("--port", type=int, help="default: $PGPORT, else 5432")
    parser.add_argument("--database", default="face_recognition", help="its name; default: face_recognition")
    parser.add_argument(
        "--superuser",
        metavar="WHO",
        help="a role that may create roles and databases: its name (password from $PGPASSWORD or ~/.pgpass), or "
        "postgresql://user:password@host:port/postgres. Default: on this machine the account `postgres`, through "
        "runuser, su or sudo, where that is possible; else $PGUSER",
    )
    parser.add_argument("--config", type=Path, metavar="PATH", help="default: config.json beside this script")
    parser.add_argument(
        "--install", action="store_true", help="install PostgreSQL and pgvector by apt-get where they are missing"
    )
    parser.add_argument(
        "--reset-passwords", action="store_true", help="set new passwords, or those that the environment gives"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    return parser.parse_args(arguments)


def as_root(*command: str) -> None:
    sudo = () if os.geteuid() == 0 else ("sudo",)
    try:
        subprocess.run([*sudo, *command], check=True, stdout=sys.stderr)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise SetupError(f"`{' '.join(command)}` failed, as root: {exc}") from exc


def install_packages(*names: str) -> None:
    if shutil.which("apt-get") is None:
        raise SetupError(
            "--install knows apt-get only, which is not here.", f"Install this yourself: {' '.join(names)}"
        )
    as_root("apt-get", "update", "-qq")
    as_root("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", *names)


def install_server(port: int) -> None:
    """A PostgreSQL server of this machine that is installed and runs."""
    if not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        install_packages("postgresql")
    for version, name, cluster_port, status in advice.debian_clusters():
        if cluster_port == str(port) and status == "down":
            as_root("pg_ctlcluster", version, name, "start")


def install_vector(major: int) -> None:
    """pgvector, where the package sources of this machine have it for this server."""
    package = f"postgresql-{major}-pgvector"
    if shutil.which("apt-cache") is None:
        return
    listed = subprocess.run(["apt-cache", "search", "--names-only", f"^{package}$"], capture_output=True, check=False)
    if listed.stdout:
        install_packages(package)


def look(server: Server, database: str) -> Facts:
    try:
        return server.facts(database)
    except PsqlError as exc:
        said = str(exc)
        if any(sign in said for sign in UNREACHABLE):
            raise advice.no_server(server, said) from exc
        raise advice.refused(server, said) from exc


def prepare(options: argparse.Namespace) -> Setup:
    """Look at the config and the server; install what is missing where that was asked for."""
    if not all(char.isascii() and (char.isalnum() or char in "_-") for char in options.database or "."):
        raise SetupError(f"The database name {options.database!r} must be letters, digits, _ and - only.")
    environment = dict(os.environ)
    if options.superuser:
        environment |= superuser_settings(options.superuser)
    host: str | None = options.host or environment.get("PGHOST") or None
    port = options.port if options.port is not None else environment.get("PGPORT") or 5432
    if not str(port).isdigit() or not 1 <= int(port) <= 65535:
        raise SetupError(f"The port {port} must be a number from 1 to 65535.")
    url_host = "localhost" if not host or host.startswith("/") else host
    address = Address(url_host, int(port), options.database)

    config_path = options.config or Path(__file__).resolve().parents[2] / "config.json"
    config = read_config(config_path)
    check_writable(config_path)
    reset = options.reset_passwords
    credentials = tuple(find_credential(role, config, environment, address, reset=reset) for role in (OWNER, APP))

    may_install = options.install and not options.dry_run
    if may_install and is_local(host):
        install_server(address.port)
    if shutil.which("psql") is None:
        if not may_install:
            raise SetupError(
                "psql, PostgreSQL's command line, is not installed.",
                "Debian and Ubuntu: apt-get install postgresql-client, or run this script with --install.",
            )
        install_packages("postgresql-client")
    server = find_server(host, address.port, environment)
    facts = look(server, address.database)
    if may_install and is_local(host) and not (facts.vector_available or facts.vector_installed):
        install_vector(facts.major)
        facts = look(server, address.database)
    return Setup(server, facts, address, credentials, config_path, reset)


def main(arguments: list[str]) -> int:
    options = parse_options(arguments)
    say = sys.stdout.write
    try:
        setup = prepare(options)
        setup.check()
        say(f"PostgreSQL {setup.facts.version} at {setup.server.shown}\n")
        steps = list(setup.steps())
        for step in steps:
            say(f"  {'would ' if options.dry_run else ''}{step.how} {step.what}\n")
            sys.stdout.flush()
            if not options.dry_run:
                step.run()
        if not steps:
            say("  everything is there already; nothing was changed\n")
        if options.dry_run:
            return 0
        setup.check_logins()
    except SetupError as exc:
        sys.stderr.write(f"setup_postgres: {exc}\n")
        return 1
    say(f"{OWNER} and {APP} can log in at {setup.address.host}:{setup.address.port}.\nNext:\n")
    say("  .venv/bin/faceward db upgrade                   makes the tables\n")
    say("  .venv/bin/python test_postgres_integration.py   tries all of it\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
