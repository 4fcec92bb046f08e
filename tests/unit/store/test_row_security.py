"""Raw SQL as faceward_app: without a tenant nothing is there, with one only that tenant's rows are."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql

from faceward.store.database import (
    ADMIN_KEYS,
    APP_ROLE,
    EVERY_CLIENT,
    EVERY_MODEL,
    KEY_OF_PREFIX,
    SET_TENANT,
    Database,
)
from faceward.store.gallery import Gallery
from faceward.store.job_queue import EVERY_JOB
from faceward.store.schema import TENANT_TABLES
from synthetic import new_face

TABLES = (
    "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
)
UNSCOPED = {"alembic_version"}
"""Tables that hold nothing of any tenant. A new table is a tenant's until it is named here."""

MORE_ROWS = (
    "INSERT INTO api_keys (client_id, prefix, secret_hash, role) "
    "VALUES (%(client_id)s, %(client_id)s, sha256(''), 'admin'), (%(client_id)s, 'x', sha256(''), 'manager')",
    "INSERT INTO request_tokens (client_id, key_id, token, fingerprint, operation) VALUES (%(client_id)s, 1, 't', '', 'o')",
    "INSERT INTO jobs (client_id, id, kind, state) VALUES (%(client_id)s, 7, 'archive', 'queued')",
    "INSERT INTO job_chunks (client_id, job_id, position, data) VALUES (%(client_id)s, 7, 0, '')",
    "INSERT INTO job_refusals (client_id, job_id, position, item, code, reason) VALUES (%(client_id)s, 7, 0, 'i', 'c', 'r')",
    "INSERT INTO decisions (client_id, id, actor, kind, threshold, threshold_source, decision) "
    "VALUES (%(client_id)s, 7, 'a', 'verify', 0.4, 'pack', 'verified')",
    "INSERT INTO decision_candidates (client_id, decision_id, person_id, face_id, similarity) "
    "VALUES (%(client_id)s, 7, 1000, 1, 0.5)",
    "INSERT INTO reembeddings (client_id, model_from, model_to, state) VALUES (%(client_id)s, 'a', 'b', 'filling')",
    "INSERT INTO former_names (client_id, person_id, name) "
    "SELECT client_id, id, 'before' FROM persons WHERE client_id = %(client_id)s",
    "INSERT INTO reembedding_refusals (client_id, model_id, face_id, person_id, code, reason) "
    "SELECT client_id, 'b', id, person_id, 'c', 'r' FROM face_encodings WHERE client_id = %(client_id)s",
)
"""A row for each client in each table that an enrolment does not fill."""

APPEND_ONLY = {"audit_log", "decisions", "decision_candidates"}
"""What the service's role may add to and read, and neither change nor delete."""


@pytest.fixture
def app(database_url: str, database: Database, gallery: Gallery) -> Iterator[psycopg.Connection]:
    """A connection as faceward_app to a database in which two clients have the same regions and ids of their own."""
    for client in ("acme", "globex"):
        for region in ("A", "B"):
            gallery.create_person(client, region, f"{client} in {region}", [new_face(1, "one"), new_face(2, "two")])
        with database.transaction(client) as tx:
            for statement in MORE_ROWS:
                tx.exec_driver_sql(statement, {"client_id": client})
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"SET ROLE {APP_ROLE}")
        yield connection


@pytest.fixture
def tables(database_url: str) -> list[str]:
    with psycopg.connect(database_url) as connection:
        found = {row[0] for row in connection.execute(TABLES)}
    assert {"persons", "face_encodings", "regions", "embedding_models"} <= found
    return sorted(found - UNSCOPED)


def as_acme(app: psycopg.Connection, statement: str, parameters: tuple[object, ...] = ()) -> None:
    with app.transaction():
        app.execute(SET_TENANT, ("acme",))
        app.execute(statement, parameters)


def count(app: psycopg.Connection, table: str) -> int:
    row = app.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    assert row is not None
    return row[0]


def test_without_a_tenant_no_table_shows_a_row(app: psycopg.Connection, tables: list[str]) -> None:
    assert {table: count(app, table) for table in tables} == dict.fromkeys(tables, 0)


def test_with_a_tenant_each_table_shows_its_rows_only(app: psycopg.Connection, tables: list[str]) -> None:
    for table in tables:
        with app.transaction():
            app.execute(SET_TENANT, ("acme",))
            clients = app.execute(sql.SQL("SELECT DISTINCT client_id FROM {}").format(sql.Identifier(table))).fetchall()
        assert clients == [("acme",)], table
        # The tenant ended with its transaction.
        assert count(app, table) == 0


