"""Sketches against plain arithmetic over the same bits, and the cache against its budget."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceward.errors import InvalidEmbeddingError, SketchTooLargeError
from faceward.evaluation.noise_model import NoiseModel
from faceward.sketches import (
    Sketch,
    SketchBuilder,
    SketchCache,
    candidates_for,
    hamming_bound,
    hamming_candidates_for,
    propose,
    score_floor,
    sign_codes,
    sketch_bytes,
)


def embeddings(seed: int, count: int, dimension: int = 512) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def build(codes: np.ndarray, ids: np.ndarray, batch: int = 1000, expected: int | None = None) -> Sketch:
    builder = SketchBuilder(codes.shape[1] * 8, len(ids) if expected is None else expected)
    for start in range(0, len(ids), batch):
        builder.add(codes[start : start + batch], ids[start : start + batch])
    return builder.build()


def exact_scores(probe: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return (np.unpackbits(codes, axis=1).astype(np.float64) * 2 - 1) @ probe


def rounding(probe: np.ndarray) -> float:
    """The most that a score may be off: half a step of the 8-bit tables for each sub-vector."""
    spans = 2 * np.abs(probe.astype(np.float64)).reshape(-1, 4).sum(axis=1)
    return len(spans) * max(spans.max() / 255, spans.sum() / 65535) / 2 + 1e-4


def test_sign_codes_are_those_of_binary_quantize() -> None:
    values = np.zeros((1, 16), dtype=np.float32)
    values[0, [0, 9]] = 0.5
    values[0, 15] = -1
    assert sign_codes(values).tolist() == [[0b1000_0000, 0b0100_0000]]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    dimension=st.sampled_from([8, 24, 128, 256, 512, 1024]),
    count=st.integers(1, 600),
    batch=st.integers(1, 700),
    expected=st.integers(0, 700),
    k=st.integers(1, 700),
)
def test_search_finds_what_plain_arithmetic_finds(
    seed: int, dimension: int, count: int, batch: int, expected: int, k: int
) -> None:
    codes = sign_codes(embeddings(seed, count, dimension))
    ids = np.random.default_rng(seed).permutation(10 * count)[:count].astype(np.int64)
    probe = embeddings(seed + 1, 1, dimension)[0]
    sketch = build(codes, ids, batch, expected)

    found = sketch.search(probe, k)

    assert len(sketch) == count
    assert len(found) == len(set(found.ids.tolist())) == min(k, count)
    assert (np.diff(found.scores) <= 0).all()
    exact = dict(zip(ids.tolist(), exact_scores(probe, codes).tolist(), strict=True))
    assert np.allclose(found.scores, [exact[face] for face in found.ids.tolist()], atol=rounding(probe), rtol=0)
    worst_owed = sorted(exact.values(), reverse=True)[len(found) - 1]
    assert min(exact[face] for face in found.ids.tolist()) >= worst_owed - 2 * rounding(probe)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 400), copies=st.integers(1, 5), k=st.integers(1, 50))
def test_the_order_of_loading_changes_nothing(seed: int, count: int, copies: int, k: int) -> None:
    codes = np.repeat(sign_codes(embeddings(seed, count)), copies, axis=0)
    ids = np.arange(len(codes), dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(codes))
    probe = embeddings(seed + 1, 1)[0]
    half = len(codes) // 2

    one = build(codes, ids).search(probe, k)
    other = build(codes[order], ids[order], 7, 50).search(probe, k)
    grown = build(codes[order[:half]], ids[order[:half]]).extended(codes[order[half:]], ids[order[half:]])

    assert one.ids.tolist() == other.ids.tolist() == grown.search(probe, k).ids.tolist()
    assert one.scores.tolist() == other.scores.tolist() == grown.search(probe, k).scores.tolist()


def test_equal_scores_come_in_the_order_of_their_ids() -> None:
    codes = np.repeat(sign_codes(embeddings(1, 1)), 3000, axis=0)
    ids = np.random.default_rng(0).permutation(3000).astype(np.int64)
    assert build(codes, ids).search(embeddings(2, 1)[0], 10).ids.tolist() == list(range(10))


def test_a_face_with_no_sign_of_the_probe_is_found_too() -> None:
    probe = embeddings(1, 1)
    codes = sign_codes(np.concatenate([-probe, probe, -probe, embeddings(2, 1)]))
    found = build(codes, np.array([9, 2, 3, 4], dtype=np.int64)).search(probe[0], 10)
    assert found.ids.tolist() == [2, 4, 3, 9]
    assert found.scores[-1] == pytest.approx(-np.abs(probe).sum(), abs=rounding(probe[0]))


def test_a_probe_that_is_zero_but_for_one_value() -> None:
    faces = np.eye(512, dtype=np.float32)
    found = build(sign_codes(faces), np.arange(512, dtype=np.int64)).search(faces[7], 3)
    assert found.ids.tolist() == [7, 0, 1]


def test_several_probes_get_what_each_would_get_alone() -> None:
    sketch = build(sign_codes(embeddings(1, 20_000)), np.arange(20_000, dtype=np.int64))
    probes = embeddings(2, 13)
    threads = faiss.omp_get_max_threads()
    together = sketch.search_many(probes, 30)
    assert [answer.ids.tolist() for answer in together] == [sketch.search(probe, 30).ids.tolist() for probe in probes]
    assert faiss.omp_get_max_threads() == threads
    assert sketch.search_many(probes[:0], 30) == []


def test_threads_share_a_sketch() -> None:
    sketch = build(sign_codes(embeddings(1, 50_000)), np.arange(50_000, dtype=np.int64))
    probes = embeddings(2, 64)
    alone = [sketch.search(probe, 50).ids.tolist() for probe in probes]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert [found.ids.tolist() for found in pool.map(lambda probe: sketch.search(probe, 50), probes)] == alone


def test_a_sketch_larger_than_the_processor_cache() -> None:
    codes = np.random.default_rng(1).integers(0, 256, (270_000, 64), dtype=np.uint8)
    probe = embeddings(2, 1)[0]
    places = np.arange(5, 270_000, 30_000)
    for flipped, place in enumerate(places):
        codes[place] = sign_codes(probe)
        codes[place, :flipped] ^= 0xFF
    sketch = build(codes, np.arange(270_000, dtype=np.int64), 50_000)
    found = sketch.search(probe, len(places))
    assert found.ids.tolist() == places.tolist()
    assert np.allclose(found.scores, exact_scores(probe, codes[places]), atol=rounding(probe), rtol=0)


def test_an_empty_sketch() -> None:
    sketch = SketchBuilder(512, 0).build()
    assert len(sketch) == len(sketch.search(embeddings(1, 1)[0], 5)) == 0
    grown = sketch.extended(sign_codes(embeddings(2, 3)), np.arange(3, dtype=np.int64))
    assert len(grown.search(embeddings(1, 1)[0], 5)) == 3


def test_a_sketch_grows_without_changing_the_old_one() -> None:
    codes = sign_codes(embeddings(1, 90_000))
    ids = np.arange(90_000, dtype=np.int64)
    probe = embeddings(2, 1)[0]
    sketch = old = build(codes[:1000], ids[:1000])
    for start, stop in [(900, 1100), (1100, 1100), (1100, 1101), (1101, 80_000), (79_000, 90_000)]:
        sketch = sketch.extended(codes[start:stop], ids[start:stop])
        assert len(sketch) == max(stop, 1100)
    assert len(old) == 1000
    assert sketch.search(probe, 100).ids.tolist() == build(codes, ids).search(probe, 100).ids.tolist()
    assert sketch.nbytes <= 80 * len(sketch) + 65_536 * 72


@pytest.mark.parametrize(
    "probe",
    [np.ones(511), np.ones((2, 512)), np.zeros(512), np.full(512, np.nan), np.full(512, np.inf)],
    ids=["short", "two", "zero", "nan", "infinite"],
)
def test_a_probe_that_is_none_is_refused(probe: np.ndarray) -> None:
    sketch = build(sign_codes(embeddings(1, 3)), np.arange(3, dtype=np.int64))
    with pytest.raises(InvalidEmbeddingError):
        sketch.search(probe.astype(np.float32), 1)


def test_what_a_caller_got_wrong_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        SketchBuilder(510, 1)
    with pytest.raises(ValueError, match="not negative"):
        SketchBuilder(512, -1)
    builder = SketchBuilder(512, 1)
    with pytest.raises(ValueError, match="codes must be"):
        builder.add(np.zeros((2, 63), np.uint8), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="ids must be"):
        builder.add(np.zeros((2, 64), np.uint8), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="at least one"):
        builder.build().search(embeddings(1, 1)[0], 0)


def test_a_builder_keeps_to_its_memory() -> None:
    with pytest.raises(SketchTooLargeError, match="1000 faces"):
        SketchBuilder(512, 1000, max_bytes=50_000)
    builder = SketchBuilder(512, 10, max_bytes=sketch_bytes(100))
    codes = sign_codes(embeddings(1, 101))
    builder.add(codes[:100], np.arange(100, dtype=np.int64))
    with pytest.raises(SketchTooLargeError):
        builder.add(codes[100:], np.array([100], dtype=np.int64))


MEMORY = """
import pathlib
import numpy as np
from faceward.sketches import SketchBuilder

