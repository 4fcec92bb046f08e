"""Imports account for every record, store nobody twice, and leave the tables as they found them, however they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy.engine import make_url

from faceward.bulk_import import Importer, ImportReport, PersonRecord
from faceward.errors import DatabaseUnavailableError, IndexMissingError
from faceward.store.bulk import BulkWriter, NewPerson, Written
from faceward.store.database import Database
from faceward.store.gallery import Gallery
from faceward.store.schema import Schema
from faceward.types import Box, NewFace
from searching import CLIENT, Searching
from synthetic import MODEL, unit

MANY = 1000
"""Faces of a person, the most there may be: two such people fill a batch."""


def many(seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((MANY, 512), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def record(number: int, embeddings: Any = None, **changes: Any) -> PersonRecord:
    values = {"external_id": f"e{number}", "region": "A", "name": f"p{number}", **changes}
    return PersonRecord(embeddings=unit(number) if embeddings is None else embeddings, **values)


@pytest.fixture
def gallery(database: Database) -> Gallery:
    return Gallery(database, MODEL)


@pytest.fixture
def importer(database: Database, gallery: Gallery) -> Importer:
    return Importer(BulkWriter(database, gallery, MODEL), 512)


def test_a_photo_that_was_enrolled_meanwhile_costs_no_other_face(importer: Importer, gallery: Gallery) -> None:
    def photo(number: int) -> NewFace:
        return NewFace(unit(number), box=Box(0, 0, 9, 9), image_sha256=b"%d" % number)

    gallery.create_person(CLIENT, "A", "Ben", [photo(1), photo(2)])
    report = importer.run(
        CLIENT, [record(7, [photo(3), photo(1)]), record(8, [photo(2)]), record(9), record(10, [photo(4)])]
    )
    assert (report.read, report.persons, report.faces, report.present) == (4, 3, 3, 0)
    assert (report.refused, report.refused_faces, report.taken_faces) == (1, 0, 2)
    assert [each.position for each in report.taken_persons] == [0, 1]
    assert [each.position for each in report.refusals] == [1]
    found = {each.external_id: each.face_count for each in gallery.list_persons(CLIENT).persons}
    assert found == {None: 2, "e7": 1, "e9": 1, "e10": 1}


@pytest.fixture
def setting_aside(database: Database, gallery: Gallery, database_url: str) -> Importer:
    """Sets the HNSW index aside when 100 faces are coming."""
    aside = Schema(database_url).set_graph_aside
    return Importer(BulkWriter(database, gallery, MODEL), 512, large_import=aside, large_from=100)


@pytest.fixture
def graph_stands(database_url: str) -> Callable[[], bool]:
    def stands() -> bool:
        with psycopg.connect(database_url) as owner:
            found = owner.execute(
                "SELECT pg_get_indexdef(indexrelid) FROM pg_index "
                "WHERE indexrelid = to_regclass('idx_embedding_hnsw') AND indisvalid"
            ).fetchone()
        assert found is None or "m='16', ef_construction='64'" in found[0]
        return found is not None

    return stands


@pytest.fixture
def no_graph(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("DROP INDEX idx_embedding_hnsw")


def faces(gallery: Gallery) -> int:
    return sum(gallery.count_faces(CLIENT, region) for region in ("A", "B"))


def test_every_record_is_accounted_for(importer: Importer, gallery: Gallery, database: Database) -> None:
    importer.run(CLIENT, [record(1), record(2)])
    bad: dict[str, PersonRecord] = {
        "none": PersonRecord("x", "A", "n", None),
        "no embedding": record(10, []),
        "too many": record(11, [unit(1)] * (MANY + 1)),
        "a number": record(12, 0.5),
        "an array without dimensions": record(13, np.float32(0.5)),
        "a text": record(14, "abc"),
        "too short": record(15, unit(1)[:100]),
        "one of two too short": record(16, [unit(1), unit(2)[:5]]),
        "not a number": record(17, np.full(512, np.nan)),
        "no direction": record(18, np.zeros(512)),
        "three dimensions": record(19, np.zeros((1, 1, 512))),
        "no name": record(20, name=""),
        "name of a number": record(21, name=5),
        "long name": record(22, name="n" * 256),
        "no region": record(23, region=None),
        "long region": record(24, region="r" * 51),
        "no external id": record(25, external_id=None),
        "zero byte": record(26, external_id="a\0b"),
        "description of a number": record(27, description=7),
        "twice": record(3, name="another"),
    }
    huge = unit(5).astype(np.float64) * 1e60  # a sum of squares beyond what float32 holds
    good = [
        record(2),
        record(3),
        record(5, huge),
        record(4, [unit(40), NewFace(unit(41), quality=0.5)]),
        record(1, region="B"),
    ]
    seen: list[ImportReport] = []
    report = importer.run(CLIENT, [*good, *bad.values()], seen.append)
    assert (report.read, report.persons, report.faces, report.present) == (len(good) + len(bad), 4, 5, 1)
    assert report.refused == len(bad)
    assert report.read == report.persons + report.present + report.refused
    assert [refusal.position for refusal in report.refusals] == list(range(len(good), len(good) + len(bad)))
    assert all(refusal.reason for refusal in report.refusals)
    assert seen == [report]
    assert faces(gallery) == 7
    assert Searching.on(database).names(unit(41), strategy="exact")[:1] == ["p4"]


def test_nothing_to_import(importer: Importer) -> None:
    assert importer.run(CLIENT, []) == ImportReport()
    assert importer.run(CLIENT, [record(1, None, name="")]).refused == 1


@pytest.mark.usefixtures("no_graph")
def test_an_import_that_is_cut_short_is_simply_run_again(importer: Importer, gallery: Gallery) -> None:
    def until(stop: int) -> Iterator[PersonRecord]:
        for number in range(12):
            if number == stop:
                raise OSError("the disk with the embeddings is gone")
            yield record(number, many(number))

    with pytest.raises(OSError, match="the disk"):
        importer.run(CLIENT, until(8))
    assert faces(gallery) == 8 * MANY, "the batches before stay"
    seen: list[ImportReport] = []
    report = importer.run(CLIENT, until(99), seen.append)
    assert (report.read, report.persons, report.present, report.faces) == (12, 4, 8, 4 * MANY)
    assert [step.read for step in seen] == [2, 4, 6, 8, 10, 12]
    assert all(step.read == step.persons + step.present + step.refused for step in seen)
    assert faces(gallery) == 12 * MANY
    assert importer.run(CLIENT, until(99)).present == 12
    assert faces(gallery) == 12 * MANY


def test_a_wrong_guess_that_all_are_new_stores_what_a_right_one_does(
    database: Database, gallery: Gallery, importer: Importer
) -> None:
    importer.run(CLIENT, [record(1), record(2)])
    people = [NewPerson(f"e{number}", "A", f"p{min(number, 3)}", (unit(number),)) for number in (1, 2, 3)]
    people.append(NewPerson("e2", "B", "p2", (unit(2),)))
    guessed = BulkWriter(database, gallery, MODEL).write(CLIENT, people, all_new=True)
    assert (guessed.persons, guessed.faces, guessed.others) == (2, 2, {})
    again = [NewPerson("e1", "A", "somebody else", (unit(9),)), NewPerson("e4", "A", "p4", (unit(4),))]
    guessed = BulkWriter(database, gallery, MODEL).write(CLIENT, again, all_new=True)
    assert (guessed.persons, guessed.faces, guessed.others) == (1, 1, {("A", "e1"): "p1"})
    assert faces(gallery) == 5


@pytest.mark.usefixtures("no_graph")
def test_an_import_that_is_run_again_soon_stops_to_guess_that_all_are_new(database: Database, gallery: Gallery) -> None:
    guesses: list[bool] = []

    class Told(BulkWriter):
        def write(self, client_id: str, persons: Sequence[NewPerson], *, all_new: bool = False) -> Written:
            guesses.append(all_new)
            return super().write(client_id, persons, all_new=all_new)

    importer = Importer(Told(database, gallery, MODEL), 512)
    people = [record(number, many(number)) for number in range(10)]
    assert importer.run(CLIENT, people).persons == 10
    assert guesses == [True] * 5
    assert importer.run(CLIENT, people).present == 10
    assert guesses[5:] == [True, True, False, False, False]


@pytest.mark.usefixtures("no_graph")
def test_two_imports_of_the_same_people_at_once_store_each_once(database: Database, gallery: Gallery) -> None:
    people = 5_000
    numbers = list(range(people))
    start = threading.Barrier(2)

    def work(order: list[int]) -> ImportReport:
        mine = Importer(BulkWriter(database, gallery, MODEL), 512)
        start.wait()
        return mine.run(CLIENT, (record(number) for number in order))

    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(work, (numbers, numbers[::-1])))
    assert [report.read for report in reports] == [people, people]
    assert sum(report.persons for report in reports) == people
    assert sum(report.faces for report in reports) == faces(gallery) == people
    assert all(report.persons + report.present == people for report in reports)


@pytest.mark.usefixtures("no_graph")
def test_a_batch_that_fails_leaves_nothing_of_itself(importer: Importer, gallery: Gallery, database_url: str) -> None:
    def records() -> Iterator[PersonRecord]:
        for number in range(10):
            if number == 5:
                while faces(gallery) < 4 * MANY:  # other threads write them
                    time.sleep(0.01)
                with psycopg.connect(database_url, autocommit=True) as owner:
                    owner.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND application_name = 'faceward'"
                    )
            yield record(number, many(number))

    with pytest.raises(DatabaseUnavailableError):
        importer.run(CLIENT, records())
    there = {person.external_id for person in gallery.list_persons(CLIENT).persons}
    assert there.issuperset({"e0", "e1", "e2", "e3"})
    assert there.isdisjoint({"e4", "e5"})
    assert faces(gallery) == len(there) * MANY, "a batch is there whole or not at all"
    assert importer.run(CLIENT, (record(n, many(n)) for n in range(10))).persons == 10 - len(there)


def test_the_graph_is_set_aside_once_and_built_again(
    setting_aside: Importer, gallery: Gallery, graph_stands: Callable[[], bool], database: Database, database_url: str
) -> None:
    standing: list[bool] = []

    def records() -> Iterator[PersonRecord]:
        for number in range(6):
            yield record(number, many(number))
        standing.append(graph_stands())

    setting_aside.run(CLIENT, records(), lambda _: standing.append(graph_stands()))
    assert standing == [False] * 4
    assert graph_stands()
    assert Searching.on(database).names(many(2)[7], strategy="hnsw")[:1] == ["p2"]
    # Whom a repeated import finds there already is not coming.
    standing.clear()
    aside = Schema(database_url).set_graph_aside
    again = Importer(BulkWriter(database, gallery, MODEL), 512, large_import=aside, large_from=3500)
    assert again.run(CLIENT, records(), lambda _: standing.append(graph_stands())).present == 6
    assert standing == [True] * 4


def test_an_import_beside_a_long_reader_leaves_the_graph_and_holds_up_no_search(
    setting_aside: Importer, database: Database, database_url: str, graph_stands: Callable[[], bool]
) -> None:
    """As a backup reads: whoever waited for it to drop the index would have every search wait behind."""
    standing: list[bool] = []
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT count(*) FROM face_encodings")
        setting_aside.run(
            CLIENT, [record(n, many(n)[:100]) for n in range(20)], lambda _: standing.append(graph_stands())
        )
        assert set(standing) == {True}
        assert Searching.on(database).names(many(2)[7])[:1] == ["p2"]


@pytest.mark.parametrize("end", [KeyboardInterrupt(), ValueError("a bug of the caller's"), GeneratorExit()])
def test_the_graph_is_built_again_however_the_import_ends(
    setting_aside: Importer, graph_stands: Callable[[], bool], gallery: Gallery, end: BaseException
) -> None:
    aside: list[bool] = []

    def records() -> Iterator[PersonRecord]:
        for number in range(4):
            yield record(number, many(number))
        aside.append(graph_stands())
        raise end

    with pytest.raises(type(end)):
        setting_aside.run(CLIENT, records())
    assert aside == [False]
    assert graph_stands()
    assert faces(gallery) == 4 * MANY


def test_a_graph_that_is_not_built_again_costs_no_report(
    setting_aside: Importer, graph_stands: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a cut-over is in the way: all is stored, and the index alone is missing."""
    records = [record(n, many(n)[:60]) for n in range(4)]
    monkeypatch.setattr("faceward.store.graph_index._build", lambda tx, _: tx.exec_driver_sql("SELECT 1/0"))
    report = setting_aside.run(CLIENT, iter(records))
    assert (report.persons, report.faces) == (4, 240)
    assert "`faceward db index` does it" in report.index_missing
    assert not graph_stands()