@pytest.mark.parametrize("tenant", ["", "Acme", "acme ", "initech", "%", "acme' OR ''='"])
def test_a_tenant_that_does_not_exist_shows_nothing(app: psycopg.Connection, tables: list[str], tenant: str) -> None:
    with app.transaction():
        app.execute(SET_TENANT, (tenant,))
        assert {table: count(app, table) for table in tables} == dict.fromkeys(tables, 0)


def test_every_table_has_row_security_for_its_owner_too(database_url: str, tables: list[str]) -> None:
    with psycopg.connect(database_url) as connection:
        for table in tables:
            state = connection.execute(
                "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = %s::regclass", (table,)
            ).fetchone()
            assert state == (True, True), table


def test_the_doctor_looks_at_every_table_of_tenants_rows(tables: list[str]) -> None:
    assert set(TENANT_TABLES) == set(tables)


def test_every_policy_names_the_tenant(database_url: str, tables: list[str]) -> None:
    """One more permissive policy would open a table: they are joined by OR."""
    with psycopg.connect(database_url) as connection:
        policies = connection.execute("SELECT tablename, policyname, cmd, qual, with_check FROM pg_policies").fetchall()
    tenant = "((client_id)::text = current_setting('faceward.client_id'::text, true))"
    by_name = {(table, name): rest for table, name, *rest in policies}
    for (table, name), condition in ASKED_FOR.items():
        assert by_name.pop((table, name)) == ["SELECT", condition, None]
    assert by_name == {(table, "tenant"): ["ALL", tenant, tenant] for table in tables}


ASKED_FOR = {
    ("embedding_models", "model_names"): "(current_setting('faceward.every_model'::text, true) = 'on'::text)",
    ("clients", "every_client"): "(current_setting('faceward.every_client'::text, true) = 'on'::text)",
    ("api_keys", "key_of_prefix"): "((prefix)::text = current_setting('faceward.key_prefix'::text, true))",
    ("api_keys", "admin_keys"): (
        "(((role)::text = 'admin'::text) AND (current_setting('faceward.admin_keys'::text, true) = 'on'::text))"
    ),
    ("jobs", "every_job"): "(current_setting('faceward.every_job'::text, true) = 'on'::text)",
}
"""The policies that show more than a tenant's rows: to be read only, and each where it is asked for by name."""


@pytest.mark.parametrize(
    ("question", "parameters", "shown"),
    [
        (EVERY_MODEL, (), {"embedding_models": 2}),
        (EVERY_CLIENT, (), {"clients": 2}),
        (KEY_OF_PREFIX, ("acme",), {"api_keys": 1}),
        (KEY_OF_PREFIX, ("nobody's",), {}),
        (KEY_OF_PREFIX, ("",), {}),
        (KEY_OF_PREFIX, ("acm%",), {}),
        (ADMIN_KEYS, (), {"api_keys": 2}),
        (EVERY_JOB, (), {"jobs": 2}),
    ],
)
def test_what_is_shown_of_all_tenants_on_demand_and_nothing_else(
    app: psycopg.Connection, tables: list[str], question: str, parameters: tuple[str, ...], shown: dict[str, int]
) -> None:
    with app.transaction():
        app.execute(question, parameters)
        assert {table: count(app, table) for table in tables if count(app, table)} == shown
    with app.transaction():
        app.execute(question, parameters)
        for table in set(tables) - APPEND_ONLY:
            assert app.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table))).rowcount == 0
        assert app.execute("UPDATE api_keys SET role = 'recognizer'").rowcount == 0
        assert app.execute("UPDATE clients SET name = 'x'").rowcount == 0
    assert {table: count(app, table) for table in tables} == dict.fromkeys(tables, 0)


