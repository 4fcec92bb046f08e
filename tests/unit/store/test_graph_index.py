"""The HNSW index is changed without holding up who reads the faces."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from faceward.store.graph_index import NAME, GraphSettings
from faceward.store.schema import Schema
from rows import waiting


def stands(url: str) -> bool:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT to_regclass(%s)", (NAME,)).fetchone()
        return row is not None and row[0] is not None


@pytest.mark.parametrize("change", [GraphSettings(exists=False), GraphSettings(m=8)])
def test_a_change_waits_for_a_long_reader_and_lets_others_read_meanwhile(
    database_url: str, change: GraphSettings
) -> None:
    schema = Schema(database_url)
    schema.apply_graph(GraphSettings())
    with ThreadPoolExecutor(1) as pool:
        with psycopg.connect(database_url) as reader:  # as a backup
            reader.execute("SELECT count(*) FROM face_encodings")
            changed = pool.submit(schema.apply_graph, change)
            while not waiting(database_url):
                assert not changed.done()
            with psycopg.connect(database_url) as other:
                other.execute("SET lock_timeout = '2s'")
                other.execute("SELECT count(*) FROM face_encodings")
        assert changed.result()
    assert stands(database_url) == change.exists


def test_an_import_sets_it_aside_once_a_long_reader_is_gone(database_url: str) -> None:
    schema = Schema(database_url)
    schema.apply_graph(GraphSettings())
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT count(*) FROM face_encodings")
        assert schema.set_graph_aside(1_000) is None
        assert stands(database_url)
    aside = schema.set_graph_aside(1_000)
    assert aside is not None
    with aside:
        assert not stands(database_url)
    assert stands(database_url)
