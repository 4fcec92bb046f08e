"""What to do where something of the server is missing."""

from __future__ import annotations

import shutil
import subprocess

from config_file import Address, SetupError
from server import Facts, Server, is_local


def no_server(server: Server, said: str) -> SetupError:
    """No answer at the address: is it down, elsewhere, or not installed?"""
    first = f"No PostgreSQL server answers at {server.shown}."
    quoted = [f"psql: {line}" for line in said.splitlines()]
    if server.prefix:
        quoted.append("One in a container has no socket here: PGPASSWORD=... --host localhost --superuser postgres")
    if not is_local(server.host):
        return SetupError(
            first,
            *quoted,
            "Look at these, in this order: are host and port right (--host, --port)? Does the server listen there",
            "(listen_addresses in its postgresql.conf)? Does a firewall stand between?",
        )
    clusters = debian_clusters()
    if clusters:
        lines = [
            f"{version}/{name} runs on port {port}: ./setup_postgres.sh --port {port}"
            if status.startswith("online")
            else f"{version}/{name} (port {port}) is down: start it with `pg_ctlcluster {version} {name} start`, as root"
            for version, name, port, status in clusters
        ]
        return SetupError(first, *quoted, "PostgreSQL is installed here:", *lines)
    return SetupError(
        first,
        *quoted,
        "Start it; or, if there is none on this machine:",
        "- Debian and Ubuntu: apt-get install postgresql, or run this script with --install",
        '- let faceward bring its own: "url": "embedded" in config.json',
    )


def debian_clusters() -> list[tuple[str, str, str, str]]:
    """Version, name, port and status of each cluster that Debian's tools know of."""
    if shutil.which("pg_lsclusters") is None:
        return []
    listed = subprocess.run(["pg_lsclusters", "-h"], capture_output=True, text=True, check=False).stdout
    rows = (line.split() for line in listed.splitlines())
    return [(row[0], row[1], row[2], row[3]) for row in rows if len(row) > 3]


def refused(server: Server, said: str) -> SetupError:
    """The server answers and does not let the administrator in."""
    user = server.environment.get("PGUSER", "this account")
    if "password authentication failed" in said or "no password supplied" in said:
        return SetupError(
            f"The server at {server.shown} refused the password of {user}.",
            f"psql: {said}",
            "Give the right one: PGPASSWORD=... ./setup_postgres.sh --superuser NAME, or put it into ~/.pgpass.",
        )
    return SetupError(
        f"The server at {server.shown} did not let {user} in.",
        f"psql: {said}",
        "Name a role that may create roles and databases: --superuser NAME, or a URL.",
    )


def no_vector(server: Server, facts: Facts) -> SetupError:
    """pgvector is absent or too old."""
    found = f"pgvector {facts.vector_available}, which is too old" if facts.vector_available else "no pgvector"
    return SetupError(
        f"The server at {server.shown} (PostgreSQL {facts.version}) has {found}.",
        "faceward needs pgvector 0.7 or newer. Nothing was changed. One of these helps:",
        "- A package, on the server's machine. Debian 13, for its own PostgreSQL: apt-get install",
        "  postgresql-17-pgvector. Debian 12 has none for its own PostgreSQL 15, and Ubuntu 24.04 has one that is too",
        "  old: there, add PostgreSQL's own apt repository first, with apt-get install postgresql-common and",
        f"  /usr/share/postgresql-common/pgdg/apt*.sh; then apt-get install postgresql-{facts.major}-pgvector",
        f"- From source: apt-get install build-essential git postgresql-server-dev-{facts.major}; then",
        "  git clone --branch v0.8.1 https://github.com/pgvector/pgvector; in it: make && make install",
        '- No server of your own: faceward brings one with pgvector. Put "url": "embedded" into config.json.',
    )


def no_login(address: Address, role: str, said: str) -> SetupError:
    """The role exists, and the server does not let it in as the service would come."""
    return SetupError(
        f"{role} can't log in at {address.host}:{address.port}.",
        f"psql: {said}",
        "The server decides that by its pg_hba.conf, where a line like this one lets the service in:",
        f"  host  {address.database}  {role}  <address of the service>/32  scram-sha-256",
        "then: SELECT pg_reload_conf(). Run this script again afterwards.",
    )
