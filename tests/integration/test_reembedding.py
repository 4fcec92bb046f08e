"""The model of a gallery is changed while it is in use: between packs of two dimensions, on real photos."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
from PIL import Image

import faceward
from faceward.errors import (
    ConflictError,
    FacewardError,
    InvalidEmbeddingError,
    ModelMismatchError,
    PersonsLeftBehindError,
    UnknownPackError,
)
from faceward.factory import ReembeddingParts, open_parts, open_reembedding, open_service
from faceward.photo_import import PhotoRecord
from faceward.reembedding import FillSettings, ModelChange, PhotoEmbedder, compare
from faceward.settings import Settings, load_settings
from faceward.store.embedding_models import models_in_use
from faceward.store.graph_index import GraphSettings
from faceward.store.photo_vault import PhotoVault
from faceward.store.reembedded_faces import Counts
from faceward.store.schema import Schema
from faceward.vision import ModelPack
from other_packs import add_pack, home_with
from searching import at_last

NARROW, TURNED = "narrow-1", "turned-1"


@pytest.fixture(scope="session")
def homes(home: Path, pack: ModelPack, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A home with two more packs, and the model ids by pack: one of 256 numbers, one of as many as the default one."""
    own = home_with(home, pack, tmp_path_factory.mktemp("packs"))
    models = {
        pack.name: pack.model_id,
        NARROW: add_pack(own, pack, NARROW, 256),
        TURNED: add_pack(own, pack, TURNED, 512),
    }
    return own, models


