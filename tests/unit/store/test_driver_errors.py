"""Whatever goes wrong in the driver arrives as one of faceward's errors: at once, with advice, and without anybody's data."""

from __future__ import annotations

import os
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.engine import make_url

from faceward import errors
from faceward.store.database import Database, PoolSettings
from faceward.store.driver_errors import translate
from faceward.store.embedded import EmbeddedServer
from faceward.store.gallery import Gallery
from faceward.store.regions import RegionPage, RegionStore
from faceward.store.schema import Schema
from faceward.types import NewFace
from synthetic import MODEL, new_face, unit

TEMPLATE = "faceward_template"
DRIVER_ERRORS = [
    kind for kind in vars(psycopg.errors).values() if isinstance(kind, type) and issubclass(kind, psycopg.Error)
]

NAMED = {
    "08": errors.DatabaseUnavailableError,
    "0A000": errors.BusyError,
    "22000": errors.ModelMismatchError,
    "23": errors.ConstraintViolatedError,
    "25006": errors.AccessDeniedError,
    "25P03": errors.StatementTimeoutError,
    "25P04": errors.StatementTimeoutError,
    "28": errors.AccessDeniedError,
    "3D": errors.DatabaseUnavailableError,
    "40": errors.BusyError,
    "42501": errors.AccessDeniedError,
    "42703": errors.SchemaMissingError,
    "42704": errors.ExtensionMissingError,
    "42883": errors.ExtensionMissingError,
    "42P01": errors.SchemaMissingError,
    "53": errors.DatabaseFullError,
    "55P03": errors.BusyError,
    "57014": errors.StatementTimeoutError,
    "57P": errors.DatabaseUnavailableError,
}
# What only a mistake in faceward's own statements, a foreign extension or broken storage raises.
UNNAMED = (
    "02", "03", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22", "24", "25", "26", "27", "2B", "2D", "2F",
    "34", "38", "39", "3B", "3F", "42", "44", "54", "55", "57000", "58", "72", "F0", "HV", "P0", "XX",
)  # fmt: skip


def expected_class(state: str | None) -> type[errors.FacewardError]:
    for length in (5, 3, 2):
        if state and state[:length] in NAMED:
            return NAMED[state[:length]]
    return errors.UnexpectedDatabaseError


@pytest.mark.parametrize("kind", DRIVER_ERRORS, ids=lambda kind: f"{kind.__name__}-{kind.sqlstate}")
def test_every_error_of_the_driver_is_translated(kind: type[psycopg.Error]) -> None:
    for raised in (kind("what"), sa.exc.DBAPIError("SELECT 1", {}, kind("what"))):
        found = translate(raised, "postgresql://host/database")
        assert isinstance(found, (errors.StoreError, errors.ConflictError, errors.ModelMismatchError))
        assert "what" in str(found)
        if kind.sqlstate:
            assert type(found) is expected_class(kind.sqlstate)
            known = [state for state in (*NAMED, *UNNAMED) if kind.sqlstate.startswith(state)]
            assert known, f"SQLSTATE {kind.sqlstate} is new: name its error, or add its class to UNNAMED"


def test_errors_of_sqlalchemy_itself_are_translated() -> None:
    assert isinstance(translate(sa.exc.TimeoutError("pool"), ""), errors.PoolExhaustedError)
    assert isinstance(translate(sa.exc.ResourceClosedError("closed"), ""), errors.UnexpectedDatabaseError)


def everything_said(caught: pytest.ExceptionInfo[BaseException]) -> str:
    """The message and all that a log of the exception would show."""
    said = []
    error: BaseException | None = caught.value
    while error is not None:
        said += traceback.format_exception_only(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "".join(said)


# The server can't be reached, or not like this


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://u:s3cret@127.0.0.1:1/d", "Connection refused"),
        ("postgresql://u:s3cret@/d?host=/nowhere", "No such file or directory"),
        ("postgresql://u@127.0.0.1:1/d?password=s3cret", "Connection refused"),
        ("postgresql://u:s3cret@host.invalid/d", "host.invalid"),
    ],
)
def test_a_server_that_is_not_there(url: str, reason: str) -> None:
    with Database(url, connect_timeout=2) as database:
        for opening in (database.transaction("c"), database.unscoped(), database.driver_connection()):
            with pytest.raises(errors.DatabaseUnavailableError, match=f"{reason}.*faceward doctor") as caught:
                opening.__enter__()
            assert "s3cret" not in everything_said(caught)
    with pytest.raises(errors.DatabaseUnavailableError, match=reason) as caught:
        Schema(url).status()
    assert "s3cret" not in everything_said(caught)


