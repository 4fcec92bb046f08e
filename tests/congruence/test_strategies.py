"""Every way to search gives the same answer, each by the index that it is meant to use, in one round trip."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import psycopg
import pytest

from faceward.errors import IndexMissingError
from faceward.retrieval import Retriever
from faceward.retrieval.freshness import SketchKeeper
from faceward.retrieval.retriever import RetrievalSettings
from faceward.sketches import SketchCache
from faceward.store.database import Database, PoolSettings
from faceward.store.embedded import EmbeddedServer
from faceward.store.gallery import Gallery
from faceward.store.scopes import ScopeReader
from faceward.store.search import CandidateSource, FaceSearch, FullVectors, Graph, SignBits
from faceward.types import Candidate, Embedding, NewFace
from synthetic import MODEL, unit

PERSONS = 240
TWINS = 30
"""Persons with exactly the same embedding: their order is decided by the face's id alone."""
TWIN = unit(10**6)
MOST = 10_000


def embeddings_of(person: int) -> list[Embedding]:
    if person < TWINS:
        return [TWIN, unit(person)]
    return [unit(person)] * (1 + person % 3)


def near(embedding: Embedding, seed: int, similarity: float = 0.6) -> Embedding:
    other = unit(seed).astype(np.float64)
    other -= (other @ embedding) * embedding
    mixed = similarity * embedding + np.sqrt(1 - similarity**2) * other / np.linalg.norm(other)
    return (mixed / np.linalg.norm(mixed)).astype(np.float32)


PROBES = {
    "a twin": TWIN,
    "near the twins": near(TWIN, 1),
    "an enrolled photo": unit(77),
    "another photo of a person": near(unit(100), 2),
    "a weak likeness": near(unit(130), 3, 0.3),
    "nobody": unit(10**7),
    "the opposite of a person": -unit(50),
}


@pytest.fixture(scope="module")
def url(server: EmbeddedServer) -> Iterator[str]:
    """Two clients with the same people: even ones in region A, odd ones in B."""
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE strategies TEMPLATE faceward_template")
        url = server.url_of("strategies")
        with Database(url) as database:
            gallery = Gallery(database, MODEL)
            for person in range(PERSONS):
                for client in ("acme", "globex"):
                    faces = [NewFace(embedding) for embedding in embeddings_of(person)]
                    gallery.create_person(client, "AB"[person % 2], f"person {person}", faces)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE) face_encodings")
        yield url
        admin.execute("DROP DATABASE strategies WITH (FORCE)")


@dataclass(frozen=True)
class Store:
    database: Database
    search: FaceSearch
    retriever: Retriever


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """With a pool of one connection, so that a test can look at the one that a search used."""
    with Database(url, pool=PoolSettings(pool_size=1, max_overflow=0, pool_timeout=10)) as database:
        search, gallery = FaceSearch(database), Gallery(database, MODEL)
        keeper = SketchKeeper(ScopeReader(database, MODEL, 512), SketchCache(1 << 20, 512))
        settings = RetrievalSettings(full_vectors_up_to=0, sketch_from=0, size_seconds=0)
        yield Store(
            database, search, Retriever(search, gallery, keeper, model_id=MODEL, dimension=512, settings=settings)
        )
        keeper.close()


def ask(
    store: Store, source: CandidateSource, probe: Embedding, regions: tuple[str, ...] = ("A",), top_k: int = 100
) -> tuple[Candidate, ...]:
    (answer,) = store.search.search("acme", regions, [probe], [source], model_id=MODEL, top_k=top_k)
    return answer.candidates


def brute_force(probe: Embedding, regions: tuple[str, ...]) -> dict[str, float]:
    return {
        f"person {person}": max(float(probe.astype(float) @ embedding) for embedding in embeddings_of(person))
        for person in range(PERSONS)
        if "AB"[person % 2] in regions
    }


