"""Which source answers a search, and when a search is made again with another one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from faceward.evaluation.noise_model import NoiseModel, Rows
from faceward.retrieval import RetrievalSettings
from faceward.sketches import LOWEST_SIMILARITY, SketchBuilder, hamming_candidates_for, propose, sign_codes
from faceward.store.database import Database
from faceward.store.search import TAIL_LIMIT
from searching import AT_REST, CLIENT, Searching, at_last, same
from synthetic import unit


@pytest.fixture
def open_on(database: Database) -> Iterator[Callable[..., Searching]]:
    made: list[Searching] = []

    def make(*args: Any, **kwargs: Any) -> Searching:
        made.append(Searching.on(database, *args, **kwargs))
        return made[-1]

    yield make
    for searching in made:
        searching.keeper.close()


@pytest.fixture
def searching(open_on: Callable[..., Searching]) -> Searching:
    return open_on()


@pytest.fixture
def no_graph(database_url: str) -> None:
    """The HNSW index costs an import more than all the rest."""
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("DROP INDEX idx_embedding_hnsw")


def near(rows: Rows, similarity: float, seed: int) -> Rows:
    return NoiseModel.load().near(rows, similarity, np.random.default_rng(seed))


def test_no_probe_no_search(searching: Searching) -> None:
    assert searching.retriever.find(CLIENT, ["A"], [], top_k=1) == []


def test_several_probes_are_answered_each_for_itself(searching: Searching) -> None:
    searching.fill([unit(n) for n in range(40)])
    searching.warm()
    probes = [unit(n) for n in (5, 7, 11)]
    for strategy in ("exact", "sketch"):
        answers = searching.retriever.find(CLIENT, ["A"], probes, top_k=1, strategy=strategy)
        assert [answer.candidates[0].name for answer in answers] == ["p5", "p7", "p11"]


@pytest.mark.usefixtures("no_graph")
def test_more_new_faces_than_a_search_looks_at_beside_its_sketch(searching: Searching) -> None:
    searching.fill([unit(n) for n in range(20)])
    searching.warm()
    searching.fill([unit(n) for n in range(1000, 1000 + TAIL_LIMIT)], prefix="new")
    answer = searching.find(unit(1000 + TAIL_LIMIT - 1))
    assert answer.candidates[0].name == f"new{TAIL_LIMIT - 1}"
    assert answer.fresh == TAIL_LIMIT, "a full tail is whole"
    searching.fill([unit(5000)], prefix="one more")
    for n in range(TAIL_LIMIT):
        answer = searching.find(unit(1000 + n))
        assert answer.candidates[0].name == f"new{n}"
        assert answer.fresh == 0, "exact SQL has answered"
        if n > 20:
            break
    assert searching.names(unit(5000))[:1] == ["one more0"]


@pytest.mark.usefixtures("no_graph")
def test_exact_search_beside_a_sketch_that_is_far_behind(open_on: Callable[..., Searching]) -> None:
    """The number of candidates by Hamming distance follows the region's size, not the sketch's."""
    searching = open_on(AT_REST, RetrievalSettings(full_vectors_up_to=100, size_seconds=3600))
    model = NoiseModel.load()
    gallery = model.persons(4000, np.random.default_rng(1))
    searching.fill(gallery[:200])
    searching.warm()
    assert searching.find(gallery[0], strategy="exact").candidates[0].name == "p0"  # it knows the size now
    searching.fill(gallery[200:], prefix="late")
    # Probes whose nearest face has some hundred others before it by Hamming distance.
    probes = near(gallery[200:1000], 0.405, 2)
    nearest = (probes @ gallery.T).argmax(axis=1)
    distances = np.bitwise_count(sign_codes(probes)[:, np.newaxis] ^ sign_codes(gallery)).sum(axis=-1, dtype=np.int64)
    rank = (distances < np.take_along_axis(distances, nearest[:, np.newaxis], axis=1)).sum(axis=1)
    hard = np.flatnonzero((rank > 60) & (rank < 150) & (nearest >= 200))[:10]
    assert len(hard)
    for row in hard:
        assert searching.names(probes[row], top_k=1) == [f"late{nearest[row] - 200}"]


def ranks(probes: Rows, gallery: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The nearest face to each probe, and how many others are before it by Hamming distance."""
    nearest = (probes @ gallery.T).argmax(axis=1)
    signs, others = (np.where(rows > 0, 1, -1).astype(np.float32) for rows in (probes, gallery))
    distances = -(signs @ others.T)
    return nearest, (distances < np.take_along_axis(distances, nearest[:, np.newaxis], axis=1)).sum(axis=1)