def fill(faces):
    rng = np.random.default_rng(0)
    builder = SketchBuilder(512, faces)
    for start in range(0, faces, 5000):
        builder.add(rng.integers(0, 256, (5000, 64), dtype=np.uint8), np.arange(start, start + 5000))
    return builder.build()

def kilobytes(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name + ":")))

fill(10_000)
before = kilobytes("VmRSS")
sketch = fill(500_000)
print((kilobytes("VmHWM") - before) * 1024 / len(sketch), sketch.nbytes / len(sketch))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak memory as Linux reports it")
def test_building_takes_at_most_100_bytes_a_face() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    peak, counted = map(float, done.stdout.split())
    assert 50 < peak <= 100
    assert counted <= 73


def test_the_nearest_face_is_among_the_candidates() -> None:
    model = NoiseModel.load()
    gallery = model.photos(model.persons(20_000, np.random.default_rng(1)), np.random.default_rng(2))
    sketch = build(sign_codes(gallery), np.arange(20_000, dtype=np.int64))
    for similarity in (0.45, 0.58, 0.70):
        probes = model.near(gallery[:1000], similarity, np.random.default_rng(3))
        nearest = (probes @ gallery.T).argmax(axis=1)
        proposed = [propose(sketch, probe) for probe in probes]
        assert all(face in found.ids for face, found in zip(nearest.tolist(), proposed, strict=True))
        assert all(32 <= len(found) <= candidates_for(20_000) for found in proposed)
    assert np.median([len(found) for found in proposed]) == 32  # at 0.70 one face stands out


