"""The engine, the transactions, and the tenant that each of them is bound to.

Every statement runs as the role `faceward_app` inside a transaction in which `faceward.client_id` is set: row-level
security shows that tenant's rows and nothing else, and without a tenant it shows none.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import psycopg
import sqlalchemy as sa
from pgvector.psycopg import register_vector
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from faceward.errors import DeadlineExceededError, SettingsError
from faceward.store.driver_errors import is_disconnect, outcome_unknown, translate, without_values

APP_ROLE = "faceward_app"
SET_TENANT = "SELECT set_config('faceward.client_id', %s, true)"

EVERY_MODEL = "SELECT set_config('faceward.every_model', 'on', true)"
"""Shows the transaction which models made the galleries of all tenants, and nothing else of them."""

EVERY_CLIENT = "SELECT set_config('faceward.every_client', 'on', true)"
"""Shows the transaction which clients there are, and nothing else of them."""

KEY_OF_PREFIX = "SELECT set_config('faceward.key_prefix', %s, true)"
"""Shows the transaction the key of that prefix, whosever it is: how a key tells its tenant."""

ADMIN_KEYS = "SELECT set_config('faceward.admin_keys', 'on', true)"
"""Shows the transaction the keys of the role admin, whosever they are."""

_SET_TENANT_IN_TIME = (
    "SELECT set_config('faceward.client_id', %s, true), set_config('statement_timeout', %s, true), "
    "set_config('lock_timeout', %s, true)"
)
SET_TIMEOUT = "SELECT set_config('statement_timeout', %s, true)"

_LOCK_TIMEOUT = "5000"
"""Milliseconds that a statement within a deadline waits for what another transaction holds, as for a region that is being
renamed: who waits keeps a thread from everybody else.
"""

_UNTIL: ContextVar[float | None] = ContextVar("faceward_deadline", default=None)

# enable_seqscan: every query here is one of a tenant's index ranges. A plan made while a table was still empty (those of
# the foreign keys above all, which a session keeps) would otherwise scan it whole, for each row of a first large import.
# jit: costs more than the millisecond that a search takes.
SESSION_OPTIONS = {"enable_seqscan": "off", "jit": "off"}


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """SQLAlchemy's pool settings; seconds, and counts of connections."""

    pool_size: int = 20
    max_overflow: int = 40
    pool_timeout: float = 30.0
    pool_recycle: int = 3600


@dataclass(slots=True)
class _State:
    """committing: the block of the transaction has come to its end."""

    committing: bool = False


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """What this thread asks of a database inside the block gets no longer than what is left of the seconds.

    A statement that is cut off raises StatementTimeoutError, one of a transaction that waits for another for more than 5
    seconds BusyError; once nothing is left, DeadlineExceededError, before anything is sent. A deadline inside another can
    only be nearer.
    """
    outer, until = _UNTIL.get(), time.monotonic() + seconds
    token = _UNTIL.set(until if outer is None else min(outer, until))
    try:
        yield
    finally:
        _UNTIL.reset(token)