def test_a_database_or_a_login_that_does_not_exist(database_url: str) -> None:
    def regions(**part: str) -> object:
        with Database(make_url(database_url).set(**part).render_as_string(hide_password=False)) as database:
            return RegionStore(database).list("c")

    with pytest.raises(errors.DatabaseUnavailableError, match=r'database "nowhere" does not exist.*setup_postgres'):
        regions(database="nowhere")
    with pytest.raises(errors.AccessDeniedError, match=r'role "nobody" does not exist.*setup_postgres'):
        regions(username="nobody")


def test_a_role_of_work_that_does_not_exist(database_url: str) -> None:
    with (
        Database(database_url, app_role="absent") as database,
        pytest.raises(errors.AccessDeniedError, match=r"absent.*setup_postgres"),
    ):
        RegionStore(database).list("c")


def test_a_wrong_password(own_server: EmbeddedServer) -> None:
    with psycopg.connect(own_server.url_of("postgres"), autocommit=True) as connection:
        connection.execute("CREATE ROLE guarded LOGIN PASSWORD 'right' IN ROLE faceward_app")
        rules = own_server.pgdata / "pg_hba.conf"
        rules.write_text("local all guarded scram-sha-256\nlocal all barred reject\n" + rules.read_text())
        connection.execute("SELECT pg_reload_conf()")
    url = make_url(own_server.url_of(TEMPLATE)).set(username="guarded")

    def regions(**login: str) -> RegionPage:
        with Database(url.set(**login).render_as_string(hide_password=False)) as database:
            return RegionStore(database).list("c")

    assert regions(password="right").regions == ()
    with pytest.raises(errors.AccessDeniedError, match=r"password authentication failed.*database\.url") as caught:
        regions(password="wr0ng")
    assert "wr0ng" not in everything_said(caught)
    with pytest.raises(errors.AccessDeniedError, match=r"no password supplied.*database\.url"):
        regions(password="")
    with pytest.raises(errors.AccessDeniedError, match=r"pg_hba\.conf"):
        regions(username="barred", password="right")


def test_a_server_without_a_free_connection(
    database_url: str, login: Callable[..., str], admin: psycopg.Connection
) -> None:
    url = login(database_url, "limited", "CONNECTION LIMIT 0 IN ROLE faceward_app")
    with Database(url) as database, pytest.raises(errors.DatabaseFullError, match="too many connections"):
        RegionStore(database).list("c")


def test_a_pool_without_a_free_connection(database_url: str) -> None:
    with Database(database_url, pool=PoolSettings(pool_size=1, max_overflow=0, pool_timeout=0.1)) as database:
        regions = RegionStore(database)
        with (
            database.transaction("c"),
            pytest.raises(errors.PoolExhaustedError, match=r"pool_size or max_overflow in config\.json"),
        ):
            regions.list("c")
        assert regions.list("c").regions == ()


# A statement fails


def test_a_statement_that_takes_too_long(database_url: str) -> None:
    with Database(database_url, statement_timeout=0.1) as database:
        with (
            pytest.raises(errors.StatementTimeoutError, match="longer than the deadline"),
            database.transaction("c") as tx,
        ):
            tx.exec_driver_sql("SELECT pg_sleep(30)")
        assert RegionStore(database).list("c").regions == ()


def test_a_row_that_somebody_holds(database_url: str, gallery: Gallery) -> None:
    person, _ = gallery.create_person("c", "A", "Alice", [new_face(1)])
    with psycopg.connect(database_url) as other, Database(database_url, statement_timeout=5) as database:
        other.execute("SELECT 1 FROM persons FOR UPDATE")
        with pytest.raises(errors.BusyError, match="try again"), database.transaction("c") as tx:
            tx.exec_driver_sql(f"SELECT name FROM persons WHERE client_id = 'c' AND id = {person.id} FOR UPDATE NOWAIT")


@pytest.mark.parametrize("table", ["persons", "face_encodings", "regions", "embedding_models"])
def test_a_table_that_is_gone(database_url: str, gallery: Gallery, table: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(sql.SQL("DROP TABLE {} CASCADE").format(sql.Identifier(table)))
    with pytest.raises(errors.SchemaMissingError, match=rf'"{table}" does not exist.*faceward db upgrade'):
        gallery.create_person("c", "A", "Alice", [new_face(1)])


def test_a_column_that_is_gone(database_url: str, gallery: Gallery) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE persons DROP COLUMN description")
    with pytest.raises(errors.SchemaMissingError, match=r'"description".*does not exist.*faceward db upgrade'):
        gallery.create_person("c", "A", "Alice", [new_face(1)])


def test_an_extension_that_is_gone(database_url: str, gallery: Gallery) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("DROP EXTENSION vector CASCADE")
    with pytest.raises(errors.ExtensionMissingError, match="CREATE EXTENSION vector"):
        gallery.create_person("c", "A", "Alice", [new_face(1)])


def test_a_right_that_is_missing(database_url: str, gallery: Gallery) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("REVOKE INSERT ON persons FROM faceward_app")
    with pytest.raises(errors.AccessDeniedError, match=r"permission denied for table persons.*setup_postgres"):
        gallery.create_person("c", "A", "Alice", [new_face(1)])


def test_a_standby_that_only_reads(database_url: str, gallery: Gallery, admin: psycopg.Connection) -> None:
    admin.execute(
        sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(
            sql.Identifier(make_url(database_url).database or "")
        )
    )
    with pytest.raises(errors.AccessDeniedError, match="Write to its primary"):
        gallery.create_person("c", "A", "Alice", [new_face(1)])


def test_temporary_files_beyond_their_limit(database_url: str, gallery: Gallery) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET temp_file_limit = '64kB'").format(sql.Identifier(connection.info.dbname))
        )
    sort = "SELECT count(*) FROM (SELECT * FROM generate_series(1, 1000000) n ORDER BY -n) x"
    with (
        Database(database_url) as database,
        pytest.raises(errors.DatabaseFullError, match="out of room"),
        database.transaction("c") as tx,
    ):
        tx.exec_driver_sql(sort)


