"""A database that an older faceward filled is brought up to date with all that it holds."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from faceward.store import schema
from faceward.store.api_keys import KeyStore
from faceward.store.clients import ClientStore
from faceward.store.database import APP_ROLE, Database
from faceward.store.gallery import Gallery
from faceward.store.graph_index import GraphSettings
from faceward.store.jobs import JobStore
from faceward.store.regions import RegionStore
from faceward.store.schema import Schema
from faceward.store.shadow import make
from older_versions import stand_at
from synthetic import MODEL, new_face

REGIONS = {("acme", "A"): 2, ("acme", "B"): 1, ("globex", "A"): 1}


def fill(url: str) -> None:
    """As version 0001 wrote it."""
    with psycopg.connect(url) as connection:
        for (client, region), persons in REGIONS.items():
            connection.execute(
                "INSERT INTO regions (client_id, name, created_at) VALUES (%s, %s, '2020-01-01Z')", (client, region)
            )
            for number in range(persons):
                connection.execute(
                    "INSERT INTO persons (client_id, region, name) VALUES (%s, %s, %s)", (client, region, f"{number}")
                )


def test_what_version_1_stored_is_kept_and_its_clients_are_known(empty_database: str) -> None:
    Schema(empty_database).upgrade()
    stand_at(empty_database, "0001")
    assert Schema(empty_database).status().revision == "0001"
    fill(empty_database)
    assert Schema(empty_database).upgrade()
    assert Schema(empty_database).status().unforced == frozenset()
    with Database(empty_database) as database:
        found = {(c, r.name): r.persons for c in ("acme", "globex") for r in RegionStore(database).list(c).regions}
        assert found == REGIONS
        clients = ClientStore(database).list().clients
        assert [(client.client_id, client.name, client.threshold) for client in clients] == [
            ("acme", "acme", None),
            ("globex", "globex", None),
        ]
        assert {client.created_at.year for client in clients} == {2020}
        Gallery(database, MODEL).create_person("acme", "A", "Alice", [new_face(1)])


def test_no_sample_of_a_face_is_kept_by_the_planner(empty_database: str) -> None:
    """Neither of what an older version had sampled nor of what is analysed from now on: an erasure can't reach it."""
    dimension = 128  # short enough that PostgreSQL samples the embeddings themselves
    Schema(empty_database).upgrade(dimension=dimension)
    stand_at(empty_database, "0003")
    fill(empty_database)
    sampled = (
        "SELECT attname FROM pg_stats WHERE tablename = 'face_encodings' AND attname IN ('code', 'embedding') "
        "OR tablename = 'idx_embedding_hnsw'"
    )
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO face_encodings (client_id, person_id, region, model_id, embedding) "
            "SELECT p.client_id, p.id, p.region, %s, l2_normalize(array_fill(p.id::real, ARRAY[%s])::vector - "
            "(array_fill(0::real, ARRAY[%s - 1]) || 1::real)::vector) FROM persons p",
            (MODEL, dimension, dimension),
        )
        connection.execute("ANALYZE face_encodings")
        assert connection.execute(sampled).fetchall()
        assert Schema(empty_database).upgrade(dimension=dimension)
        assert connection.execute(sampled).fetchall() == []
        Schema(empty_database).apply_graph(GraphSettings(halfvec=True))
        connection.execute("ANALYZE face_encodings")
        assert connection.execute(sampled).fetchall() == []


def test_an_owner_that_row_security_binds_finds_the_clients_too(
    empty_database: str, login: Callable[..., str], admin: psycopg.Connection
) -> None:
    """No tenant is set in a migration: the tables' owner, if no superuser, would see none of their rows."""
    url = login(empty_database, "owner", "CREATEROLE")
    admin.execute("ALTER DATABASE empty OWNER TO owner")
    admin.execute(f"GRANT {APP_ROLE} TO owner")
    with psycopg.connect(empty_database) as connection:
        connection.execute("CREATE EXTENSION vector")
    Schema(url).upgrade()
    stand_at(url, "0001")
    fill(empty_database)
    assert Schema(url).upgrade()
    with Database(url) as database:
        assert [client.client_id for client in ClientStore(database).list().clients] == ["acme", "globex"]
    admin.execute("ALTER DATABASE empty OWNER TO postgres")


def test_a_migration_goes_no_further_than_this_version(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "HEAD", "0001")
    assert Schema(empty_database).upgrade()
    assert Schema(empty_database).status().revision == "0001"