@pytest.mark.usefixtures("no_graph")
def test_exact_search_finds_whoever_is_at_the_threshold(open_on: Callable[..., Searching]) -> None:
    """Below 0.40 some are further down by Hamming distance than any number of candidates sized for 0.40."""
    searching = open_on(AT_REST, RetrievalSettings(full_vectors_up_to=100))
    gallery = NoiseModel.load().persons(3000, np.random.default_rng(1))
    probes = near(gallery, 0.352, 2)
    nearest, rank = ranks(probes, gallery)
    similarity = (probes @ gallery.T).max(axis=1)
    hard = np.flatnonzero((rank > hamming_candidates_for(3000)) & (similarity > 0.35))
    assert len(hard)
    searching.fill(gallery)
    for strategy in ("exact", "auto"):  # auto: the sketch is not in memory
        answers = searching.retriever.find(CLIENT, ["A"], list(probes[hard]), top_k=1, floor=0.35, strategy=strategy)
        assert [answer.candidates[0].name for answer in answers] == [f"p{n}" for n in nearest[hard]]


@pytest.mark.usefixtures("no_graph")
def test_exact_search_of_a_region_that_has_outgrown_its_remembered_size(open_on: Callable[..., Searching]) -> None:
    searching = open_on(AT_REST, RetrievalSettings(full_vectors_up_to=100, size_seconds=3600))
    gallery = NoiseModel.load().persons(3000, np.random.default_rng(1))
    searching.fill(gallery[:150])
    assert searching.names(gallery[0], strategy="exact", top_k=1) == ["p0"]
    searching.fill(gallery[150:], prefix="late")
    probes = near(gallery[150:], 0.405, 2)
    nearest, rank = ranks(probes, gallery)
    hard = np.flatnonzero((rank > hamming_candidates_for(150)) & (nearest >= 150))[:10]
    assert len(hard)
    answers = searching.retriever.find(CLIENT, ["A"], list(probes[hard]), top_k=1, strategy="exact")
    assert [answer.candidates[0].name for answer in answers] == [f"late{n - 150}" for n in nearest[hard]]


@pytest.mark.usefixtures("no_graph")
def test_a_face_that_is_gone_hides_nobody_behind_it(searching: Searching) -> None:
    """A deleted photo of somebody scores far above a poor one that is still there."""
    model = NoiseModel.load()
    gallery = model.persons(3000, np.random.default_rng(3))
    builder = SketchBuilder(512, len(gallery))
    builder.add(sign_codes(gallery), np.arange(len(gallery), dtype=np.int64))
    sketch = builder.build()
    # Probes whose nearest face is not among the best ten by score, as one in some hundred is at 0.40.
    probes = near(gallery, 0.405, 4)
    nearest = (probes @ gallery.T).argmax(axis=1)
    hard = [
        row
        for row in range(len(probes))
        if probes[row] @ gallery[nearest[row]] > LOWEST_SIMILARITY
        and nearest[row] not in sketch.search(probes[row], 10).ids
    ][:5]
    assert hard
    searching.fill(gallery)
    clear_photos = near(probes[hard], 0.95, 5)
    gone = [searching.enroll(f"clear photo {row}", photo) for row, photo in zip(hard, clear_photos, strict=True)]
    searching.warm()
    for person_id in gone:
        searching.gallery.delete_person(CLIENT, person_id)
    for row in hard:
        assert len(propose(sketch, probes[row], least=10)) > 10, "without the clear photo it is found at once"
        assert searching.names(probes[row], top_k=1) == [f"p{nearest[row]}"]


