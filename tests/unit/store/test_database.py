"""Each transaction is one tenant's, and a connection goes back to the pool without a trace of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg.pq import TransactionStatus

from faceward.errors import FacewardError
from faceward.store.database import SET_TENANT, Database, PoolSettings
from faceward.store.gallery import Gallery
from faceward.store.regions import RegionStore
from synthetic import MODEL, new_face

ONE = PoolSettings(pool_size=1, max_overflow=0, pool_timeout=10)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:s3cret@host:5432/faces",
        "postgres://user:s3cret@host/faces",
        "postgresql+psycopg2://user:s3cret@host/faces",
        "postgresql://user@host/faces?password=s3cret",
        "postgresql://user@host/faces?sslpassword=s3cret&sslmode=require",
    ],
)
def test_the_url_is_shown_without_its_password(url: str) -> None:
    with Database(url) as database:
        assert "s3cret" not in database.shown_url
        assert database.shown_url.startswith("postgresql://user")
        assert "host" in database.shown_url
        assert database.url.drivername == "postgresql+psycopg"


def test_an_exception_undoes_the_whole_transaction(database: Database) -> None:
    def fail_half_way() -> None:
        with database.transaction("acme") as tx:
            tx.exec_driver_sql("INSERT INTO regions (client_id, name) VALUES ('acme', 'A')")
            raise LookupError

    with pytest.raises(LookupError):
        fail_half_way()
    assert RegionStore(database).list("acme").regions == ()


def test_the_work_is_done_as_the_role_that_row_security_binds(database: Database) -> None:
    with database.unscoped() as connection:
        assert connection.exec_driver_sql("SELECT current_user").scalar() == "faceward_app"
        unsafe = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
        assert connection.exec_driver_sql(unsafe).scalar() is False
    with database.driver_connection() as driver:
        assert driver.execute("SELECT current_user").fetchone() == ("faceward_app",)


def test_a_pooled_connection_forgets_its_tenant(database_url: str) -> None:
    with Database(database_url, pool=ONE) as database:
        gallery = Gallery(database, MODEL)
        gallery.create_person("acme", "A", "Alice", [new_face(1)])
        with database.unscoped() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM persons").scalar() == 0
        with database.driver_connection() as driver:
            assert driver.execute("SELECT count(*) FROM persons").fetchone() == (0,)
        assert gallery.list_persons("globex").persons == ()
        assert len(gallery.list_persons("acme").persons) == 1


def test_threads_never_see_each_others_tenant(database: Database) -> None:
    gallery = Gallery(database, MODEL)
    clients = [f"client {i}" for i in range(4)]
    for i, client in enumerate(clients):
        gallery.create_person(client, "A", client, [new_face(i)])
    start = threading.Barrier(len(clients))

    def read(client: str) -> set[str]:
        start.wait()
        return {person.name for _ in range(40) for person in gallery.list_persons(client).persons}

    with ThreadPoolExecutor(len(clients)) as pool:
        assert list(pool.map(read, clients)) == [{client} for client in clients]


def test_a_connection_left_in_the_middle_is_not_handed_on(database_url: str) -> None:
    with Database(database_url, pool=ONE) as database:

        def break_off() -> None:
            with database.driver_connection() as driver:
                driver.execute("BEGIN")
                driver.execute(SET_TENANT, ("acme",))
                raise LookupError

        with pytest.raises(LookupError):
            break_off()
        with database.driver_connection() as driver:
            assert driver.info.transaction_status == TransactionStatus.IDLE
            assert driver.execute("SELECT current_setting('faceward.client_id', true)").fetchone() in [(None,), ("",)]


def test_the_pool_is_as_large_as_it_was_asked_to_be(database_url: str) -> None:
    with Database(database_url, pool=PoolSettings(pool_size=2, max_overflow=1, pool_timeout=0.05)) as database:
        with database.unscoped(), database.unscoped(), database.unscoped():
            assert database.pool_status() == {"in_use": 3, "idle": 0, "size": 2}
            with pytest.raises(FacewardError):
                database.unscoped().__enter__()
        assert database.pool_status() == {"in_use": 0, "idle": 2, "size": 2}


def test_every_session_has_the_options_that_the_plans_rely_on(database_url: str) -> None:
    with Database(database_url, statement_timeout=1.5) as database, database.unscoped() as connection:
        shown = {
            name: connection.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("enable_seqscan", "jit", "statement_timeout", "application_name")
        }
    assert shown == {
        "enable_seqscan": "off",
        "jit": "off",
        "statement_timeout": "1500ms",
        "application_name": "faceward",
    }