@pytest.mark.parametrize("regions", [("A",), ("B",), ("A", "B"), ("B", "nowhere")], ids="+".join)
@pytest.mark.parametrize("probe", PROBES)
def test_all_exact_strategies_give_the_answer_of_brute_force(
    store: Store, probe: str, regions: tuple[str, ...]
) -> None:
    vector = PROBES[probe]
    for region in regions:
        store.retriever.warm("acme", region)
    answers = [ask(store, source, vector, regions) for source in (FullVectors(MOST), SignBits(512))]
    for strategy in ("exact", "sketch", "auto"):
        (answer,) = store.retriever.find("acme", regions, [vector], top_k=100, strategy=strategy)
        answers.append(answer.candidates)
    expected = sorted(brute_force(vector, regions).items(), key=lambda item: -item[1])[:100]
    found = answers[0]
    assert [candidate.similarity for candidate in found] == pytest.approx([s for _, s in expected], abs=1e-6)
    assert {c.name for c in found[:50]} <= {name for name, s in expected if s >= found[49].similarity - 1e-6}
    assert all(other[:10] == found[:10] for other in answers)
    assert answers[1] == found


@pytest.mark.parametrize("top_k", [1, 7, 29])
def test_ties_are_broken_alike_by_the_face_that_came_first(store: Store, top_k: int) -> None:
    regions = ("A", "B")
    for region in regions:
        store.retriever.warm("acme", region)
    found = ask(store, FullVectors(MOST), TWIN, regions, top_k)
    assert [candidate.name for candidate in found] == [f"person {person}" for person in range(top_k)]
    assert ask(store, SignBits(512), TWIN, regions, top_k) == found
    for strategy in ("exact", "sketch"):
        (answer,) = store.retriever.find("acme", regions, [TWIN], top_k=top_k, strategy=strategy)
        assert answer.candidates == found


def test_of_a_persons_equal_faces_the_first_is_named(store: Store) -> None:
    faces = len(embeddings_of(77))
    assert faces == 3
    (found,) = ask(store, FullVectors(MOST), unit(77), ("B",), 1)
    stored = Gallery(store.database, MODEL).list_faces("acme", found.person_id)
    assert (found.name, found.face_id) == ("person 77", min(face.id for face in stored))


def test_probes_of_one_call_are_answered_as_if_asked_alone(store: Store) -> None:
    probes = list(PROBES.values())
    sources: list[CandidateSource] = [FullVectors(MOST) if i % 2 else SignBits(512) for i in range(len(probes))]
    together = store.search.search("acme", ["A"], probes, sources, model_id=MODEL, top_k=5)
    alone = [ask(store, source, probe, top_k=5) for source, probe in zip(sources, probes, strict=True)]
    assert [answer.candidates for answer in together] == alone


def test_embeddings_of_another_model_are_never_compared(store: Store) -> None:
    for source in (FullVectors(MOST), SignBits(512), Graph(MOST)):
        (answer,) = store.search.search("acme", ["A"], [TWIN], [source], model_id="another", top_k=5)
        assert answer.candidates == ()


def test_the_graph_may_miss_but_never_crosses_a_scope(store: Store) -> None:
    for probe in PROBES.values():
        for regions in (("A",), ("A", "B")):
            exact = {c.person_id: c.similarity for c in ask(store, FullVectors(MOST), probe, regions, MOST)}
            found = {c.person_id: c.similarity for c in ask(store, Graph(100), probe, regions)}
            assert found
            assert all(similarity <= exact[person] for person, similarity in found.items())
    assert ask(store, Graph(100), unit(78), ("A",))[0].name == "person 78"
    assert "person 77" not in [candidate.name for candidate in ask(store, Graph(100), unit(77), ("A",))]
    assert ask(store, Graph(100), unit(78), ("nowhere",)) == ()


# What PostgreSQL did, by its own counters


@dataclass(frozen=True)
class Use:
    """scans: of the index. read: entries it gave. fetched: rows that had to be looked up in the table for them."""

    scans: int
    read: int
    fetched: int