def test_while_the_graph_is_aside_the_strategy_hnsw_says_so(setting_aside: Importer, database: Database) -> None:
    told: list[str] = []
    searching = Searching.on(database)

    def look(_: ImportReport) -> None:
        with pytest.raises(IndexMissingError) as caught:
            searching.find(unit(1), strategy="hnsw")
        told.append(str(caught.value))
        assert searching.names(unit(5000), strategy="auto")[:1] == ["p9"]

    setting_aside.run(CLIENT, [record(n, many(n)[:60]) for n in range(2)] + [record(9, unit(5000))], look)
    assert "idx_embedding_hnsw is missing" in told[0]


def test_a_login_that_does_not_own_the_tables_leaves_the_graph_alone(
    database: Database, gallery: Gallery, database_url: str, graph_stands: Callable[[], bool]
) -> None:
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("CREATE ROLE import_login LOGIN IN ROLE faceward_app")
        try:
            login = make_url(database_url).set(username="import_login").render_as_string(hide_password=False)
            schema = Schema(login)
            importer = Importer(
                BulkWriter(database, gallery, MODEL), 512, large_import=schema.set_graph_aside, large_from=1
            )
            standing: list[bool] = []
            importer.run(CLIENT, [record(n) for n in range(5)], lambda _: standing.append(graph_stands()))
            assert standing == [True]
        finally:
            owner.execute("DROP ROLE import_login")


