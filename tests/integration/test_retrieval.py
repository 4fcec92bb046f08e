"""However people come, go and move: exact search, sketches and auto give the answer of brute force, all of them.

And what a search costs does not depend on what the planner knows of the table.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from faceward.evaluation.noise_model import NoiseModel
from faceward.retrieval import RetrievalSettings
from faceward.store.database import Database, PoolSettings
from faceward.store.embedded import EmbeddedServer
from faceward.store.gallery import Gallery
from faceward.store.search import FullVectors, Proposed, SearchAnswer, SignBits
from faceward.types import Candidate, NewFace
from searching import AT_REST, CLIENT, Searching, same
from synthetic import MODEL, unit

REGIONS = ("A", "B", "C")
LOOKS = [unit(n) for n in range(12)]
"""Few, so that several people look exactly alike and searches end in ties."""


@dataclass
class Known:
    """A person as the test knows it. faces: ids and embeddings, by number in LOOKS."""

    region: str
    faces: dict[int, int] = field(default_factory=dict)


class People(RuleBasedStateMachine):
    """Changes a gallery at random. Sketches are loaded, extended or left behind at random as well."""

    searching: dict[str, Searching]
    clients: Iterator[int]

    @initialize()
    def begin(self) -> None:
        self.client = f"client {next(self.clients)}"
        self.people: dict[int, Known] = {}

    @rule(
        region=st.sampled_from(REGIONS), looks=st.lists(st.sampled_from(range(12)), min_size=1, max_size=3, unique=True)
    )
    def enroll(self, region: str, looks: list[int]) -> None:
        faces = [NewFace(LOOKS[look]) for look in looks]
        person, ids = self.gallery.create_person(self.client, region, "somebody", faces)
        self.people[person.id] = Known(region, dict(zip(ids, looks, strict=True)))

    @precondition(lambda self: self.people)
    @rule(data=st.data(), look=st.sampled_from(range(12)))
    def add_face(self, data: st.DataObject, look: int) -> None:
        person_id = self.somebody(data)
        _, (face_id,) = self.gallery.add_faces(self.client, person_id, [NewFace(LOOKS[look])])
        self.people[person_id].faces[face_id] = look

    @precondition(lambda self: self.people)
    @rule(data=st.data(), region=st.sampled_from(REGIONS))
    def move(self, data: st.DataObject, region: str) -> None:
        person_id = self.somebody(data)
        self.gallery.move_person(self.client, person_id, region)
        self.people[person_id].region = region

    @precondition(lambda self: self.people)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        person_id = self.somebody(data)
        assert self.gallery.delete_person(self.client, person_id) == len(self.people.pop(person_id).faces)

    @precondition(lambda self: any(known.faces for known in self.people.values()))
    @rule(data=st.data())
    def delete_face(self, data: st.DataObject) -> None:
        faces = [(person_id, face_id) for person_id, known in self.people.items() for face_id in known.faces]
        person_id, face_id = data.draw(st.sampled_from(faces))
        assert self.gallery.delete_face(self.client, person_id, face_id)
        del self.people[person_id].faces[face_id]

    @rule(region=st.sampled_from(REGIONS))
    def load(self, region: str) -> None:
        for searching in self.searching.values():
            searching.keeper.load((self.client, region))

    @rule(region=st.sampled_from(REGIONS))
    def extend(self, region: str) -> None:
        for searching in self.searching.values():
            searching.keeper.extend((self.client, region))

    @rule(
        regions=st.lists(st.sampled_from(REGIONS), min_size=1, max_size=3, unique=True),
        look=st.sampled_from(range(12)),
        top_k=st.integers(1, 5),
    )
    def search(self, regions: list[str], look: int, top_k: int) -> None:
        probe = (0.8 * LOOKS[look] + 0.6 * LOOKS[(look + 1) % 12]).astype(np.float32)
        probe /= np.linalg.norm(probe)
        expected = self.brute_force(probe, regions)[:top_k]
        for name, searching in self.searching.items():
            for strategy in ("exact", "sketch", "auto"):
                (answer,) = searching.retriever.find(self.client, regions, [probe], top_k=top_k, strategy=strategy)
                assert [plain(found) for found in answer.candidates] == expected, (name, strategy)

    @invariant()
    def everybody_is_counted(self) -> None:
        for region in REGIONS:
            faces = sum(len(known.faces) for known in self.people.values() if known.region == region)
            assert self.gallery.count_faces(self.client, region) == faces

    @property
    def gallery(self) -> Gallery:
        return self.searching["full vectors"].gallery

    def somebody(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.people)))

    def brute_force(self, probe: np.ndarray, regions: list[str]) -> list[tuple[float, int, int, str]]:
        """(-similarity, face, person, region) of each person's best face, best first; ties by the face's id."""
        best = [
            min(
                (-round(float(LOOKS[look] @ probe), 5), face_id, person_id, known.region)
                for face_id, look in known.faces.items()
            )
            for person_id, known in self.people.items()
            if known.region in regions and known.faces
        ]
        return sorted(best)


def plain(found: Candidate) -> tuple[float, int, int, str]:
    return (-round(found.similarity, 5), found.face_id, found.person_id, found.region)


def test_any_history_of_a_gallery(database: Database) -> None:
    People.searching = {
        "full vectors": Searching.on(database, AT_REST, RetrievalSettings(sketch_from=1, size_seconds=0)),
        "sign bits": Searching.on(
            database, AT_REST, RetrievalSettings(sketch_from=1, full_vectors_up_to=0, size_seconds=0)
        ),
    }
    People.clients = itertools.count()
    run_state_machine_as_test(
        People,
        settings=settings(
            max_examples=20,
            stateful_step_count=40,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
    for searching in People.searching.values():
        searching.keeper.close()


# A region of 20,000, as real embeddings lie

FACES = 20_000


@pytest.fixture(scope="module")
def gallery() -> np.ndarray:
    return NoiseModel.load().persons(FACES, np.random.default_rng(1))


@dataclass(frozen=True)
class Large:
    searching: Searching
    url: str

    def index_use(self, search: Callable[[], object]) -> dict[str, tuple[int, int]]:
        """Scans of each index, and the entries that they gave."""
        before = self._counters()
        search()
        after = self._counters()
        return {name: (scans - before[name][0], read - before[name][1]) for name, (scans, read) in after.items()}

    def _counters(self) -> dict[str, tuple[int, int]]:
        with self.searching.database.unscoped() as tx:  # the one connection that there is: it reports at once
            tx.exec_driver_sql("SELECT pg_stat_force_next_flush()")
        with psycopg.connect(self.url, autocommit=True) as owner:
            rows = owner.execute("SELECT indexrelname, idx_scan, idx_tup_read FROM pg_stat_user_indexes").fetchall()
        return {name: (scans, read) for name, scans, read in rows}


@pytest.fixture(params=["known to the planner", "new to the planner"], scope="module")
def large(request: pytest.FixtureRequest, server: EmbeddedServer, gallery: np.ndarray) -> Iterator[Large]:
    name = f"large_{request.param_index}"
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE faceward_template")
        url = server.url_of(name)
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute("DROP INDEX idx_embedding_hnsw")
            owner.execute("ALTER TABLE face_encodings SET (autovacuum_enabled = off)")
            owner.execute("ALTER TABLE persons SET (autovacuum_enabled = off)")
            with Database(url, pool=PoolSettings(pool_size=1, max_overflow=0)) as database:
                searching = Searching.on(database)
                searching.fill(gallery[:100])
                owner.execute("ANALYZE")  # of what soon tells nothing any more
                searching.fill(gallery[100:], prefix="later")
                if request.param == "known to the planner":
                    owner.execute("VACUUM ANALYZE")
                searching.warm()
                yield Large(searching, url)
                searching.keeper.close()
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_strategies_agree_on_the_nearest_and_on_clear_matches(large: Large, gallery: np.ndarray) -> None:
    rng = np.random.default_rng(7)
    rows = rng.choice(FACES, 60, replace=False)
    model = NoiseModel.load()
    for similarity, part in ((0.7, rows[:20]), (0.58, rows[20:40]), (0.45, rows[40:])):
        probes = model.near(gallery[part], similarity, rng)
        true_nearest = (probes @ gallery.T).max(axis=1)
        for probe, nearest in zip(probes, true_nearest, strict=True):
            exact = large.searching.find(probe, strategy="exact").candidates
            sketch = large.searching.find(probe).candidates
            assert exact[0].similarity == pytest.approx(float(nearest), abs=1e-5)
            assert same(exact[:1], sketch[:1])
            assert same(large.searching.find(probe, strategy="auto").candidates, sketch)


def test_a_search_by_sketch_reads_the_tail_and_the_candidates_and_nothing_else(
    large: Large, gallery: np.ndarray
) -> None:
    entry = large.searching.keeper.cache.peek((CLIENT, "A"))
    assert entry is not None
    source = Proposed(np.arange(1, 201, dtype=np.int64), {"A": entry.watermark})
    repeats = 12  # past the point where a prepared statement may get its generic plan

    def search() -> None:
        for probe in gallery[:repeats]:
            large.searching.search.search(CLIENT, ["A"], [probe], [source], model_id=MODEL, top_k=5)

    use = large.index_use(search)
    assert use["face_encodings_pkey"] == (200 * repeats, 200 * repeats)
    assert use["idx_face_scope_version"][1] == 0, "the tail is empty"
    assert use["idx_face_scope_code"] == (0, 0)
    assert sum(read for name, (_, read) in use.items() if "person" in name) <= 5 * repeats
    large.searching.fill([unit(n) for n in range(30)], prefix="tail")
    use = large.index_use(search)
    assert use["face_encodings_pkey"] == (230 * repeats, 230 * repeats)
    assert use["idx_face_scope_version"] == (repeats, 30 * repeats)
    for person in large.searching.gallery.list_persons(CLIENT, name_prefix="tail").persons:
        large.searching.gallery.delete_person(CLIENT, person.id)


@pytest.mark.parametrize("source", [FullVectors(100), SignBits(220)], ids=["full vectors", "sign bits"])
def test_an_exact_search_reads_the_region_once(
    large: Large, gallery: np.ndarray, source: FullVectors | SignBits
) -> None:
    answers: list[SearchAnswer] = []
    use = large.index_use(
        lambda: answers.extend(
            large.searching.search.search(CLIENT, ["A"], [gallery[5]], [source], model_id=MODEL, top_k=5)
        )
    )
    reranked = answers[0].reranked
    assert 0 < reranked < FACES / 10
    assert use["face_encodings_pkey"] == (reranked, reranked)
    assert use["regions_pkey"][1] <= 5, "the threshold of each of the persons found"
    others = ("person", "regions", "face_encodings_pkey")
    scans = [read for name, (_, read) in use.items() if read and not any(other in name for other in others)]
    assert scans == [pytest.approx(FACES, abs=50)]
