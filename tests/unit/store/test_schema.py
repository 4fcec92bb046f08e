"""The tables of the contract, made on first use by whoever comes first, and refused where they can't be used."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector
from sqlalchemy.engine import make_url

from faceward.errors import (
    ExtensionMissingError,
    ModelMismatchError,
    SchemaMissingError,
    SettingsError,
)
from faceward.sketches import sign_codes
from faceward.store.database import Database, parse_url
from faceward.store.gallery import Gallery
from faceward.store.schema import (
    CONTRACT_INDEXES,
    HEAD,
    Schema,
    check_database,
    newest_revision,
    version_tuple,
)
from faceward.types import Box, NewFace
from synthetic import MODEL, new_face, unit

# The contract's columns, and those that were added to them.
COLUMNS = {
    "persons": {
        "id": "bigint",
        "name": "character varying(255)",
        "region": "character varying(50)",
        "client_id": "character varying(100)",
        "description": "text",
        "created_at": "timestamp with time zone",
        "updated_at": "timestamp with time zone",
        "external_id": "character varying(255)",
        "state": "character varying(20)",
        "expires_at": "timestamp with time zone",
        "matchable_until": "timestamp with time zone",
    },
    "face_encodings": {
        "id": "bigint",
        "person_id": "bigint",
        "embedding": "vector(512)",
        "image_path": "character varying(500)",
        "image_data": "bytea",
        "face_bbox": "character varying(100)",
        "confidence": "real",
        "quality_score": "real",
        "created_at": "timestamp with time zone",
        "client_id": "character varying(100)",
        "region": "character varying(50)",
        "model_id": "character varying(100)",
        "row_version": "xid8",
        "code": "bit(512)",
        "image_sha256": "bytea",
        "matchable_until": "timestamp with time zone",
        "image_key_id": "character varying(100)",
        "image_box": "character varying(100)",
    },
}

UPGRADE = """
import sys
from faceward.store.schema import Schema
schema = Schema(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(schema.upgrade(), flush=True)
"""


def rows(url: str, statement: str, *parameters: object) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement, parameters).fetchall()


def test_tables_are_made_on_first_use_and_left_alone_then(empty_database: str) -> None:
    schema = Schema(empty_database)
    before = schema.status()
    assert (before.revision, before.current, before.pgvector) == (None, False, None)
    assert schema.upgrade() is True
    assert schema.upgrade() is False
    after = schema.status()
    assert after.current
    assert after.pgvector is not None
    assert version_tuple(after.pgvector) >= (0, 7)
    assert after.app_role
    assert after.app_role_is_safe
    assert set(CONTRACT_INDEXES) <= after.indexes


def test_processes_that_start_together_do_not_collide(empty_database: str) -> None:
    command = [sys.executable, "-c", UPGRADE, empty_database]
    starting = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in starting:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in starting:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60) for process in starting]
    assert [process.returncode for process in starting] == [0, 0, 0], answers
    assert sorted(out.strip() for out, _ in answers) == ["False", "False", "True"]
    assert Schema(empty_database).status().current


def test_a_failed_migration_leaves_nothing_behind(empty_database: str) -> None:
    with psycopg.connect(empty_database) as connection:
        connection.execute("CREATE TABLE face_encodings (somebody_elses integer)")
    with pytest.raises(Exception, match="face_encodings"):
        Schema(empty_database).upgrade()
    assert (
        rows(empty_database, "SELECT relname FROM pg_class WHERE relname IN ('persons', 'regions', 'alembic_version')")
        == []
    )
    with psycopg.connect(empty_database) as connection:
        connection.execute("DROP TABLE face_encodings")
    assert Schema(empty_database).upgrade() is True


@pytest.mark.parametrize("table", COLUMNS)
def test_columns_are_those_of_the_contract(database_url: str, table: str) -> None:
    found = rows(
        database_url,
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        table,
    )
    assert dict(found) == COLUMNS[table]


def test_indexes_are_those_of_the_contract(database_url: str) -> None:
    found = dict(rows(database_url, "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"))
    graph = found["idx_embedding_hnsw"]
    for part in ("ON public.face_encodings USING hnsw", "vector_cosine_ops", "m='16'", "ef_construction='64'"):
        assert part in str(graph)
    assert str(found["idx_person_region_client"]).endswith("(client_id, region, id)")
    assert "ON public.persons " in str(found["idx_person_region_client"])
    assert str(found["idx_face_scope_code"]).endswith("(client_id, region, id) INCLUDE (code, matchable_until)")


def test_vectors_and_codes_stay_in_the_row(database_url: str) -> None:
    """Out of line, a scan of the codes would touch five times as many pages."""
    storage = rows(
        database_url,
        "SELECT attname, attstorage::text FROM pg_attribute "
        "WHERE attrelid = 'face_encodings'::regclass AND attname IN ('embedding', 'code')",
    )
    assert dict(storage) == {"embedding": "p", "code": "p"}


def test_nothing_but_a_large_image_leaves_the_row(database_url: str, database: Database) -> None:
    """Each column out of line is one more look-up for each face of a re-rank."""
    face = dataclasses.replace(
        new_face(1), image_path="p" * 500, image_sha256=bytes(range(32)), box=Box(1234.5, 1234.5, 2345.6, 2345.6)
    )
    gallery = Gallery(database, "a-pack-of-a-long-name-1.2.3:0123456789ab")
    gallery.create_person("c" * 100, "r" * 50, "Name", [face])
    toast = "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = 'face_encodings'::regclass"
    assert rows(database_url, toast) == [(0,)]
    gallery.create_person("c" * 100, "r" * 50, "Other", [dataclasses.replace(new_face(2), image_data=os.urandom(9000))])
    assert rows(database_url, toast) != [(0,)]


def test_ids_are_identities(database_url: str) -> None:
    for table in ("persons", "face_encodings"):
        kind = rows(
            database_url,
            "SELECT attidentity::text FROM pg_attribute WHERE attrelid = %s::regclass AND attname = 'id'",
            table,
        )
        assert kind[0][0] in ("a", "d")


def test_the_stored_code_is_the_sign_bits_that_sketches_use(database_url: str, gallery: Gallery) -> None:
    embeddings = np.stack([unit(seed) for seed in range(20)])
    embeddings[0, :5] = 0.0  # zero has no sign: both sides must agree on its bit
    embeddings[1, :5] = -0.0
    embeddings[:2] /= np.linalg.norm(embeddings[:2], axis=1, keepdims=True)
    for i, embedding in enumerate(embeddings):
        gallery.create_person("default", "A", f"person {i}", [NewFace(embedding)])
    with psycopg.connect(database_url) as connection:
        register_vector(connection)
        found = connection.execute(
            "SELECT code::text, binary_quantize(embedding)::text, embedding FROM face_encodings ORDER BY id"
        ).fetchall()
    stored = np.array([[int(bit) for bit in code] for code, _, _ in found], dtype=np.uint8)
    assert all(code == quantised for code, quantised, _ in found)
    assert np.array_equal(np.stack([vector.to_numpy() for _, _, vector in found]), embeddings)
    assert np.array_equal(np.packbits(stored, axis=1), sign_codes(embeddings))


def test_the_newest_migration_is_the_one_that_the_code_needs() -> None:
    assert newest_revision() == HEAD


@pytest.mark.parametrize("factor", [0.9, 1.1, 2.0])
def test_only_unit_length_embeddings_are_stored(database_url: str, gallery: Gallery, factor: float) -> None:
    person, _ = gallery.create_person("default", "A", "Alice", [new_face(1)])
    insert = "INSERT INTO face_encodings (person_id, region, model_id, embedding) VALUES (%s, 'A', %s, %s)"
    with psycopg.connect(database_url) as connection:
        register_vector(connection)
        with pytest.raises(psycopg.errors.CheckViolation) as caught:
            connection.execute(insert, (person.id, MODEL, unit(2) * factor))
    assert caught.value.diag.constraint_name == "ck_face_unit_length"


def test_another_dimension_than_512(empty_database: str) -> None:
    assert Schema(empty_database).upgrade(dimension=128)
    face = np.zeros(128, dtype=np.float32)
    face[3] = 1
    with Database(empty_database) as database:
        check_database(database, MODEL, 128)
        person, _ = Gallery(database, MODEL).create_person("default", "A", "Alice", [NewFace(face)])
        assert person.face_count == 1
        with pytest.raises(ModelMismatchError, match=r"embeddings of 128 numbers.* makes 512.*faceward reembed --pack"):
            check_database(database, MODEL, 512)


def test_a_database_of_another_model_is_refused(database: Database, gallery: Gallery) -> None:
    check_database(database, "another model", 512)
    gallery.create_person("acme", "A", "Alice", [new_face(1)])
    check_database(database, MODEL, 512)
    with pytest.raises(ModelMismatchError, match=r"model-of-the-tests; .*another model.*faceward reembed --pack"):
        check_database(database, "another model", 512)


def test_services_with_two_models_cannot_both_begin_a_database(database: Database, gallery: Gallery) -> None:
    """Each found it empty when it started; the first face decides, for every client of it."""
    other = Gallery(database, "another model")
    gallery.create_person("acme", "A", "Alice", [new_face(1)])
    for client in ("acme", "globex"):
        with pytest.raises(ModelMismatchError, match="made by the model model-of-the-tests"):
            other.create_person(client, "A", "Bob", [new_face(2)])
    assert other.list_persons("globex").persons == ()
    assert gallery.create_person("globex", "A", "Bob", [new_face(2)])[0].face_count == 1


def test_a_database_that_was_not_migrated_is_refused(empty_database: str) -> None:
    with Database(empty_database) as database, pytest.raises(ExtensionMissingError, match="CREATE EXTENSION vector"):
        check_database(database, MODEL, 512)
    with psycopg.connect(empty_database) as connection:
        connection.execute("CREATE EXTENSION vector")
    with Database(empty_database) as database, pytest.raises(SchemaMissingError, match="faceward db upgrade"):
        check_database(database, MODEL, 512)


def test_a_database_of_a_newer_faceward_is_refused(database_url: str, database: Database) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaMissingError, match=r"version 9999; this faceward needs version"):
        check_database(database, MODEL, 512)
    with pytest.raises(SchemaMissingError, match=r"version 9999.*newer faceward"):
        Schema(database_url).upgrade()


class _FakeExtension:
    """What pg_extension and pg_available_extensions say, in a schema that stands before pg_catalog."""

    def __init__(self, url: str) -> None:
        self._admin = url
        self.url = make_url(url).update_query_dict({"options": "-csearch_path=fake,pg_catalog,public"})

    def say(self, installed: str | None, available: str | None) -> str:
        with psycopg.connect(self._admin) as connection:
            connection.execute("CREATE SCHEMA fake")
            for view, column, value in (
                ("pg_extension", "extname", installed),
                ("pg_available_extensions", "name", available),
            ):
                version = "extversion" if view == "pg_extension" else "default_version"
                connection.execute(
                    psycopg.sql.SQL("CREATE VIEW fake.{} AS SELECT 'vector' AS {}, {}::text AS {} WHERE {}").format(
                        psycopg.sql.Identifier(view),
                        psycopg.sql.Identifier(column),
                        psycopg.sql.Literal(value),
                        psycopg.sql.Identifier(version),
                        psycopg.sql.Literal(value is not None),
                    )
                )
        return self.url.render_as_string(hide_password=False)


def test_a_server_without_pgvector_says_how_to_get_it(empty_database: str) -> None:
    url = _FakeExtension(empty_database).say(installed=None, available=None)
    with pytest.raises(ExtensionMissingError, match=r"no pgvector installed.*postgresql-NN-pgvector.*embedded"):
        Schema(url).upgrade()


@pytest.mark.parametrize("version", ["0.4.4", "0.6.2"])
def test_a_pgvector_that_is_too_old_says_how_to_update_it(empty_database: str, version: str) -> None:
    url = _FakeExtension(empty_database).say(installed=version, available=version)
    with pytest.raises(ExtensionMissingError, match=rf"pgvector {version} is too old.*ALTER EXTENSION vector UPDATE"):
        Schema(url).upgrade()


def test_tables_in_a_schema_that_the_url_names(empty_database: str) -> None:
    with psycopg.connect(empty_database) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE SCHEMA faces")
    url = make_url(empty_database).update_query_dict({"options": "-csearch_path=faces,public"})
    shown = url.render_as_string(hide_password=False)
    assert Schema(shown).upgrade()
    assert rows(empty_database, "SELECT to_regclass('faces.persons')::text, to_regclass('public.persons')") == [
        ("faces.persons", None)
    ]
    with Database(shown) as database:
        check_database(database, MODEL, 512)
        assert Gallery(database, MODEL).create_person("acme", "A", "Alice", [new_face(1)])[0].face_count == 1


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/d", "secret", "", "postgresql://u:secret@h:port/d", "sqlite:///secret"]
)
def test_a_url_of_another_kind_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match="postgresql://") as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)


def test_versions_compare_by_number() -> None:
    assert version_tuple("0.10.0") > version_tuple("0.7.4")
    assert version_tuple("1.0") > (0, 7)