def test_all_that_is_known_of_a_face_arrives(importer: Importer, database_url: str) -> None:
    full = NewFace(
        unit(1), Box(1.25, 2, 3, 4.5), 0.5, 0.25, image_path="a/ü.jpg", image_data=b"\x00\xff", image_sha256=bytes(32)
    )
    importer.run(CLIENT, [record(1, [full, unit(2)], name="Ünï 𝔘", description="two\nlines"), record(2)])
    with psycopg.connect(database_url) as owner:
        rows = owner.execute(
            "SELECT p.external_id, p.name, p.description, f.region, f.image_path, f.image_data, f.image_sha256, f.face_bbox, "
            "f.confidence, f.quality_score, f.embedding::text FROM face_encodings f JOIN persons p ON p.id = f.person_id "
            "ORDER BY f.id"
        ).fetchall()
    nothing = (None,) * 6
    assert [row[:-1] for row in rows] == [
        ("e1", "Ünï 𝔘", "two\nlines", "A", "a/ü.jpg", b"\x00\xff", bytes(32), "1.2,2.0,3.0,4.5", 0.5, 0.25),
        ("e1", "Ünï 𝔘", "two\nlines", "A", *nothing),
        ("e2", "p2", None, "A", *nothing),
    ]
    for row, seed in zip(rows, (1, 2, 2), strict=True):
        stored = np.array(row[-1].strip("[]").split(","), dtype=np.float32)
        assert np.abs(stored - unit(seed)).max() < 1e-7


def test_what_the_report_counts_is_on_disk(importer: Importer, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as owner:
        written: list[object] = []

        def note(_: ImportReport) -> None:
            written.extend(owner.execute("SELECT pg_current_wal_insert_lsn()").fetchone() or ())

        importer.run(CLIENT, (record(number) for number in range(2500)), note)
        assert len(written) == 2
        flushed = owner.execute("SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn", (written[-1],)).fetchone()
    assert flushed == (True,)