@pytest.fixture
def small_disk(own_server: EmbeddedServer, tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB that the server may write to."""
    disk = own_server.pgdata.with_name("disk")
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=777", "none", disk], check=False).returncode:
        pytest.skip("only a user who may mount a small disk can fill one up")
    try:
        yield disk
    finally:
        own_server.close()
        subprocess.run(["umount", disk], check=True)


def test_a_disk_that_is_full(own_server: EmbeddedServer, small_disk: Path) -> None:
    tables = small_disk / "tables"
    tables.mkdir()
    os.chown(tables, own_server.pgdata.stat().st_uid, own_server.pgdata.stat().st_gid)
    tables.chmod(0o700)
    url = own_server.url_of(TEMPLATE)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE TABLESPACE small LOCATION {}").format(sql.Literal(str(tables))))
        connection.execute("ALTER TABLE face_encodings SET TABLESPACE small")
    (small_disk / "filler").write_bytes(bytes(2**20))
    with Database(url) as database:
        gallery = Gallery(database, MODEL)
        stored, _ = gallery.create_person("c", "A", "Alice", [new_face(1)])
        large = NewFace(unit(2), image_data=os.urandom(8 * 2**20))
        with pytest.raises(errors.DatabaseFullError, match=r"No space left on device.*Nothing was stored"):
            gallery.create_person("c", "B", "Bob", [new_face(3), large])
        assert gallery.list_persons("c").persons == (stored,)
        assert [region.name for region in RegionStore(database).list("c").regions] == ["A"]
        (small_disk / "filler").unlink()
        gallery.create_person("c", "B", "Bob", [new_face(3)])


# Nobody's data in a message


def test_refused_rows_are_not_quoted(database: Database, gallery: Gallery) -> None:
    """PostgreSQL quotes the row in DETAIL, and a value in the message itself where it has the wrong form."""
    secret = "Alice Liddell"
    long_name = secret * 30
    for statement, parameters, kind in (
        ("INSERT INTO persons (client_id, name, region) VALUES ('c', %s, 'nowhere')", (secret,), errors.StoreError),
        ("INSERT INTO persons (client_id, name, region) VALUES ('c', %s, NULL)", (secret,), errors.StoreError),
        ("INSERT INTO regions (client_id, name) VALUES ('c', %s)", (long_name,), errors.StoreError),
        ("INSERT INTO regions (client_id, name) VALUES ('other', %s)", (secret,), errors.AccessDeniedError),
        ("SELECT %s::text::integer", (secret,), errors.UnexpectedDatabaseError),
        ("SELECT %s::text::vector", (f"[0.25, {secret}]",), errors.UnexpectedDatabaseError),
        ("SELECT %s::text::timestamptz", (secret,), errors.UnexpectedDatabaseError),
        ("SELECT nothing(%s)", (secret,), errors.ExtensionMissingError),
        ("SELECT %s", (object(),), errors.UnexpectedDatabaseError),
    ):
        with pytest.raises(kind) as caught, database.transaction("c") as tx:
            tx.exec_driver_sql(statement, parameters)
        said = everything_said(caught).replace(statement, "")
        assert "Alice" not in said, said
        assert "0.25" not in said


def test_a_refused_embedding_is_not_quoted(database: Database, gallery: Gallery) -> None:
    embedding = unit(1) * 2
    with pytest.raises(errors.ConstraintViolatedError) as caught:
        gallery.create_person("c", "A", "Alice Liddell", [NewFace(embedding)])
    assert caught.value.constraint == "ck_face_unit_length"
    said = everything_said(caught)
    assert "Liddell" not in said
    assert f"{embedding[0]:.4}"[:6] not in said
    assert RegionStore(database).list("c").regions == ()