def test_what_a_score_says_of_the_similarity() -> None:
    model = NoiseModel.load()
    faces = model.persons(20_000, np.random.default_rng(1))
    for similarity in (0.40, 0.58):
        probes = model.near(faces, similarity, np.random.default_rng(2))
        signs = np.where(faces > 0, np.float32(1), np.float32(-1))
        scores = np.einsum("ij,ij->i", probes, signs)
        assert scores.mean() == pytest.approx(np.sqrt(1024 / np.pi) * similarity, abs=0.03)
        assert (scores < score_floor(similarity)).mean() < 0.0005


def test_proposals_at_the_ends() -> None:
    assert len(propose(SketchBuilder(512, 0).build(), embeddings(1, 1)[0])) == 0
    small = build(sign_codes(embeddings(1, 10)), np.arange(10, dtype=np.int64))
    assert len(propose(small, embeddings(2, 1)[0])) == 10
    large = build(sign_codes(embeddings(1, 3000)), np.arange(3000, dtype=np.int64))
    assert len(propose(large, embeddings(2, 1)[0], similarity=-1.0, most=40)) == 40
    assert len(propose(large, embeddings(2, 1)[0], least=5, similarity=0.9)) == 5


def test_faces_at_a_similarity_are_within_its_hamming_distance() -> None:
    assert [hamming_bound(similarity) for similarity in (1.0, 0.58, 0.4, 0.35, -1.0)] == [44, 200, 233, 242, 556]
    assert hamming_bound(0.4, 128) == 70
    model = NoiseModel.load()
    enrolled = model.photos(model.persons(3000, np.random.default_rng(1)), np.random.default_rng(2))
    for similarity in (0.35, 0.58):
        probes = model.near(enrolled, similarity, np.random.default_rng(3))
        bits = np.bitwise_count(sign_codes(probes) ^ sign_codes(enrolled)).sum(axis=1, dtype=int)
        assert bits.max() <= hamming_bound(similarity)
        assert bits.mean() == pytest.approx(hamming_bound(similarity) - 44, abs=1.5)


