"""What the driver raises, translated once into faceward's errors.

A message holds the server's primary message only: DETAIL and CONTEXT can quote rows.
"""

from __future__ import annotations

import psycopg
from sqlalchemy import exc as sa_exc

from faceward import errors

_UNAVAILABLE = (
    "PostgreSQL at {url} can't be reached: {reason}. Is the server running, and is database.url right? "
    "`faceward doctor` checks each point."
)
_LOST = (
    "PostgreSQL at {url} ended the connection: {reason}. It was stopped or crashed, as it does when its disk is full. What "
    "was under way is not stored, unless it was just being committed; its log and `faceward doctor` tell more."
)
_UNKNOWN = (
    "PostgreSQL at {url} ended the connection while it committed: {reason}. What was asked for may be stored, or not: look, "
    "before it is done again."
)
_NO_DATABASE = "{reason} ({url}). `./setup_postgres.sh` creates it."
_AUTHENTICATION = "PostgreSQL at {url} refused the login: {reason}. Check user and password in database.url."
_ROLE = (
    "The login of database.url can't work as the role that faceward uses: {reason} ({url}). `./setup_postgres.sh` creates "
    "both; for a login that exists, a superuser may also say: GRANT faceward_app TO it;"
)
_PERMISSION = "The database role may not do this: {reason}. `./setup_postgres.sh` grants what is needed."
_SCHEMA = "A table or column is missing: {reason}. Run `faceward db upgrade`."
_EXTENSION = (
    "pgvector is missing in this database: {reason}. As a superuser: CREATE EXTENSION vector; (0.7 or newer; "
    "`./setup_postgres.sh` does it and says which package carries it)."
)
_FULL = "The database server is out of room: {reason}. Nothing was stored; free space, memory or connections there."
_FILES = (
    "The database server can't read or write its own files: {reason}. Nothing was stored; see its disk and its log."
)
_TIMEOUT = "The database took longer than the deadline: {reason}. `faceward doctor` tells whether an index is missing."
_BUSY = "Another transaction was in the way: {reason}. Nothing was stored; try again."
_READ_ONLY = "This database is a read-only standby: {reason}. Write to its primary."
_CONSTRAINT = "The tables refused this: {reason}. Nothing was stored."
_MODEL = (
    "The embeddings are not of the model that makes the gallery now: {reason}. Use the pack that made it; a running service "
    "takes it by itself."
)
_OTHER = "The database answered with an error that faceward has no name for: {reason} (SQLSTATE {state})."

OF_MODEL = "ck_face_model"
"""The rule that no face of another model comes into a table: who has not heard of a change of the model yet is refused by
PostgreSQL itself.
"""

_BY_STATE: tuple[tuple[str, type[errors.FacewardError], str], ...] = (
    ("57014", errors.StatementTimeoutError, _TIMEOUT),
    ("25P03", errors.StatementTimeoutError, _TIMEOUT),
    ("25P04", errors.StatementTimeoutError, _TIMEOUT),
    ("55P03", errors.BusyError, _BUSY),
    ("40", errors.BusyError, _BUSY),
    ("53", errors.DatabaseFullError, _FULL),
    ("58", errors.UnexpectedDatabaseError, _FILES),
    ("57P01", errors.DatabaseUnavailableError, _LOST),
    ("57P02", errors.DatabaseUnavailableError, _LOST),
    ("57P", errors.DatabaseUnavailableError, _UNAVAILABLE),
    ("08", errors.DatabaseUnavailableError, _UNAVAILABLE),
    ("3D000", errors.DatabaseUnavailableError, _NO_DATABASE),
    ("28", errors.AccessDeniedError, _AUTHENTICATION),
    ("42501", errors.AccessDeniedError, _PERMISSION),
    ("0A000", errors.BusyError, _BUSY),  # a prepared statement whose columns are of another length since
    ("22000", errors.ModelMismatchError, _MODEL),  # pgvector, of two vectors of different length
    ("25006", errors.AccessDeniedError, _READ_ONLY),
    ("42P01", errors.SchemaMissingError, _SCHEMA),
    ("42703", errors.SchemaMissingError, _SCHEMA),
    ("42704", errors.ExtensionMissingError, _EXTENSION),
    ("42883", errors.ExtensionMissingError, _EXTENSION),
)