def test_another_tenants_rows_cannot_be_changed_or_deleted(
    app: psycopg.Connection, database_url: str, tables: list[str]
) -> None:
    def content() -> dict[str, list[tuple[object, ...]]]:
        with psycopg.connect(database_url) as connection:
            return {
                table: connection.execute(
                    sql.SQL("SELECT t::text FROM {} t WHERE client_id <> 'acme' ORDER BY 1").format(
                        sql.Identifier(table)
                    )
                ).fetchall()
                for table in tables
            }

    before = content()
    assert all(before.values())
    with app.transaction():
        app.execute(SET_TENANT, ("acme",))
        for change in (
            "UPDATE persons SET name = 'Mallory'",
            "UPDATE persons SET name = 'Mallory' WHERE client_id = 'globex'",
            "UPDATE face_encodings SET confidence = 0",
            "DELETE FROM face_encodings",
            "DELETE FROM persons",
            "DELETE FROM persons WHERE client_id = 'globex'",
            "DELETE FROM regions",
            "DELETE FROM embedding_models",
            "UPDATE clients SET threshold = 0",
            "DELETE FROM clients WHERE client_id = 'globex'",
            "UPDATE api_keys SET role = 'admin'",
            "DELETE FROM api_keys",
            "UPDATE request_tokens SET resource_id = 1",
            "DELETE FROM request_tokens",
            "UPDATE jobs SET state = 'cancelled'",
            "DELETE FROM jobs",
            "UPDATE job_chunks SET data = 'x'",
            "DELETE FROM job_chunks",
            "DELETE FROM job_refusals WHERE client_id = 'globex'",
            "UPDATE reembeddings SET state = 'finished'",
            "DELETE FROM reembedding_refusals",
        ):
            app.execute(change)
    assert content() == before


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO regions (client_id, name) VALUES ('globex', 'C')",
        "INSERT INTO embedding_models (client_id, model_id) VALUES ('globex', 'm')",
        "INSERT INTO persons (client_id, name, region) VALUES ('globex', 'Mallory', 'A')",
        "INSERT INTO persons (name, region) VALUES ('Mallory', 'A')",
        "INSERT INTO clients (client_id, name) VALUES ('initech', 'x')",
        "INSERT INTO api_keys (client_id, prefix, secret_hash, role) VALUES ('globex', 'p', sha256(''), 'admin')",
        "INSERT INTO request_tokens (client_id, key_id, token, fingerprint, operation) VALUES ('globex', 1, 'u', '', 'o')",
        "INSERT INTO jobs (client_id, kind, state) VALUES ('globex', 'archive', 'queued')",
        "INSERT INTO job_chunks (client_id, job_id, position, data) VALUES ('globex', 7, 1, '')",
        "INSERT INTO job_refusals (client_id, job_id, position, item, code, reason) VALUES ('globex', 7, 1, 'i', 'c', 'r')",
        "INSERT INTO audit_log (client_id, actor, action) VALUES ('globex', 'a', 'person.enroll')",
        "INSERT INTO decisions (client_id, actor, kind, threshold, threshold_source, decision) "
        "VALUES ('globex', 'a', 'verify', 0.4, 'pack', 'verified')",
        "INSERT INTO decision_candidates (client_id, decision_id, person_id, face_id, similarity) "
        "VALUES ('globex', 7, 1, 1, 0.5)",
        "INSERT INTO reembeddings (client_id, model_from, model_to, state) VALUES ('globex', 'a', 'b', 'finished')",
        "UPDATE reembedding_refusals SET client_id = 'globex'",
        "UPDATE jobs SET client_id = 'globex'",
        "UPDATE job_chunks SET client_id = 'globex'",
        "UPDATE job_refusals SET client_id = 'globex'",
        "UPDATE clients SET client_id = 'initech'",
        "UPDATE api_keys SET client_id = 'globex'",
        "UPDATE request_tokens SET client_id = 'globex'",
        "UPDATE persons SET client_id = 'globex'",
        "UPDATE regions SET client_id = 'globex'",
        "UPDATE face_encodings SET client_id = 'globex'",
        "UPDATE embedding_models SET client_id = 'globex'",
        "INSERT INTO face_encodings (client_id, person_id, region, model_id, embedding) "
        "SELECT 'globex', person_id, region, model_id, embedding FROM face_encodings",
    ],
)
def test_no_row_can_be_given_to_another_tenant(app: psycopg.Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        as_acme(app, statement)


def test_a_face_cannot_be_given_to_another_tenants_person_or_region(app: psycopg.Connection, database_url: str) -> None:
    """The foreign keys name the tenant on both sides."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT id FROM persons WHERE client_id = 'globex' AND region = 'A'").fetchone()
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="fk_face_person"):
        as_acme(app, "UPDATE face_encodings SET person_id = %s WHERE region = 'A'", tuple(row or ()))


def test_a_face_cannot_be_in_another_region_than_its_person(app: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="fk_face_person"):
        as_acme(app, "UPDATE face_encodings SET region = 'B' WHERE region = 'A'")


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE persons DISABLE ROW LEVEL SECURITY",
        "DROP POLICY tenant ON persons",
        "CREATE POLICY open ON persons USING (true)",
        "TRUNCATE persons CASCADE",
        "DROP TABLE face_encodings",
        "CREATE TABLE public.mine ()",
        "UPDATE alembic_version SET version_num = '0'",
        "COPY persons TO PROGRAM 'cat'",
        "SELECT pg_read_file('postgresql.conf')",
    ],
)
def test_the_role_can_do_no_more_than_its_work(app: psycopg.Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute(statement)


@pytest.mark.parametrize("table", sorted(APPEND_ONLY))
@pytest.mark.parametrize("change", ["UPDATE {} SET client_id = client_id", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_what_was_logged_can_not_be_changed_by_the_service(app: psycopg.Connection, table: str, change: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_acme(app, change.format(table))


def logged(database_url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(
            "SELECT client_id, action, person_id, at::text FROM audit_log UNION ALL "
            "SELECT client_id, 'candidate', person_id, NULL FROM decision_candidates UNION ALL "
            "SELECT client_id, decision, NULL, at::text FROM decisions ORDER BY 1, 2, 3, 4"
        ).fetchall()


def test_logs_are_forgotten_within_a_tenant_only(app: psycopg.Connection, database_url: str) -> None:
    """The functions that do it run as the tables' owner, here a superuser, whom no policy binds."""
    before = [row for row in logged(database_url) if row[0] == "globex"]
    with psycopg.connect(database_url) as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM persons WHERE client_id = 'globex'")]
        connection.execute("UPDATE audit_log SET at = at - interval '400 days'")
        connection.execute("UPDATE decisions SET at = at - interval '400 days'")
    old = [row for row in logged(database_url) if row[0] == "globex"]
    assert len(before) == len(old)
    for person_id in (1000, *ids):
        as_acme(app, "SELECT faceward_forget_person(%s)", (person_id,))
    as_acme(app, "SELECT faceward_expire_logs(1, 1, 1000)")
    assert [row for row in logged(database_url) if row[0] == "globex"] == old
    assert [row for row in logged(database_url) if row[0] == "acme"] == []
    # Without a tenant there is nothing to forget.
    app.execute("SELECT faceward_forget_person(1000), faceward_expire_logs(1, 1, 1000)")
    assert [row for row in logged(database_url) if row[0] == "globex"] == old


def test_who_is_enrolled_can_not_be_forgotten(app: psycopg.Connection, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT min(id) FROM persons WHERE client_id = 'acme'").fetchone()
    before = logged(database_url)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="still enrolled"):
        as_acme(app, "SELECT faceward_forget_person(%s)", row or ())
    assert logged(database_url) == before


def test_who_was_merged_into_somebody_enrolled_can_not_be_forgotten(app: psycopg.Connection, database_url: str) -> None:
    """Neither by the number, nor by way of a merge into another that never was."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO former_names (client_id, person_id, person_number, name) "
            "SELECT client_id, min(id), 1000, 'Alicia' FROM persons WHERE client_id = 'acme' GROUP BY client_id"
        )
        connection.execute(
            "INSERT INTO audit_log (client_id, actor, action, person_id, other_person_id) "
            "VALUES ('acme', 'a', 'person.merge', 1000, 424242)"
        )
    before = logged(database_url)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="merged into one who is enrolled"):
        as_acme(app, "SELECT faceward_forget_person(1000)")
    as_acme(app, "SELECT faceward_forget_person(424242)")
    assert [row for row in logged(database_url) if row[1] != "person.merge"] == [
        row for row in before if row[1] != "person.merge"
    ]


def test_young_entries_can_not_be_expired(app: psycopg.Connection, database_url: str) -> None:
    """Whoever took over the service could otherwise cover the tracks."""
    before = logged(database_url)
    as_acme(app, "SELECT faceward_expire_logs(0, 0, 1000000)")
    as_acme(app, "SELECT faceward_expire_logs(-100, -100, 1000000)")
    assert logged(database_url) == before


def test_only_the_services_role_may_forget(database_url: str, login: Callable[..., str]) -> None:
    with psycopg.connect(login(database_url, "visitor")) as connection:
        for call in ("faceward_forget_person(1)", "faceward_expire_logs(1, 1, 1)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT {call}")
            connection.rollback()


def test_a_table_of_the_caller_s_own_does_not_stand_in_for_the_log(app: psycopg.Connection, database_url: str) -> None:
    before = logged(database_url)
    with app.transaction():
        app.execute(SET_TENANT, ("acme",))
        app.execute("CREATE TEMPORARY TABLE persons (client_id text, id bigint)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="still enrolled"), app.transaction():
            app.execute("SELECT faceward_forget_person(min(id)) FROM public.persons WHERE client_id = 'acme'")
    assert logged(database_url) == before


def test_every_key_names_the_tenant(database_url: str, tables: list[str]) -> None:
    """On both sides of a foreign key: so the tables can be distributed by it, and no key crosses a tenant."""
    with psycopg.connect(database_url) as connection:
        keys = connection.execute(
            """
            SELECT c.conrelid::regclass::text, c.conname, c.contype::text,
                   (SELECT array_agg(attname::text) FROM pg_attribute WHERE attrelid = c.conrelid AND attnum = ANY(c.conkey)),
                   (SELECT array_agg(attname::text) FROM pg_attribute WHERE attrelid = c.confrelid AND attnum = ANY(c.confkey))
            FROM pg_constraint c WHERE c.contype IN ('p', 'u', 'f') AND c.connamespace = 'public'::regnamespace
            """
        ).fetchall()
        unique_indexes = connection.execute(
            "SELECT indexrelid::regclass::text, array_agg(attname::text) FROM pg_index JOIN pg_attribute ON "
            "attrelid = indexrelid WHERE indisunique AND indrelid = ANY(%s::regclass[]) GROUP BY 1",
            (tables,),
        ).fetchall()
    by_table = {table: [key for key in keys if key[0] == table] for table in tables}
    for table, of_table in by_table.items():
        assert "p" in [kind for _, _, kind, _, _ in of_table], f"{table} has no primary key"
        for _, name, kind, here, there in of_table:
            assert "client_id" in here, name
            assert kind != "f" or "client_id" in there, name
    assert all("client_id" in columns for _, columns in unique_indexes)


def test_every_tenant_column_is_of_one_type(database_url: str, tables: list[str]) -> None:
    with psycopg.connect(database_url) as connection:
        columns = connection.execute(
            "SELECT attrelid::regclass::text, format_type(atttypid, atttypmod), attnotnull, attcollation::regcollation::text, "
            "pg_get_expr(adbin, adrelid) FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum "
            "WHERE attname = 'client_id' AND attrelid = ANY(%s::regclass[])",
            (tables,),
        ).fetchall()
    assert {column[0] for column in columns} == set(tables)
    assert {column[1:] for column in columns} == {
        ("character varying(100)", True, '"default"', "'default'::character varying")
    }


def test_nothing_fires_or_cascades_across_a_key(database_url: str, tables: list[str]) -> None:
    """No triggers of ours, and no key that changes rows when another changes: a distributed table allows neither."""
    with psycopg.connect(database_url) as connection:
        triggers = connection.execute("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal").fetchall()
        actions = connection.execute(
            "SELECT conname, confupdtype::text, confdeltype::text FROM pg_constraint WHERE contype = 'f'"
        ).fetchall()
    assert triggers == []
    assert all(update == "a" and delete in ("a", "c") for _, update, delete in actions), actions


def test_who_is_enrolled_can_not_be_forgotten_by_way_of_a_merge_that_never_was(
    app: psycopg.Connection, database_url: str
) -> None:
    as_acme(
        app,
        "INSERT INTO audit_log (client_id, actor, action, person_id, other_person_id) "
        "SELECT client_id, 'a', 'person.merge', id, 424242 FROM persons",
    )
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE decision_candidates SET person_id = (SELECT min(id) FROM persons) WHERE client_id = 'acme'"
        )
    before = [row for row in logged(database_url) if row[1] != "person.merge"]
    as_acme(app, "SELECT faceward_forget_person(424242)")
    assert [row for row in logged(database_url) if row[1] != "person.merge"] == before


@pytest.mark.parametrize(("column", "value"), [("at", "now() - interval '400 days'"), ("id", "1000000")])
def test_an_entry_says_neither_its_time_nor_its_number(app: psycopg.Connection, column: str, value: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_acme(
            app,
            f"INSERT INTO audit_log (client_id, actor, action, {column}) VALUES ('acme', 'a', 'photo.read', {value})",
        )