def test_more_faces_need_more_candidates() -> None:
    sizes = (0, 1000, 10_000, 100_000, 1_000_000)
    assert [candidates_for(size) for size in sizes] == [32, 48, 102, 337, 1363]
    assert candidates_for(1000, 128) == 4 * 48
    assert candidates_for(1000, 1024) == 48
    assert [hamming_candidates_for(size) for size in sizes[:4]] == [32, 80, 460, 3845]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def faces(count: int, watermark: str = "w") -> Callable[[SketchBuilder], str]:
    """A loader of that many faces."""

    def fill(builder: SketchBuilder) -> str:
        builder.add(np.zeros((count, 64), np.uint8), np.arange(count, dtype=np.int64))
        return watermark

    return fill


def test_a_scope_is_loaded_once_and_then_found() -> None:
    clock = Clock()
    cache: SketchCache[str, str] = SketchCache(1_000_000, clock=clock)
    assert cache.get("a") is None
    assert cache.state("a") == "absent"
    clock.now = 5.0
    loaded = cache.load("a", 100, faces(100, "w1"))
    assert loaded is not None
    assert cache.get("a") is loaded
    assert (len(loaded.sketch), loaded.watermark, loaded.loaded_at) == (100, "w1", 5.0)
    assert cache.state("a") == "loaded"
    assert cache.entries() == [("a", loaded)]
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.entries, stats.reserved) == (1, 1, 1, 1, 0)
    assert stats.bytes == loaded.sketch.nbytes == sketch_bytes(100)


def test_the_least_recently_used_goes_first() -> None:
    cache: SketchCache[str, str] = SketchCache(3 * sketch_bytes(1000))
    for key in "abc":
        cache.load(key, 1000, faces(1000))
    cache.get("a")
    cache.load("d", 1000, faces(1000))
    assert [key for key, _ in cache.entries()] == ["c", "a", "d"]
    assert cache.stats().evictions == 1


def test_scopes_without_faces_have_their_share_of_the_budget() -> None:
    cache: SketchCache[str, str] = SketchCache(3 * sketch_bytes(0))
    for n in range(10):
        assert cache.load(f"empty {n}", 0, faces(0)) is not None
    assert [key for key, _ in cache.entries()] == ["empty 7", "empty 8", "empty 9"]
    assert cache.stats().bytes == 3 * sketch_bytes(0)


def test_the_age_is_that_of_sketches_in_use() -> None:
    clock = Clock()
    cache: SketchCache[str, str] = SketchCache(3 * sketch_bytes(10), clock=clock)
    assert cache.age(used_within=60) == 0.0
    for key in ("idle", "busy"):
        cache.load(key, 10, faces(10))
    assert cache.age(used_within=60) == 0.0, "nobody has asked for them"
    for clock.now in range(0, 1000, 50):
        busy = cache.get("busy")
    assert cache.age(used_within=60) == 950.0, "nothing refreshes it"
    assert busy is not None
    cache.replace("busy", busy, busy.sketch, "w2")
    assert cache.age(used_within=60) == 0.0
    clock.now = 1000.0
    assert cache.age(used_within=60) == 50.0
    clock.now = 1100.0
    assert cache.age(used_within=60) == 0.0
    cache.get("idle")
    assert cache.age(used_within=60) == 1100.0
    cache.drop("idle")
    assert cache.age(used_within=60) == 0.0


def test_a_scope_larger_than_the_budget_is_refused_for_a_while() -> None:
    clock = Clock()
    cache: SketchCache[str, str] = SketchCache(sketch_bytes(1000), refusal_seconds=10, clock=clock)
    cache.load("small", 500, faces(500))

    def never(builder: SketchBuilder) -> str:
        raise AssertionError("it must not be loaded")

    assert cache.load("large", 1001, never) is None
    assert cache.load("large", 1, never) is None
    assert cache.state("large") == "refused"
    assert cache.load("outgrown", 10, faces(2000)) is None
    assert cache.state("outgrown") == "refused"
    assert [key for key, _ in cache.entries()] == ["small"]
    assert (cache.stats().refusals, cache.stats().reserved) == (2, 0)
    clock.now = 10.0
    assert cache.state("large") == "absent"
    assert cache.load("large", 1000, faces(1000)) is not None
    cache.load("outgrown", 2000, never)
    cache.drop("outgrown")
    assert cache.state("outgrown") == "absent"


