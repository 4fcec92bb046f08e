"""The audit tells the recall of each strategy as it is: also when something is wrong with one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from typer.testing import CliRunner, Result

from faceward.cli.app import build_app
from faceward.errors import NotFoundError
from faceward.evaluation.audit import AuditReport, RecallAudit, StrategyAudit, wilson_interval
from faceward.evaluation.noise_model import NoiseModel
from faceward.retrieval import RetrievalSettings, Retriever
from faceward.sketches import SketchBuilder
from faceward.store.bulk import BulkWriter, NewPerson
from faceward.store.database import Database
from faceward.store.embedded import EmbeddedServer
from faceward.store.gallery import Gallery
from faceward.vision import PackStore
from searching import AT_REST, CLIENT, Searching
from synthetic import MODEL, unit

SINGLE, DOUBLE = 700, 60


@pytest.fixture(scope="module")
def photos() -> dict[str, Any]:
    """700 people with one photo, 60 with two at a similarity of 0.6, 20 whose two photos are not alike at all."""
    model, rng = NoiseModel.load(), np.random.default_rng(1)
    first = model.persons(SINGLE + DOUBLE, rng)
    second = model.near(first[SINGLE:], 0.6, rng)
    strange = model.near(first[:20], 0.05, rng)
    return {"single": first[:SINGLE], "first": first[SINGLE:], "second": second, "unlike": strange}


def people(photos: dict[str, Any], single: int = SINGLE) -> list[NewPerson]:
    """Those of one photo, and those of two alike."""
    pairs = zip(photos["first"], photos["second"], strict=True)
    rows = [(row,) for row in photos["single"][:single]] + [tuple(pair) for pair in pairs]
    return [NewPerson(f"{n}", "A", f"person {n}", row) for n, row in enumerate(rows)]


@pytest.fixture(scope="module")
def filled(server: EmbeddedServer, photos: dict[str, Any]) -> Iterator[str]:
    """A database with these people, to copy."""
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE audited TEMPLATE faceward_template")
        with Database(server.url_of("audited")) as database:
            BulkWriter(database, Gallery(database, MODEL), MODEL).write(CLIENT, people(photos))
        yield "audited"
        admin.execute("DROP DATABASE audited WITH (FORCE)")


@pytest.fixture
def url(server: EmbeddedServer, filled: str) -> Iterator[str]:
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {filled}_now TEMPLATE {filled}")
        yield server.url_of(f"{filled}_now")
        admin.execute(f"DROP DATABASE {filled}_now WITH (FORCE)")


@pytest.fixture
def open_on(url: str) -> Iterator[Callable[..., Searching]]:
    made: list[Searching] = []
    with Database(url) as database:

        def make(settings: RetrievalSettings | None = None) -> Searching:
            made.append(Searching.on(database, AT_REST, settings))
            return made[-1]

        yield make
        for searching in made:
            searching.keeper.close()


def audit(searching: Searching, **options: Any) -> AuditReport:
    return RecallAudit(searching.reader, searching.retriever, NoiseModel.load).run(CLIENT, "A", **options)


def of(report: AuditReport, strategy: str) -> StrategyAudit:
    (found,) = [result for result in report.strategies if result.strategy == strategy]
    return found


def test_second_photos_first_then_probes_that_are_made(open_on: Callable[..., Searching]) -> None:
    searching = open_on(RetrievalSettings(sketch_from=100))
    report = audit(searching, sample=200)
    assert (report.faces, report.second_photos, report.made) == (SINGLE + 2 * DOUBLE, DOUBLE, 140)
    assert [result.strategy for result in report.strategies] == ["auto", "exact", "sketch", "hnsw"]
    for result in report.strategies[:3]:
        assert (result.recall, result.probes, result.found, result.note) == (1.0, 200, 200, "")
        assert result.low == pytest.approx(0.9812, abs=1e-4)
        assert result.high == 1.0
        assert result.p50_ms is not None
        assert result.p95_ms is not None
        assert 0 < result.p50_ms <= result.p95_ms
    assert "may miss" in of(report, "hnsw").note
    assert audit(searching, sample=40, strategies=["exact"]).second_photos == 40


def test_the_same_seed_asks_the_same(open_on: Callable[..., Searching]) -> None:
    searching = open_on(RetrievalSettings(ef_search=2, iterative_scan="off"))
    runs = [audit(searching, sample=100, strategies=["hnsw"], seed=seed) for seed in (1, 1)]
    assert of(runs[0], "hnsw").found == of(runs[1], "hnsw").found


def test_a_graph_that_is_searched_too_shortly_misses(open_on: Callable[..., Searching]) -> None:
    report = audit(open_on(RetrievalSettings(ef_search=1, iterative_scan="off")), sample=200)
    hnsw = of(report, "hnsw")
    assert hnsw.recall is not None
    assert hnsw.low is not None
    assert hnsw.recall < 0.9
    assert hnsw.low < hnsw.recall
    assert report.below(0.999, ["auto", "exact", "sketch"]) == ()
    assert report.below(0.999, ["auto", "hnsw"]) == (hnsw,)


def test_a_sketch_that_lost_faces_is_seen(open_on: Callable[..., Searching]) -> None:
    """As a bug in the sketches would: they claim to know what they do not hold."""
    searching = open_on(RetrievalSettings(sketch_from=100))
    searching.warm()
    entry = searching.keeper.cache.peek((CLIENT, "A"))
    assert entry is not None
    with searching.reader.open(CLIENT, "A") as snapshot:
        codes, ids = (np.concatenate(part) for part in zip(*snapshot.codes(), strict=True))
    builder = SketchBuilder(512, len(ids))
    builder.add(codes[::2], ids[::2])
    assert searching.keeper.cache.replace((CLIENT, "A"), entry, builder.build(), entry.watermark)
    report = RecallAudit(searching.reader, _AsItIs(searching.retriever), NoiseModel.load).run(CLIENT, "A", sample=100)
    for strategy in ("auto", "sketch"):
        recall = of(report, strategy).recall
        assert recall is not None
        assert recall < 0.8
    assert of(report, "exact").recall == 1.0


def test_photos_that_are_not_alike_do_not_count(open_on: Callable[..., Searching], photos: dict[str, Any]) -> None:
    searching = open_on()
    for n, (one, other) in enumerate(zip(photos["single"], photos["unlike"], strict=False)):
        searching.enroll(f"unlike {n}", one, other, region="B")
    report = RecallAudit(searching.reader, searching.retriever, NoiseModel.load).run(
        CLIENT, "B", strategies=["exact", "sketch"]
    )
    assert (report.second_photos, report.made) == (20, 0)
    for result in report.strategies:
        assert (result.probes, result.recall, result.low) == (0, None, None)
    assert len(report.below(0.9, ["exact", "sketch"])) == 2, "what was not measured is not passed"


@pytest.mark.parametrize(("threshold", "counts"), [(0.3, True), (0.35, True), (0.45, False)])
def test_whoever_the_threshold_lets_in_counts(
    open_on: Callable[..., Searching], threshold: float, counts: bool
) -> None:
    searching = open_on()
    report = RecallAudit(searching.reader, searching.retriever, NoiseModel.load, floor=threshold).run(
        CLIENT, "A", sample=DOUBLE + 40, similarity=0.36, strategies=["exact"]
    )
    assert report.lowest == min(threshold, 0.40)
    assert (of(report, "exact").probes > DOUBLE + 20) is counts
    assert of(report, "exact").recall == 1.0


def test_who_is_deleted_meanwhile_is_no_miss(open_on: Callable[..., Searching]) -> None:
    searching = open_on()
    deleted: list[int] = []

    def interfere(what: str, done: int, of: int) -> None:
        if "exact" in what and not deleted:
            page = searching.gallery.list_persons(CLIENT, region="A", limit=1000)
            deleted.extend(searching.gallery.delete_person(CLIENT, person.id) for person in page.persons[::2])

    report = audit(searching, sample=200, strategies=["exact", "sketch"], progress=interfere)
    assert deleted
    assert [result.recall for result in report.strategies] == [1.0, 1.0]


def test_a_region_that_gives_no_probe(open_on: Callable[..., Searching]) -> None:
    searching = open_on()
    with pytest.raises(NotFoundError, match=r"'empty' of client 'acme' has no face"):
        RecallAudit(searching.reader, searching.retriever, NoiseModel.load).run(CLIENT, "empty")
    searching.enroll("one", unit(1), region="B")
    with pytest.raises(NotFoundError, match=r"Nobody of the region 'B'.*second photo"):
        RecallAudit(searching.reader, searching.retriever, lambda: None).run(CLIENT, "B")
    assert audit(searching, sample=10, strategies=["exact"]).made == 0


def test_without_the_index_the_graph_is_not_measured(open_on: Callable[..., Searching], url: str) -> None:
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("DROP INDEX idx_embedding_hnsw")
    report = audit(open_on(), sample=20)
    hnsw = of(report, "hnsw")
    assert (hnsw.recall, hnsw.p50_ms, hnsw.probes) == (None, None, 0)
    assert "idx_embedding_hnsw is missing" in hnsw.note
    assert report.below(0.999, ["hnsw"]) == (hnsw,)
    assert of(report, "auto").recall == 1.0


def test_gauges(open_on: Callable[..., Searching]) -> None:
    report = audit(open_on(), sample=20, strategies=["exact"])
    gauges = {name: value for name, labels, value in report.gauges() if labels["strategy"] == "exact"}
    assert gauges["faceward_audit_recall"] == 1.0
    assert gauges["faceward_audit_probes"] == 20
    assert 0.8 < gauges["faceward_audit_recall_low"] < 1.0
    assert 0 < gauges["faceward_audit_p50_seconds"] < 10


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # After R's binom.confint(..., methods = "wilson").
    [
        (10, 10, 0.7225, 1.0),
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (500, 500, 0.9924, 1.0),
        (1, 1, 0.2065, 1.0),
    ],
)
def test_wilson_interval(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


class _AsItIs:
    """The retriever, except that no sketch is loaded anew: the audit would mend what the test broke."""

    def __init__(self, retriever: Retriever) -> None:
        self.find = retriever.find

    def warm(self, client_id: str, region: str) -> bool:
        return True


class TestCommand:
    @pytest.fixture
    def run(self, config: Path, database: Database, photos: dict[str, Any], home: Path) -> Callable[..., Result]:
        (manifest,) = [
            status.manifest for status in PackStore(home).list() if status.manifest.name == "faceplugin-0.0.1"
        ]
        model_id = manifest.model_id
        BulkWriter(database, Gallery(database, model_id), model_id).write("default", people(photos, 100))
        config.write_text(
            json.dumps(
                {**json.loads(config.read_text()), "search": {"hnsw_ef_search": 1, "hnsw_iterative_scan": "off"}}
            )
        )

        def run(*arguments: str) -> Result:
            return CliRunner().invoke(build_app(), ["--config", str(config), "audit-recall", *arguments])

        return run

    def test_table(self, run: Callable[..., Result]) -> None:
        ended = run("--region", "A", "--sample", "80")
        assert ended.exit_code == 0, ended.output
        for part in ("auto", "exact", "sketch", "hnsw", "1.0000", "0.9542 to 1.0000", "80/80", "may miss people"):
            assert part in ended.stdout
        assert "60 second photos" in ended.stdout
        assert "20 made at a similarity of 0.58" in ended.stdout

    def test_json(self, run: Callable[..., Result]) -> None:
        ended = run("--region", "A", "--sample", "20", "--strategies", "auto, sketch", "--json")
        assert ended.exit_code == 0, ended.output
        report = json.loads(ended.stdout)
        assert report["passed"] is True
        assert report["judged"] == ["auto", "sketch"]
        assert [result["recall"] for result in report["strategies"]] == [1.0, 1.0]

    def test_a_named_strategy_below_the_minimum(self, run: Callable[..., Result]) -> None:
        ended = run("--region", "A", "--sample", "80", "--strategies", "hnsw", "--json")
        assert ended.exit_code == 1
        assert json.loads(ended.stdout)["passed"] is False
        assert "hnsw missed" in ended.stderr
        assert "below 0.999" in ended.stderr
        assert run("--region", "A", "--sample", "80", "--strategies", "hnsw", "--min-recall", "0").exit_code == 0

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["--region", "A", "--strategies", "auto,best"], "--strategies"),
            (["--region", "A", "--strategies", ""], "--strategies"),
            (["--region", "nowhere"], "has no face to probe with"),
            (["--region", " A"], "region"),
            (["--region", "A", "--client", "another"], "Client 'another' does not exist"),
        ],
    )
    def test_what_a_user_may_get_wrong(self, run: Callable[..., Result], arguments: list[str], told: str) -> None:
        ended = run(*arguments)
        assert ended.exit_code == 1
        assert ended.stdout == ""
        assert told in ended.stderr
        assert ended.stderr.startswith("Error: ")