@pytest.mark.usefixtures("no_graph")
def test_a_search_whose_margin_is_thin_is_made_again(searching: Searching) -> None:
    """Faces that agree with the probe in every sign and hardly in direction fill the first candidates."""
    probe = unit(1)
    weakest = int(np.abs(probe).argmin())
    decoys = np.sign(probe) * np.float32(1e-3) * np.ones((150, 512), np.float32)
    decoys[:, weakest] = np.sign(probe[weakest])
    decoys += np.random.default_rng(1).uniform(0, 1e-5, decoys.shape).astype(np.float32) * np.sign(probe)
    decoys /= np.linalg.norm(decoys, axis=1, keepdims=True)
    assert float((decoys @ probe).max()) < 0.3
    searching.fill([unit(n) for n in range(1000, 2000)])
    searching.fill(decoys, prefix="decoy")
    searching.fill(near(probe[np.newaxis], 0.6, 6), prefix="right")
    searching.warm()
    assert searching.names(probe, top_k=1) == ["right0"]


class TestAuto:
    def test_a_small_region_is_searched_by_sql(self, open_on: Callable[..., Searching]) -> None:
        searching = open_on(AT_REST, RetrievalSettings(sketch_from=31))
        searching.fill([unit(n) for n in range(30)])
        assert searching.names(unit(3), strategy="auto")[:1] == ["p3"]
        assert searching.keeper.cache.stats().misses == 0, "no sketch was asked for"

    def test_a_large_region_by_its_sketch(self, open_on: Callable[..., Searching]) -> None:
        searching = open_on(AT_REST, RetrievalSettings(sketch_from=30))
        searching.fill([unit(n) for n in range(30)])
        searching.warm()
        assert searching.names(unit(3), strategy="auto")[:1] == ["p3"]
        assert searching.keeper.cache.stats().hits == 1

    def test_small_regions_that_are_large_together(self, open_on: Callable[..., Searching]) -> None:
        searching = open_on(AT_REST, RetrievalSettings(sketch_from=30))
        searching.fill([unit(n) for n in range(15)])
        searching.fill([unit(n) for n in range(100, 115)], "B", "b")
        searching.warm("A", "B")
        assert searching.names(unit(103), "A", "B", strategy="auto")[:1] == ["b3"]
        assert searching.keeper.cache.stats().hits == 2

    def test_the_setting_is_what_a_call_leaves_out(self, open_on: Callable[..., Searching]) -> None:
        searching = open_on(AT_REST, RetrievalSettings(strategy="sketch"))
        searching.fill([unit(n) for n in range(5)])
        searching.warm()
        assert searching.names(unit(3), strategy=None)[:1] == ["p3"]
        assert searching.keeper.cache.stats().hits == 1