def parse_url(url: str) -> URL:
    """A postgresql:// URL for psycopg 3, or SettingsError (which never shows a password)."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as exc:
        raise SettingsError(
            "database.url is not a URL. Write postgresql://user:password@host:5432/face_recognition, or embedded."
        ) from exc
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise SettingsError(
            f"database.url begins with {parsed.drivername!r}; faceward needs postgresql:// or the word embedded."
        )
    return parsed.set(drivername="postgresql+psycopg")


def shown(url: URL) -> str:
    """The URL as messages show it: without a password, wherever in it that stands."""
    plain = url.set(drivername="postgresql").difference_update_query(["password", "sslpassword"])
    return plain.render_as_string(hide_password=True)


class Database:
    """Pooled connections to one PostgreSQL database.

    url: whoever it logs in as, the work is done as `faceward_app`. statement_timeout: seconds that one statement may take.
    """

    def __init__(
        self,
        url: str,
        *,
        pool: PoolSettings | None = None,
        connect_timeout: int = 5,
        statement_timeout: float = 30.0,
        app_role: str = APP_ROLE,
    ) -> None:
        pool = pool or PoolSettings()
        self.url = parse_url(url)
        self._statement_timeout = max(1, round(statement_timeout * 1000))
        session = {**SESSION_OPTIONS, "role": app_role, "statement_timeout": str(self._statement_timeout)}
        options = [f"-c {name}={value}" for name, value in session.items()]
        if given := self.url.query.get("options"):  # as a search_path that the caller's server needs
            options.insert(0, given if isinstance(given, str) else " ".join(given))
        self._engine = sa.create_engine(
            self.url,
            pool_size=pool.pool_size,
            max_overflow=pool.max_overflow,
            pool_timeout=pool.pool_timeout,
            pool_recycle=pool.pool_recycle,
            pool_use_lifo=True,
            hide_parameters=True,
            connect_args={
                "connect_timeout": connect_timeout,
                "application_name": "faceward",
                "options": " ".join(options),
            },
        )
        self._generation = 0
        sa.event.listen(self._engine, "connect", self._prepare)
        sa.event.listen(self._engine, "checkout", self._check_generation)

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def shown_url(self) -> str:
        """The URL without its password."""
        return shown(self.url)

    def close(self) -> None:
        self._engine.dispose()

    def reconnect(self) -> None:
        """Work on new connections from now on: those of before keep statements that were prepared for tables of before.

        One that is in use is closed when it is wanted next. (Disposing of the pool would leave it to nobody.)
        """
        self._generation += 1

    def pool_status(self) -> dict[str, int]:
        """Connections in use and idle, for monitoring."""
        pool = self._engine.pool
        assert isinstance(pool, sa.QueuePool)
        return {"in_use": pool.checkedout(), "idle": pool.checkedin(), "size": pool.size()}

    @contextlib.contextmanager
    def transaction(self, client_id: str) -> Iterator[sa.Connection]:
        """One transaction of one tenant; committed at the end of the block, rolled back by an exception.

        Raises OutcomeUnknownError where the connection is lost in the commit.
        """
        self.timeout()
        with self._translated() as state, self._engine.begin() as connection:
            timeout = self.timeout()  # what waiting for a connection has left of it
            if _UNTIL.get() is None:
                connection.exec_driver_sql(SET_TENANT, (client_id,))
            else:
                timeout = timeout or str(self._statement_timeout)
                connection.exec_driver_sql(_SET_TENANT_IN_TIME, (client_id, timeout, _LOCK_TIMEOUT))
            yield connection
            state.committing = True

    @contextlib.contextmanager
    def unscoped(self) -> Iterator[sa.Connection]:
        """A transaction without a tenant: sees what is no tenant's (versions, catalogues), and none of the rows."""
        self.timeout()
        with self._translated(), self._engine.begin() as connection:
            timeout = self.timeout()
            if timeout is not None:
                connection.exec_driver_sql(SET_TIMEOUT, (timeout,))
            yield connection

    def timeout(self) -> str | None:
        """The statement_timeout that the deadline leaves, in milliseconds; None where there is none or it is far off.

        Raises DeadlineExceededError when nothing is left.
        """
        until = _UNTIL.get()
        if until is None:
            return None
        left = round(1000 * (until - time.monotonic()))
        if left < 1:
            raise DeadlineExceededError("The time given to this request is over. Try again in a second.")
        return None if left >= self._statement_timeout else str(left)

    @contextlib.contextmanager
    def driver_connection(self) -> Iterator[psycopg.Connection[Any]]:
        """A pooled psycopg connection in autocommit mode, for pipelines and COPY.

        The tenant is the caller's to set, and so is the `timeout`.
        """
        with self._translated(), contextlib.closing(self._engine.raw_connection()) as pooled:
            driver = pooled.driver_connection
            assert isinstance(driver, psycopg.Connection)
            driver.autocommit = True
            try:
                yield driver
            finally:
                if driver.closed:
                    pooled.invalidate()
                elif driver.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
                    driver.autocommit = False
                else:  # an exception left a COPY or a transaction open: don't hand it to the next caller
                    pooled.invalidate()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[_State]:
        state = _State()
        try:
            yield state
        except (SQLAlchemyError, psycopg.Error) as exc:
            if is_disconnect(exc):
                # The other idle connections died with this one; the next call must not have to find out one by one.
                self.reconnect()
                if state.committing:
                    raise outcome_unknown(exc, self.shown_url) from without_values(exc)
            raise translate(exc, self.shown_url) from without_values(exc)

    def _prepare(self, driver: psycopg.Connection[Any], record: Any) -> None:
        register_vector(driver)
        driver.commit()
        record.info["generation"] = self._generation

    def _check_generation(self, _driver: object, record: Any, _proxy: object) -> None:
        if record.info["generation"] != self._generation:
            raise sa.exc.DisconnectionError("of before reconnect(): the pool replaces it")
