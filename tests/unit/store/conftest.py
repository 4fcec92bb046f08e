"""Databases and logins for the tests of the store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from faceward.store.embedded import EmbeddedServer


@pytest.fixture
def admin(server: EmbeddedServer) -> Iterator[psycopg.Connection]:
    """The server's superuser, in the database postgres."""
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as connection:
        yield connection


@pytest.fixture
def empty_database(server: EmbeddedServer, admin: psycopg.Connection) -> Iterator[str]:
    """The URL of a database without tables and without pgvector."""
    admin.execute("CREATE DATABASE empty")
    yield server.url_of("empty")
    admin.execute("DROP DATABASE empty WITH (FORCE)")


@pytest.fixture
def login(admin: psycopg.Connection) -> Iterator[Callable[[str, str, str], str]]:
    """Makes a login: (URL of a database, name, attributes as in CREATE ROLE) -> the URL as that login."""
    made: list[tuple[str, str]] = []

    def make(url: str, name: str, attributes: str = "") -> str:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN {}").format(sql.Identifier(name), sql.SQL(attributes)))
        made.append((url, name))
        return make_url(url).set(username=name).render_as_string(hide_password=False)

    yield make
    for url, name in made:
        # The tests' database may be gone by now, with all that the login owned there.
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def own_server(
    server_directories: Callable[[], Path], copy_cluster: Callable[[Path], Path]
) -> Iterator[EmbeddedServer]:
    """A server that the test may stop, break and configure, with the migrated database TEMPLATE."""
    with contextlib.closing(EmbeddedServer(copy_cluster(server_directories() / "data"))) as server:
        yield server