def test_one_load_of_a_scope_at_a_time_and_nobody_waits() -> None:
    cache: SketchCache[str, str] = SketchCache(10_000_000)
    cache.load("a", 10, faces(10, "old"))
    entered, leave = threading.Event(), threading.Event()

    def slow(builder: SketchBuilder) -> str:
        entered.set()
        assert leave.wait(30)
        return faces(20, "new")(builder)

    with ThreadPoolExecutor(2) as pool:
        again = pool.submit(cache.load, "a", 20, slow)
        assert entered.wait(30)
        assert cache.load("a", 20, faces(20)) is None
        served = cache.get("a")
        assert served is not None
        assert served.watermark == "old"
        assert cache.load("b", 5, faces(5)) is not None
        assert cache.stats().reserved == sketch_bytes(20)
        entered.clear()
        leave.set()
        assert again.result() is cache.get("a")
        leave.clear()
        first = pool.submit(cache.load, "c", 20, slow)
        assert entered.wait(30)
        assert cache.state("c") == "loading"
        assert cache.get("c") is None
        leave.set()
        assert first.result() is not None


def test_loads_under_way_count_against_the_budget() -> None:
    cache: SketchCache[str, str] = SketchCache(sketch_bytes(1000))

    def fill(builder: SketchBuilder) -> str:
        assert cache.load("b", 600, faces(600)) is None
        assert cache.state("b") == "absent"
        return faces(600)(builder)

    assert cache.load("a", 600, fill) is not None
    assert cache.load("b", 600, faces(600)) is not None
    assert [key for key, _ in cache.entries()] == ["b"]


def test_a_load_that_fails_leaves_the_cache_as_it_was() -> None:
    cache: SketchCache[str, str] = SketchCache(1_000_000)
    old = cache.load("a", 10, faces(10))

    def fail(builder: SketchBuilder) -> str:
        builder.add(np.zeros((5, 64), np.uint8), np.arange(5, dtype=np.int64))
        raise ConnectionError("gone")

    for key in "ab":
        with pytest.raises(ConnectionError):
            cache.load(key, 10, fail)
    assert cache.entries() == [("a", old)]
    assert (cache.stats().failures, cache.stats().reserved, cache.state("b")) == (2, 0, "absent")
    assert cache.load("b", 10, faces(10)) is not None


def test_a_newer_sketch_takes_the_place_of_the_one_it_came_from() -> None:
    cache: SketchCache[str, str] = SketchCache(1_000_000)
    old = cache.load("a", 10, faces(10, "w1"))
    assert old is not None
    longer = old.sketch.extended(np.zeros((5, 64), np.uint8), np.arange(10, 15, dtype=np.int64))
    new = cache.replace("a", old, longer, "w2")
    assert new is cache.get("a")
    assert cache.stats().bytes == longer.nbytes
    assert cache.replace("a", old, longer, "w3") is None
    cache.drop("a")
    assert new is not None
    assert cache.replace("a", new, longer, "w3") is None
    assert cache.entries() == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["load", "get", "extend", "drop"]),
            st.sampled_from("abcd"),
            st.integers(0, 120),
            st.integers(0, 120),
        ),
        max_size=30,
    )
)
def test_the_budget_holds_whatever_happens(steps: list[tuple[str, str, int, int]]) -> None:
    budget = sketch_bytes(150) + sketch_bytes(60)
    cache: SketchCache[str, str] = SketchCache(budget)
    for step, key, expected, count in steps:
        entry = cache.get(key)
        if step == "load":
            cache.load(key, expected, faces(count))
        elif step == "extend" and entry is not None:
            more = entry.sketch.extended(np.zeros((count, 64), np.uint8), np.arange(count, dtype=np.int64) + 500)
            cache.replace(key, entry, more, "w")
        elif step == "drop":
            cache.drop(key)
        stats = cache.stats()
        held = (max(entry.sketch.nbytes, sketch_bytes(0)) for _, entry in cache.entries())
        assert stats.bytes == sum(held) <= budget
        assert cache.age(used_within=3600) >= 0.0
        assert stats.reserved == 0
