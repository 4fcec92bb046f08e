"""A database's URL as libpq knows it: for a connection of the driver alone, and for PostgreSQL's own programs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from sqlalchemy.engine import URL

from faceward.errors import SettingsError
from faceward.store.database import shown
from faceward.store.driver_errors import translate, without_values

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]


@contextlib.contextmanager
def connected(url: URL, application: str, *, timeout: int = 5) -> Iterator[Connection]:
    """A connection in autocommit mode, as the URL's login; what the driver raises is translated."""
    given = {"connect_timeout": str(timeout), **_parameters(url), "application_name": application}
    try:
        with psycopg.connect(make_conninfo("", **given), autocommit=True) as connection:
            yield connection
    except psycopg.Error as exc:
        raise translate(exc, shown(url)) from without_values(exc)


def login_environment(url: URL) -> tuple[dict[str, str], tuple[str, ...]]:
    """How the programs log in: variables of the environment, and arguments for what has none.

    Raises SettingsError for a secret that could only be an argument, which every user of the machine can read.
    """
    options = {option.keyword.decode(): option for option in pq.Conninfo.get_defaults()}
    environment, rest = {}, {}
    for name, value in _parameters(url).items():
        option = options[name]
        if option.envvar:
            environment[option.envvar.decode()] = value
        elif option.dispchar == b"*":
            raise SettingsError(
                f"{name} of the database's URL can't be given to PostgreSQL's programs unseen. Use a login without it."
            )
        else:
            rest[name] = value
    return environment, (f"--dbname={make_conninfo('', **rest)}",) if rest else ()


def _parameters(url: URL) -> dict[str, str]:
    """What the URL says, under the names that libpq has for it."""
    _, given = url.get_dialect()().create_connect_args(url)
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    return {name: str(value) for name, value in given.items() if name in known}