# A refused connection carries no SQLSTATE, only libpq's sentence.
_BY_SENTENCE: tuple[tuple[str, type[errors.FacewardError], str], ...] = (
    ("permission denied to set role", errors.AccessDeniedError, _ROLE),
    ("FATAL:  role ", errors.AccessDeniedError, _ROLE),
    ("server closed the connection", errors.DatabaseUnavailableError, _LOST),
    ("does not exist", errors.DatabaseUnavailableError, _NO_DATABASE),
    ("authentication failed", errors.AccessDeniedError, _AUTHENTICATION),
    ("no password supplied", errors.AccessDeniedError, _AUTHENTICATION),
    ("pg_hba.conf", errors.AccessDeniedError, _AUTHENTICATION),
    ("too many connections", errors.DatabaseFullError, _FULL),
    ("too many clients", errors.DatabaseFullError, _FULL),
    ("remaining connection slots", errors.DatabaseFullError, _FULL),
    ("vector type not found", errors.ExtensionMissingError, _EXTENSION),
)


def is_disconnect(exc: BaseException) -> bool:
    """Whether the connection is lost or can't be used any more, rather than the statement wrong."""
    driver = _driver_error(exc)
    if isinstance(exc, sa_exc.DBAPIError) and exc.connection_invalidated:
        return True
    if isinstance(driver, psycopg.errors.FeatureNotSupported):
        return True  # it keeps statements that were prepared before the tables were changed
    if not isinstance(driver, (psycopg.OperationalError, psycopg.InterfaceError)):
        return False
    state = driver.sqlstate
    return state is None or state.startswith(("57P", "08"))


def translate(exc: BaseException, url: str) -> errors.FacewardError:
    """The error of faceward's tree that says what happened and what to do. url: shown, so without a password."""
    if isinstance(exc, sa_exc.TimeoutError):
        return errors.PoolExhaustedError(
            "No database connection came free in time. Raise database.pool_size or max_overflow in config.json, or "
            "send fewer requests at once."
        )
    driver = _driver_error(exc)
    if driver is None:
        return errors.UnexpectedDatabaseError(_OTHER.format(reason=type(exc).__name__, state="none"))
    state = driver.sqlstate
    reason = _reason(driver)
    if isinstance(driver, psycopg.IntegrityError):
        if driver.diag.constraint_name == OF_MODEL:
            return errors.ModelMismatchError(_MODEL.format(reason=reason))
        return errors.ConstraintViolatedError(_CONSTRAINT.format(reason=reason), driver.diag.constraint_name)
    if state is None:
        for sentence, kind, template in _BY_SENTENCE:
            if sentence in reason:
                return kind(template.format(reason=reason, url=url))
        if isinstance(driver, (psycopg.OperationalError, psycopg.InterfaceError)):
            return errors.DatabaseUnavailableError(_UNAVAILABLE.format(reason=reason, url=url))
    else:
        for prefix, kind, template in _BY_STATE:
            if state.startswith(prefix):
                return kind(template.format(reason=reason, url=url))
    return errors.UnexpectedDatabaseError(_OTHER.format(reason=reason, state=state))


def outcome_unknown(exc: BaseException, url: str) -> errors.OutcomeUnknownError:
    """Of a connection that was lost between COMMIT and its answer. url: as of `translate`."""
    driver = _driver_error(exc)
    reason = type(exc).__name__ if driver is None else _reason(driver)
    return errors.OutcomeUnknownError(_UNKNOWN.format(reason=reason, url=url))


def without_values(exc: BaseException) -> BaseException:
    """The driver's error as the cause of the translated one: a log of it must not quote a row with its name or embedding."""
    driver = _driver_error(exc)
    if driver is None:
        return exc
    driver.args = (_reason(driver),)
    return driver


def _driver_error(exc: BaseException) -> psycopg.Error | None:
    inner = exc.orig if isinstance(exc, sa_exc.DBAPIError) else exc
    return inner if isinstance(inner, psycopg.Error) else None


def _reason(driver: psycopg.Error) -> str:
    primary = driver.diag.message_primary
    if primary and (driver.sqlstate or "").startswith("22"):
        # 'invalid input syntax for type vector: "[0.1, ...]"': the value stands after the colon.
        return primary.partition(": ")[0]
    if primary:
        return primary.rstrip(".")
    # libpq indents its remarks, and repeats its sentence for each address tried: the last one is the one that ended it.
    told = [line for line in str(driver).splitlines() if line and not line[0].isspace()]
    return told[-1].removeprefix("- ").rstrip(".") if told else type(driver).__name__