def test_a_change_of_the_model_under_way_is_brought_along(empty_database: str) -> None:
    """Both tables of faces tell photos apart as the newest version does."""
    Schema(empty_database).upgrade()
    stand_at(empty_database, "0008")
    with Schema(empty_database).transaction() as tx:
        make(tx, "next", 256)
    Schema(empty_database).build_shadow_indexes()
    whole = (
        "SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
        "WHERE indpred IS NULL AND relname LIKE 'uq_face_photo%'"
    )
    with psycopg.connect(empty_database, autocommit=True) as connection:
        assert {name for (name,) in connection.execute(whole)} == {"uq_face_photo", "uq_face_photo_next"}
        assert Schema(empty_database).upgrade()
        assert connection.execute(whole).fetchall() == []
        stand_at(empty_database, "0008")
        assert {name for (name,) in connection.execute(whole)} == {"uq_face_photo", "uq_face_photo_next"}


def test_the_log_of_an_older_version_is_closed_to_times_of_ones_own(empty_database: str) -> None:
    Schema(empty_database).upgrade()
    told = "SELECT has_column_privilege(%s, 'audit_log', name, 'INSERT') FROM unnest(ARRAY['at', 'actor']) AS name"
    with psycopg.connect(empty_database, autocommit=True) as connection:
        stand_at(empty_database, "0010")
        assert connection.execute(told, (APP_ROLE,)).fetchall() == [(True,), (True,)]
        assert Schema(empty_database).upgrade()
        assert connection.execute(told, (APP_ROLE,)).fetchall() == [(False,), (True,)]


NFD = "Zu\u0308rich"


def test_names_that_no_caller_can_send_any_more_are_brought_into_the_form_that_they_send(
    empty_database: str, login: Callable[..., str], admin: psycopg.Connection
) -> None:
    url = login(empty_database, "owner", "CREATEROLE")
    admin.execute("ALTER DATABASE empty OWNER TO owner")
    admin.execute(f"GRANT {APP_ROLE} TO owner")
    with psycopg.connect(empty_database) as connection:
        connection.execute("CREATE EXTENSION vector")
    Schema(url).upgrade()
    stand_at(url, "0012")
    regions = [
        ("acme", NFD), ("acme", "A"), ("acme", "A\u200b"), ("acme", "می\u200cخواهم"), ("globex", "Zürich"), ("globex", NFD),
        ("globex", ".."),
    ]  # fmt: skip
    with psycopg.connect(empty_database) as connection:
        connection.execute("INSERT INTO clients (client_id, name) VALUES ('acme', 'Acme'), ('globex', 'Globex')")
        for client, region in regions:
            connection.execute(
                "INSERT INTO regions (client_id, name, threshold) VALUES (%s, %s, 0.5)", (client, region)
            )
            for external_id in ("e\u0301", "é", "o\u0308"):
                row = connection.execute(
                    "INSERT INTO persons (client_id, region, name, external_id) VALUES (%s, %s, %s, %s) RETURNING id",
                    (client, region, ascii(region), external_id),
                ).fetchone()
                assert row is not None
                connection.execute(
                    "INSERT INTO face_encodings (client_id, person_id, region, model_id, embedding) "
                    "VALUES (%s, %s, %s, %s, %s)",
                    (client, row[0], region, MODEL, str([1.0] + [0.0] * 511)),
                )
        connection.execute(
            "INSERT INTO api_keys (client_id, prefix, secret_hash, role, regions) VALUES ('acme', 'p', %s, 'manager', %s)",
            (b"0" * 32, [NFD, "A", "A\u200b", "to come u\u0308"]),
        )
        connection.execute(
            "INSERT INTO jobs (client_id, kind, state, region_limit) VALUES ('acme', 'archive', 'queued', %s)", ([NFD],)
        )
    assert Schema(url).upgrade()
    assert Schema(url).status().unforced == frozenset()
    with Database(url) as database:
        store, gallery = RegionStore(database), Gallery(database, MODEL)
        found = {
            (c, r.name): (r.persons, r.faces, r.threshold) for c in ("acme", "globex") for r in store.list(c).regions
        }
        assert set(found) == {
            ("acme", "Zürich"), ("acme", "A"), ("acme", "A (2)"), ("acme", "می\u200cخواهم"), ("globex", "Zürich"),
            ("globex", "Zürich (2)"), ("globex", "region .."),
        }  # fmt: skip
        assert set(found.values()) == {(3, 3, 0.5)}
        people = gallery.list_persons("globex", region="Zürich (2)").persons
        assert [person.name for person in people] == [ascii(NFD)] * 3
        assert [person.external_id for person in people] == ["e\u0301", "é", "ö"]
        (key,) = KeyStore(database).list("acme").keys
        assert key.regions == ("Zürich", "A", "A (2)", "to come ü")
        (job,) = JobStore(database).list("acme").jobs
        assert job.region_limit == ("Zürich",)
    admin.execute("ALTER DATABASE empty OWNER TO postgres")