@pytest.fixture
def uses(url: str) -> Callable[[CandidateSource], dict[str, Use]]:
    """Ten real searches, past the point where a prepared statement may get its generic plan; each index's use."""

    def counters() -> dict[str, tuple[int, ...]]:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'faceward' "
                "AND datname = current_database()"
            )
            rows = connection.execute(
                "SELECT indexrelname, idx_scan, idx_tup_read, idx_tup_fetch FROM pg_stat_user_indexes"
            ).fetchall()
        return {name: tuple(numbers) for name, *numbers in rows}

    def uses(source: CandidateSource) -> dict[str, Use]:
        before = counters()
        with Database(url, pool=PoolSettings(pool_size=1, max_overflow=0)) as database:
            search = FaceSearch(database)
            for _ in range(10):
                search.search("acme", ["A"], [TWIN], [source], model_id=MODEL, top_k=5)
        after = counters()  # a connection reports its counts when it ends
        return {
            name: Use(*(now - then for now, then in zip(numbers, before[name], strict=True)))
            for name, numbers in after.items()
        }

    return uses


def test_exact_searches_never_touch_the_graph(uses: Callable[[CandidateSource], dict[str, Use]]) -> None:
    for source in (FullVectors(MOST), SignBits(512), FullVectors(5), SignBits(5)):
        assert uses(source)["idx_embedding_hnsw"].scans == 0


def test_the_strategy_hnsw_uses_the_graph(uses: Callable[[CandidateSource], dict[str, Use]]) -> None:
    graph = uses(Graph(20))["idx_embedding_hnsw"]
    assert graph.scans == 10
    assert graph.read >= 200


def test_sign_bits_are_read_from_the_index_alone(uses: Callable[[CandidateSource], dict[str, Use]]) -> None:
    codes = uses(SignBits(5))["idx_face_scope_code"]
    faces = sum(len(embeddings_of(person)) for person in range(0, PERSONS, 2))
    assert (codes.scans, codes.read, codes.fetched) == (10, 10 * faces, 0)


def test_a_search_is_one_round_trip(store: Store) -> None:
    """Also the first one on a connection; also with several faces in the photo."""
    probes = list(PROBES.values())
    sources: list[CandidateSource] = [
        SignBits(200),
        FullVectors(50),
        Graph(50),
        *([FullVectors(50)] * (len(probes) - 3)),
    ]
    for _ in range(3):
        with tempfile.TemporaryFile("w+") as trace:
            with store.database.driver_connection() as connection:
                connection.pgconn.trace(trace.fileno())
            store.search.search("acme", ["A"], probes, sources, model_id=MODEL, top_k=5)
            with store.database.driver_connection() as connection:
                connection.pgconn.untrace()
            trace.seek(0)
            directions = [line.split("\t")[1] for line in trace if line.count("\t") > 1]
        turns = [way for i, way in enumerate(directions) if i == 0 or way != directions[i - 1]]
        assert turns == ["F", "B"]


def test_nothing_of_a_search_outlives_it(store: Store) -> None:
    settings = ("enable_sort", "enable_bitmapscan", "hnsw.ef_search", "enable_hashjoin", "enable_mergejoin")

    def shown() -> list[object]:
        with store.database.driver_connection() as connection:
            return [connection.execute(f"SHOW {name}").fetchone() for name in settings]

    ask(store, FullVectors(50), TWIN)
    before = shown()
    ask(store, Graph(50, ef_search=123), TWIN)
    assert shown() == before
    with store.database.driver_connection() as connection:
        assert connection.execute("SELECT count(*) FROM face_encodings").fetchone() == (0,)


def test_without_the_index_the_strategy_hnsw_says_what_to_do(database_url: str, database: Database) -> None:
    search = FaceSearch(database)
    search.require_graph()
    with psycopg.connect(database_url) as connection:
        connection.execute("DROP INDEX idx_embedding_hnsw")
    with pytest.raises(IndexMissingError, match=r"idx_embedding_hnsw is missing.*auto or exact"):
        search.require_graph()


def test_a_person_is_compared_by_each_stored_face(store: Store) -> None:
    (first, *_) = ask(store, FullVectors(MOST), unit(2), top_k=1)
    assert first.name == "person 2"
    found = store.search.similarities_of_person("acme", first.person_id, unit(2), model_id=MODEL)
    assert [face.similarity for face in found] == pytest.approx([1.0, float(unit(2) @ TWIN)], abs=1e-6)
    assert store.search.similarities_of_person("globex", first.person_id, unit(2), model_id=MODEL) == []