@pytest.fixture(scope="session")
def photos(photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Copies of 480 pixels where they are larger photos, which are quickly analysed."""
    folder, small = tmp_path_factory.mktemp("small"), dict(photos)
    for name in photos:
        if name.endswith(".jpg"):
            small[name] = folder / name
            with Image.open(photos[name]) as image:
                image.thumbnail((480, 480))
                image.convert("RGB").save(small[name], "JPEG", quality=95)
    return small


@pytest.fixture
def settings(homes: tuple[Path, dict[str, str]], database_url: str) -> Settings:
    return load_settings(
        home=homes[0],
        database={"url": database_url, "pool_size": 4},
        images={"store": "original"},
        model={"threads": 2},
        search={"sketch_from": 0},
    )


@pytest.fixture
def models(homes: tuple[Path, dict[str, str]]) -> dict[str, str]:
    return homes[1]


@pytest.fixture
def service(settings: Settings, photos: dict[str, Path]) -> Iterator[faceward.FaceService]:
    """Two clients with people in two regions."""
    with open_service(settings) as service:
        for client, region, name, files in (
            ("acme", "A", "Barack", ["obama.jpg", "obama2.jpg"]),
            ("acme", "B", "Joe", ["biden.jpg"]),
            ("globex", "A", "Eileen", ["astronaut.png"]),
        ):
            service.enroll([photos[file] for file in files], name=name, region=region, client_id=client)
        yield service


@pytest.fixture
def changing(settings: Settings, service: faceward.FaceService) -> Iterator[ReembeddingParts]:
    with open_reembedding(settings) as parts:
        yield parts


Asked = tuple[str, str, str, str | None]
PROBES: tuple[Asked, ...] = (
    ("obama3.jpg", "acme", "A", "Barack"),
    ("obama3.jpg", "acme", "B", None),
    ("biden.jpg", "acme", "B", "Joe"),
    ("astronaut.png", "globex", "A", "Eileen"),
)


def answers(service: faceward.FaceService, photos: dict[str, Path]) -> list[list[tuple[int, float]]]:
    """Persons and similarities to the last digit, of every probe."""
    return [
        [
            (each.person_id, each.similarity)
            for face in service.recognize(photos[photo], region=region, client_id=client).faces
            for each in face.candidates
        ]
        for photo, client, region, _ in PROBES
    ]


def fill(parts: ReembeddingParts, model_id: str, dimension: int) -> None:
    parts.change.begin(model_id, dimension)
    parts.change.fill(FillSettings(workers=2))


@contextlib.contextmanager
def recognising(service: faceward.FaceService, photos: dict[str, Path]) -> Iterator[Callable[[], int]]:
    """Threads that recognise all the while; each answer has to be right. The block gets a count of the answers."""
    stop, wrong, right = threading.Event(), [], [0]
    data = {name: photos[name].read_bytes() for name, *_ in PROBES}

    def work(number: int) -> None:
        while not stop.wait(0.02):
            photo, client, region, name = PROBES[number % len(PROBES)]
            number += 1
            try:
                found = service.recognize(data[photo], region=region, client_id=client)
                (face,) = found.faces
                assert (face.match.name if face.match else None) == name
                right[0] += 1
            except (FacewardError, AssertionError, ValueError) as exc:
                wrong.append(exc)
                return

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: right[0]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_no_recognition_fails_while_the_model_is_changed_and_changed_back(
    service: faceward.FaceService, changing: ReembeddingParts, photos: dict[str, Path], models: dict[str, str]
) -> None:
    before, first = answers(service, photos), service.model_id
    embedding = service.faces_to_store(photos["obama.jpg"])[0].embedding
    with recognising(service, photos) as count:
        fill(changing, models[NARROW], 256)
        assert service.model_id == first
        changing.change.cut_over()
        at_last(lambda: service.model_id == models[NARROW])
        seen = count()
        at_last(lambda: count() > seen + 10)
        later = service.enroll(photos["obama_partial_face.jpg"], name="Later", region="C", client_id="acme")
        changing.change.roll_back()
        at_last(lambda: service.model_id == first)
        seen = count()
        at_last(lambda: count() > seen + 10)
    assert answers(service, photos) == before
    (face,) = service.recognize(photos["obama_partial_face.jpg"], region="C", client_id="acme").faces
    assert face.match is not None
    assert face.match.person_id == later.person.id
    assert changing.change.cut_over().change.state == "cut_over"
    assert changing.change.finish().state == "finished"
    with pytest.raises(InvalidEmbeddingError, match="256"):
        service.search(embedding, region="A", client_id="acme")
    assert [[person for person, _ in each][:1] for each in answers(service, photos)] == [
        [person for person, _ in each][:1] for each in before
    ]


def test_every_kind_of_call_follows(
    service: faceward.FaceService, changing: ReembeddingParts, photos: dict[str, Path], models: dict[str, str]
) -> None:
    """The first call after the change is this one, of a service that has heard of nothing; embeddings are of one length."""
    person = service.list_persons(client_id="acme", region="A").persons[0]
    stream = (PhotoRecord("E", name, name, photos[name]) for name in ("biden.jpg", "obama.jpg"))
    fill(changing, models[TURNED], 512)
    with photos["obama_partial_face2.jpg"].open("rb") as file:
        calls: list[Callable[[], object]] = [
            lambda: service.verify(photos["obama.jpg"], person_id=person.id, client_id="acme").verified,
            lambda: service.add_face(person.id, photos["obama3.jpg"], client_id="acme"),
            lambda: service.enroll(file, name="New", region="D", client_id="initech"),
            lambda: service.import_photos(stream, client_id="acme").enrolled == 2,
        ]
        for number, call in enumerate(calls):
            done = changing.change.cut_over() if number % 2 == 0 else changing.change.roll_back()
            assert call()
            assert service.model_id == done.change.model_of_live
    assert {service.model_id} == models_in_use(changing.database)


def test_embeddings_of_the_model_before_are_refused(
    settings: Settings, changing: ReembeddingParts, photos: dict[str, Path], models: dict[str, str]
) -> None:
    """Also where those of both models are of one length: nobody could ever tell them apart."""
    fill(changing, models[TURNED], 512)
    with open_parts(settings) as parts:
        service, old = parts.service, parts.service.model_id
        row = service.faces_to_store(photos["obama_partial_face.jpg"])[0].embedding
        person = faceward.PersonRecord("7", "A", "Late", row)
        with parts.imports.receive("acme", "embeddings") as upload:
            line = {"external_id": "8", "region": "A", "name": "Queued", "embedding": row.tolist()}
            upload.append(json.dumps(line).encode())
            job = upload.finish()
        changing.change.cut_over()
        with pytest.raises(ModelMismatchError):
            service.import_embeddings([person], client_id="acme")
        assert service.model_id == models[TURNED]
        with pytest.raises(ModelMismatchError, match="Send the photos instead"):
            service.import_embeddings([person], client_id="acme", model_id=old)
        assert parts.runner.run_next()
        failed = parts.imports.get(job.id, client_id="acme")
        assert (failed.state, failed.error_code) == ("failed", "model_mismatch")
        assert service.list_persons(client_id="acme", region="A", external_id="7").persons == ()


def test_what_happens_during_the_filling_is_caught_up(
    service: faceward.FaceService, changing: ReembeddingParts, photos: dict[str, Path], models: dict[str, str]
) -> None:
    fill(changing, models[NARROW], 256)
    barack = service.list_persons(client_id="acme", region="A").persons[0]
    joe = service.list_persons(client_id="acme", region="B").persons[0]
    service.move_region(barack.id, "B", client_id="acme")
    service.delete_person(joe.id, client_id="acme")
    again = service.enroll(photos["obama.jpg"], name="Twin", region="A", client_id="acme")  # the photo of one who moved
    new = service.enroll(photos["biden.jpg"], name="Joe", region="Z", client_id="newcomer")
    done = changing.change.cut_over()
    assert (done.persons_left, done.caught_up) == (0, 4)
    for photo, client, region, person in (
        ("obama3.jpg", "acme", "B", barack.id),
        ("obama3.jpg", "acme", "A", again.person.id),
        ("biden.jpg", "newcomer", "Z", new.person.id),
        ("biden.jpg", "acme", "B", None),
    ):
        (face,) = service.recognize(photos[photo], region=region, client_id=client).faces
        assert (face.match.person_id if face.match else None) == person
    assert service.model_id == models[NARROW]


def test_nothing_that_is_acknowledged_during_an_exchange_is_lost(
    service: faceward.FaceService,
    changing: ReembeddingParts,
    photos: dict[str, Path],
    models: dict[str, str],
    database_url: str,
) -> None:
    """People are enrolled, moved, merged and deleted without a pause, while the tables are exchanged there and back."""
    with Image.open(photos["obama.jpg"]) as image:
        image.thumbnail((200, 200))
        made = io.BytesIO()
        image.save(made, "JPEG", quality=95)
    stop, failed = threading.Event(), list[Exception]()
    held: dict[int, tuple[str, str, int]] = {}  # client, region and faces

    def write(number: int) -> None:
        mine: list[int] = []
        for turn in itertools.count():
            if stop.wait(0.1):
                return
            client = ("acme", "globex")[turn % 2]
            try:
                photo = made.getvalue() + b"%d %d" % (number, turn)
                done = service.enroll(photo, name=f"{number} {turn}", region="N", client_id=client)
                held[done.person.id] = (client, "N", 1)
                mine.append(done.person.id)
                if turn % 3 == 1:
                    service.move_region(mine[-1], "M", client_id=client)
                    held[mine[-1]] = (client, "M", 1)
                if turn % 5 == 4:
                    client, *_ = held[mine[0]]
                    service.delete_person(mine[0], client_id=client)
                    del held[mine.pop(0)]
                same = [person for person in mine if held[person][0] == client]
                if turn % 4 == 3 and len(same) > 2:
                    service.merge_persons(same[0], same[-1], across_regions=True, client_id=client)
                    client, region, faces = held[same[-1]]
                    held[same[-1]] = (client, region, faces + held.pop(same[0])[2])
                    mine.remove(same[0])
            except FacewardError as exc:
                failed.append(exc)
                return

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    fill(changing, models[TURNED], 512)
    for thread in threads:
        thread.start()
    try:
        at_last(lambda: len(held) > 4 or bool(failed))
        for step in (changing.change.cut_over, changing.change.roll_back):
            assert step().persons_left == 0
            known = len(held)
            at_last(lambda known=known: len(held) > known + 4 or bool(failed))  # type: ignore[misc]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT p.id, p.client_id, p.region, f.region, f.model_id FROM persons p "
            "LEFT JOIN face_encodings f ON f.client_id = p.client_id AND f.person_id = p.id WHERE p.region IN ('N', 'M')"
        ).fetchall()
    faces_of = Counter(row[0] for row in rows)
    assert {row[0]: (row[1], row[2], faces_of[row[0]]) for row in rows} == held
    assert {row[4] for row in rows} == {models["faceplugin-0.0.1"]}
    assert all(row[2] == row[3] for row in rows)


def test_persons_without_a_photo_are_not_left_behind_unasked(
    service: faceward.FaceService, changing: ReembeddingParts, photos: dict[str, Path], models: dict[str, str]
) -> None:
    row = service.faces_to_store(photos["obama_partial_face.jpg"])[0].embedding
    service.import_embeddings([faceward.PersonRecord("7", "A", "No Photo", row)], client_id="globex")
    (bare,) = service.list_persons(client_id="globex", external_id="7").persons
    before = service.search(row, region="A", client_id="globex")
    fill(changing, models[NARROW], 256)
    assert changing.change.status().counts == Counts(5, 4, 0, 1, 4, 1)
    assert [(each.person_id, each.code) for each in changing.change.faces_left()] == [(bare.id, "no_image")]
    with pytest.raises(PersonsLeftBehindError, match=f"{bare.id} of client 'globex'"):
        changing.change.cut_over()
    assert service.search(row, region="A", client_id="globex") == before
    done = changing.change.cut_over(leave_behind=True)
    assert (done.persons_left, done.left) == (1, (("globex", bare.id),))
    assert service.get_person(bare.id, client_id="globex").face_count == 0
    (face,) = service.recognize(photos["obama_partial_face.jpg"], region="A", client_id="globex").faces
    assert face.match is None
    changing.change.roll_back()
    service.detect(photos["obama.jpg"])
    (face,) = service.recognize(photos["astronaut.png"], region="A", client_id="globex").faces
    assert service.search(row, region="A", client_id="globex") == before
    assert changing.change.abandon().state == "abandoned"


def test_a_filling_that_is_killed_goes_on(
    settings: Settings, service: faceward.FaceService, tmp_path: Path, models: dict[str, str], database_url: str
) -> None:
    config = tmp_path / "killed.json"
    config.write_text(json.dumps({"database": {"url": database_url}, "images": {"store": "original"}}))
    program = (sys.executable, "-c", "from faceward.cli import main; main()")
    slow = subprocess.Popen(
        [*program, "--config", config, "reembed", "--pack", NARROW, "--pause", "0.7"],
        env={**os.environ, "FACEWARD_HOME": str(settings.home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )

    def made() -> int:
        with psycopg.connect(database_url) as connection:
            if connection.execute("SELECT to_regclass('face_encodings_next')").fetchone() == (None,):
                return 0
            row = connection.execute("SELECT count(*) FROM face_encodings_next").fetchone()
            return row[0] if row else 0

    at_last(lambda: made() > 0 or slow.poll() is not None)
    slow.kill()
    _, said = slow.communicate()
    assert 0 < made() < 4, said
    with open_reembedding(settings) as parts:
        assert parts.change.begin(models[NARROW], 256).state == "filling"
        with pytest.raises(ConflictError, match="not at its end"):
            parts.change.cut_over()
        with pytest.raises(ConflictError, match="abandon"):
            parts.change.begin(models[TURNED], 512)
        done: list[tuple[int, int]] = []
        parts.change.fill(progress=lambda *told: done.append(told))
        assert done[-1] == (4, 4)
        assert done[0][0] > 0
        parts.change.cut_over()
    assert made() == 0


def test_the_comparison_says_what_would_change(
    service: faceward.FaceService, changing: ReembeddingParts, photos: dict[str, Path], models: dict[str, str]
) -> None:
    service.enroll([photos["biden.jpg"], photos["obama3.jpg"]], name="Mixed up", region="A", client_id="acme")
    fill(changing, models[TURNED], 512)
    change = changing.change.status().change
    assert change is not None
    same = compare(changing.database, change, (0.35, 0.35))
    assert (same.faces, same.with_others, same.different) == (6, 4, 0)
    assert (same.before.right, same.before.wrong) == (same.after.right, same.after.wrong)
    assert same.before.wrong > 0
    np.testing.assert_allclose(list(same.before.genuine.values()), list(same.after.genuine.values()), atol=2e-3)
    strict = compare(changing.database, change, (0.35, 0.99), sample=3)
    assert strict.faces <= 3
    assert strict.after.right == 0
    assert all(each.after.person_id is None for each in strict.differences)
    assert strict.different == strict.before.right + strict.before.wrong > 0


def test_a_service_that_starts_takes_the_gallerys_pack(
    settings: Settings,
    service: faceward.FaceService,
    changing: ReembeddingParts,
    models: dict[str, str],
    pack: ModelPack,
) -> None:
    fill(changing, models[NARROW], 256)
    changing.change.cut_over()
    told: list[str] = []
    with open_parts(settings, notify=told.append) as parts:
        assert parts.service.model_id == models[NARROW]
        assert parts.checks() == {"models": "ok", "database": "ok"}
        assert any("config.json should name it too" in line for line in told)
        changing.change.roll_back()
        assert parts.checks() == {"models": "ok", "database": "ok"}
        assert parts.manifest.model_id == pack.model_id


def test_the_way_back_needs_no_pack_where_nobody_was_enrolled_since(
    settings: Settings, changing: ReembeddingParts, photos: dict[str, Path], models: dict[str, str]
) -> None:
    fill(changing, models[NARROW], 256)
    changing.change.cut_over()

    def absent(model_id: str) -> contextlib.AbstractContextManager[PhotoEmbedder]:
        raise UnknownPackError(model_id)

    schema = Schema(settings.database.url)
    way_back = ModelChange(changing.database, schema, PhotoVault(), absent, GraphSettings())
    assert way_back.roll_back().change.state == "ready"
    with pytest.raises(UnknownPackError):
        way_back.cut_over()


def test_a_machine_without_the_pack_is_told_so(
    settings: Settings,
    service: faceward.FaceService,
    changing: ReembeddingParts,
    models: dict[str, str],
    home: Path,
    pack: ModelPack,
    tmp_path: Path,
) -> None:
    fill(changing, models[NARROW], 256)
    changing.change.cut_over()
    with pytest.raises(UnknownPackError, match=r"changed to the model narrow-1.*faceward models add"):
        open_service(settings.model_copy(update={"home": home_with(home, pack, tmp_path / "bare")}))


def test_who_was_left_behind_comes_back_as_they_are_now(
    service: faceward.FaceService, changing: ReembeddingParts, photos: dict[str, Path], models: dict[str, str]
) -> None:
    """Faces that only the table of before has follow no move and no suspension: until a roll-back makes them live again."""
    rows = [service.faces_to_store(photos[name])[0].embedding for name in ("obama_partial_face.jpg", "biden.jpg")]
    service.import_embeddings(
        [faceward.PersonRecord(f"{number}", "A", f"No Photo {number}", row) for number, row in enumerate(rows)],
        client_id="globex",
    )
    moved, suspended = (service.list_persons(client_id="globex", external_id=each).persons[0].id for each in ("0", "1"))
    fill(changing, models[NARROW], 256)
    changing.change.cut_over(leave_behind=True)
    service.move_region(moved, "B", client_id="globex")
    service.update_person(suspended, state="suspended", client_id="globex")
    changing.change.roll_back()
    service.detect(photos["obama.jpg"])
    service.recognize(photos["astronaut.png"], region="A", client_id="globex")

    def found(row: np.ndarray, region: str) -> list[int]:
        return [each.person_id for each in service.search(row, region=region, client_id="globex")]

    assert moved not in found(rows[0], "A")
    assert moved in found(rows[0], "B")
    assert suspended not in found(rows[1], "A")
    service.update_person(suspended, state="active", client_id="globex")
    assert suspended in found(rows[1], "A")


def test_who_was_left_behind_by_a_roll_back_is_erased_everywhere(
    service: faceward.FaceService, changing: ReembeddingParts, photos: dict[str, Path], models: dict[str, str]
) -> None:
    fill(changing, models[NARROW], 256)
    changing.change.cut_over()
    service.recognize(photos["astronaut.png"], region="A", client_id="globex")
    row = service.faces_to_store(photos["obama_partial_face.jpg"])[0].embedding
    service.import_embeddings([faceward.PersonRecord("7", "A", "No Photo", row)], client_id="globex")
    (bare,) = service.list_persons(client_id="globex", external_id="7").persons
    assert changing.change.roll_back(leave_behind=True).left == (("globex", bare.id),)
    service.move_region(bare.id, "B", client_id="globex")
    receipt = service.erase_person(bare.id, client_id="globex")
    assert receipt.content["left"] == {}
    assert changing.change.cut_over().persons_left == 0