class TestSeveralRegions:
    @pytest.fixture
    def three(self, searching: Searching) -> Searching:
        for region, start in (("A", 0), ("B", 100), ("C", 200)):
            searching.fill([unit(n) for n in range(start, start + 60)], region, region.lower())
        searching.warm("A", "B", "C")
        return searching

    def test_each_combination_answers_as_exact_search_does(self, three: Searching) -> None:
        probe = near(unit(130)[np.newaxis], 0.5, 1)[0]
        for count in (1, 2, 3):
            for regions in itertools.combinations("ABC", count):
                exact = three.find(probe, *regions, strategy="exact", top_k=3)
                assert same(three.find(probe, *regions, top_k=3).candidates, exact.candidates)
                assert {found.region for found in exact.candidates} <= set(regions)

    def test_a_region_whose_sketch_is_not_there_yet(self, three: Searching) -> None:
        three.fill([unit(300)], "D", "d")
        assert three.names(unit(300), "A", "D")[:1] == ["d0"]

    def test_a_region_without_faces(self, three: Searching) -> None:
        three.warm("empty")
        assert three.names(unit(3), "A", "empty")[:1] == ["a3"]
        assert three.names(unit(3), "empty") == []
        assert three.names(unit(3), "never heard of") == []

    def test_regions_without_faces_ask_for_no_sketch(self, searching: Searching) -> None:
        searching.fill([unit(n) for n in range(5)])
        for n in range(20):
            assert searching.names(unit(3), f"nowhere {n}") == []
        at_last(
            lambda: searching.names(unit(3), "A", "nowhere")[:1] == ["p3"] and searching.keeper.size((CLIENT, "A")) > 0
        )
        assert [scope for scope, _ in searching.keeper.cache.entries()] == [(CLIENT, "A")]

    @pytest.mark.usefixtures("no_graph")
    def test_a_region_that_was_without_faces_a_moment_ago(self, open_on: Callable[..., Searching]) -> None:
        searching = open_on(AT_REST, RetrievalSettings(size_seconds=3600))
        searching.fill([unit(n) for n in range(5)])
        searching.warm()
        assert searching.names(unit(100), "A", "new")[:1] != ["n0"]
        searching.fill([unit(100)], "new", "n")
        assert searching.names(unit(100), "A", "new")[:1] == ["n0"]
        assert searching.names(unit(100), "new") == ["n0"]
        searching.fill([unit(n) for n in range(200, 201 + TAIL_LIMIT)], "new", "many")
        assert searching.names(unit(200 + TAIL_LIMIT), "A", "new")[:1] == [f"many{TAIL_LIMIT}"]

    def test_a_person_who_moves_between_them(self, three: Searching) -> None:
        person = three.gallery.list_persons(CLIENT, region="A", limit=1).persons[0]
        three.gallery.move_person(CLIENT, person.id, "B")
        assert three.names(unit(0), "A")[:1] != ["a0"]
        for regions in (("B",), ("A", "B"), ("A", "B", "C")):
            found = three.find(unit(0), *regions).candidates[0]
            assert (found.name, found.region) == ("a0", "B")
        three.gallery.move_person(CLIENT, person.id, "A")
        for regions in (("A",), ("A", "B")):
            found = three.find(unit(0), *regions).candidates[0]
            assert (found.name, found.region) == ("a0", "A")
        assert three.names(unit(0), "B")[:1] != ["a0"]


def test_another_clients_region_of_the_same_name(searching: Searching) -> None:
    searching.fill([unit(n) for n in range(20)])
    searching.warm()
    (answer,) = searching.retriever.find("other", ["A"], [unit(3)], top_k=5, strategy="sketch")
    assert answer.candidates == ()


def test_a_person_of_many_photos_is_one_candidate(searching: Searching) -> None:
    searching.enroll("many", *near(np.repeat(unit(1)[np.newaxis], 40, axis=0), 0.9, 1))
    for n in range(2, 6):
        searching.enroll(f"p{n}", unit(n))
    searching.warm()
    for strategy in ("exact", "sketch"):
        names = searching.names(unit(1), strategy=strategy, top_k=3)
        assert names[0] == "many"
        assert len(set(names)) == 3


@pytest.mark.usefixtures("no_graph")
@pytest.mark.parametrize("full_vectors_up_to", [0, 2000], ids=["by sign bits", "by full vectors"])
@pytest.mark.parametrize("strategy", ["exact", "sketch"])
def test_a_persons_many_photos_do_not_hide_the_next_person(
    open_on: Callable[..., Searching], strategy: str, full_vectors_up_to: int
) -> None:
    searching = open_on(AT_REST, RetrievalSettings(full_vectors_up_to=full_vectors_up_to))
    probe = unit(1)
    searching.enroll("many", *near(np.repeat(probe[np.newaxis], 400, axis=0), 0.8, 1))
    searching.enroll("twin", near(probe[np.newaxis], 0.69, 2)[0])
    searching.fill([unit(n) for n in range(100, 110)])
    searching.warm()
    assert searching.names(probe, strategy=strategy)[:2] == ["many", "twin"]


@pytest.mark.usefixtures("no_graph")
def test_a_search_without_the_probes_own_face_sees_that_the_tail_is_cut(searching: Searching) -> None:
    searching.fill([unit(1)])
    searching.warm()
    own = searching.enroll("own", unit(6))
    (face,) = searching.gallery.list_faces(CLIENT, own)
    searching.fill([unit(n) for n in range(100, 100 + TAIL_LIMIT)], prefix="new")
    searching.fill([unit(7)], prefix="last")
    (answer,) = searching.retriever.find(CLIENT, ["A"], [unit(7)], top_k=1, strategy="sketch", without=[face.id])
    assert answer.candidates[0].name == "last0"
