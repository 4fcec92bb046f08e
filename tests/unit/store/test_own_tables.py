"""faceward's tables are known by what the migrations made of them, not by their names alone."""

from __future__ import annotations

import psycopg

from faceward.store.database import Database
from faceward.store.own_tables import NAMES, POLICIES, VERSION_TABLE, other_relations, own_schema, own_tables
from faceward.store.schema import TENANT_TABLES
from faceward.store.shadow import NEXT, PREVIOUS


def test_all_that_the_migrations_make_is_faceward_s(database: Database, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        own = own_tables(connection, "public")
        assert own_schema(connection) == "public"
        assert {table.name for table in own} == {*TENANT_TABLES, VERSION_TABLE} == NAMES - {NEXT, PREVIOUS}
        assert other_relations(connection, "public", own) == []
        assert {name for (name,) in connection.execute("SELECT polname FROM pg_policy")} == POLICIES


def test_tables_of_others_are_not(database: Database, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        own = own_tables(connection, "public")
        connection.execute("CREATE TABLE visits (id serial, client_id text)")
        connection.execute("CREATE POLICY tenant ON visits USING (client_id = current_user)")
        connection.execute("CREATE VIEW seen AS SELECT id FROM persons")
        connection.execute("CREATE SCHEMA app")
        connection.execute("CREATE TABLE app.clients (id int)")
        assert own_tables(connection, "public") == own
        assert own_tables(connection, "app") == []
        assert other_relations(connection, "public", own) == ["seen", "visits", "visits_id_seq"]
        connection.rollback()
