"""CompreFace's and DeepFace's tables in PostgreSQL, made as their own code makes them."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psycopg
import pytest
from importing import Importing, faces, persons

from faceward.errors import ImportSourceError
from faceward.importers import PostgresSource, RegionAssignment, compreface, deepface
from faceward.service import FaceService
from synthetic import unit

COMPREFACE = """
CREATE TABLE model (id bigint PRIMARY KEY, name varchar(255) NOT NULL, guid varchar(36) NOT NULL, app_id bigint NOT NULL,
                    api_key varchar(36) NOT NULL UNIQUE, type varchar(50), created_date timestamp);
CREATE TABLE subject (id uuid PRIMARY KEY, api_key varchar(36), subject_name varchar(255), UNIQUE (api_key, subject_name));
CREATE TABLE img (id uuid PRIMARY KEY, content bytea NOT NULL);
CREATE TABLE embedding (id uuid PRIMARY KEY, subject_id uuid REFERENCES subject ON UPDATE CASCADE ON DELETE CASCADE,
                        embedding float8[] NOT NULL, calculator varchar(255) NOT NULL, img_id uuid REFERENCES img);
INSERT INTO model (id, name, guid, app_id, api_key) VALUES (1, 'Office', 'g1', 1, 'key-1'), (2, 'Plant', 'g2', 1, 'key-2');
"""
DEEPFACE = """
CREATE TABLE embeddings (id bigserial PRIMARY KEY, img_name text NOT NULL, face jsonb NOT NULL, model_name text NOT NULL,
    detector_backend text NOT NULL, aligned boolean DEFAULT true, l2_normalized boolean DEFAULT false,
    embedding float8[] NOT NULL, created_at timestamptz DEFAULT now(), face_hash bytea NOT NULL, embedding_hash bytea NOT NULL,
    UNIQUE (face_hash, embedding_hash))
"""
DEEPFACE_PGVECTOR = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE Embeddings_facenet512_retinaface_aligned_raw (id serial PRIMARY KEY, img_name text NOT NULL, face bytea NOT NULL,
    face_shape int[] NOT NULL, model_name text NOT NULL, detector_backend text NOT NULL, aligned boolean DEFAULT true,
    l2_normalized boolean DEFAULT false, embedding vector(512) NOT NULL, created_at timestamptz DEFAULT now(),
    face_hash text NOT NULL, embedding_hash text NOT NULL, UNIQUE (face_hash, embedding_hash))
"""
FACENET, OTHER = "facenet.Calculator", "insightface.Calculator"


@pytest.fixture
def importing(service: FaceService, client: str) -> Importing:
    return Importing(service, client)


@pytest.fixture
def old(new_database: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """The URL of the other system's database."""
    with new_database() as url:
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        yield url


class CompreFace:
    """What its own service would have stored."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        connection.execute(COMPREFACE)

    def subject(self, number: int, name: str | None, key: str = "key-1") -> uuid.UUID:
        id = uuid.UUID(int=number)
        self._connection.execute("INSERT INTO subject VALUES (%s, %s, %s)", (id, key, name))
        return id

    def face(
        self, subject: uuid.UUID | None, vector: np.ndarray, calculator: str = FACENET, image: bytes | None = None
    ) -> None:
        img = None
        if image is not None:
            img = uuid.uuid4()
            self._connection.execute("INSERT INTO img VALUES (%s, %s)", (img, image))
        row = (uuid.uuid4(), subject, vector.tolist(), calculator, img)
        self._connection.execute("INSERT INTO embedding VALUES (%s, %s, %s, %s, %s)", row)


@pytest.fixture
def subjects(old: str) -> Iterator[CompreFace]:
    with psycopg.connect(old, autocommit=True) as connection:
        yield CompreFace(connection)


def register(url: str, rows: list[tuple[str, np.ndarray, str]], table: str = "embeddings") -> None:
    """As DeepFace.register does: (img_name, embedding, model)."""
    pgvector = table != "embeddings"
    with psycopg.connect(url, autocommit=True) as connection:
        for number, (name, vector, model) in enumerate(rows):
            digest = hashlib.sha256(vector.tobytes() + bytes([number]))
            shape = {"face_shape": [1, 1, 3]} if pgvector else {}
            row = {
                "img_name": name,
                "face": b"\0" * 12 if pgvector else "[]",
                **shape,
                "model_name": model,
                "detector_backend": "retinaface",
                "embedding": str(vector.tolist()) if pgvector else vector.tolist(),
                "face_hash": digest.hexdigest() if pgvector else digest.digest(),
                "embedding_hash": digest.hexdigest() if pgvector else digest.digest(),
            }
            places = ", ".join(["%s"] * len(row))
            connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", list(row.values()))


def test_subjects_of_compreface_are_found_in_their_region(old: str, subjects: CompreFace, importing: Importing) -> None:
    ada, grace = subjects.subject(1, "Ada Lovelace"), subjects.subject(2, "Grace Hopper", "key-2")
    twin, nameless = subjects.subject(3, "Ada Lovelace", "key-2"), subjects.subject(4, None)
    subjects.subject(5, "Faceless")
    for person, seed in ((ada, 1), (ada, 101), (grace, 2), (twin, 3), (nameless, 4)):
        subjects.face(person, unit(seed).astype(float))
    subjects.face(ada, unit(1).astype(float))  # a duplicate
    subjects.face(grace, unit(7)[:128])
    subjects.face(None, unit(8))
    subjects.face(ada, np.array([[0.1, 0.2], [0.3, 0.4]]))
    subjects.face(ada, np.array([]))
    regions = RegionAssignment("A", by_name={"Grace Hopper": "B"})
    with PostgresSource(old, compreface()) as source:
        for account in (importing.plan(source, regions), importing.run(source, regions)):
            assert (persons(account), faces(account)) == ((5, 3, 0), (10, 4, 0))
            assert account.persons.refused == {"invalid": 1, "no_face": 1}
            assert account.faces.refused == {
                "person_refused": 1, "duplicate": 1, "other_length": 1, "orphan": 1, "unreadable": 2,
            }  # fmt: skip
            assert account.same_name == {"Ada Lovelace": 2}
        again = importing.run(source, regions)
        assert (persons(again), faces(again)) == ((5, 0, 3), (10, 0, 4))
    for seed, region, person in ((1, "A", ada), (101, "A", ada), (2, "B", grace), (3, "A", twin)):
        assert importing.found(unit(seed), region) == f"compreface:{person}"
    with PostgresSource(old, compreface("Plant")) as source:
        assert persons(importing.plan(source)) == (2, 2, 0)
    with pytest.raises(
        ImportSourceError, match=r"--service Moon: there is none of that name\. There are: Office, Plant"
    ):
        PostgresSource(old, compreface("Moon"))


def test_services_of_several_applications_with_one_name_are_told_apart(
    old: str, subjects: CompreFace, importing: Importing
) -> None:
    first, second = "11111111-aaaa", "22222222-bbbb"
    with psycopg.connect(old, autocommit=True) as connection:
        row = "INSERT INTO model (id, name, guid, app_id, api_key) VALUES (%s, 'Gate', %s, %s, %s)"
        for number, key in ((3, first), (4, second)):
            connection.execute(row, (number, f"g{number}", number, key))
    subjects.face(subjects.subject(1, "Ada", first), unit(1))
    subjects.face(subjects.subject(2, "Grace", second), unit(2))
    subjects.face(subjects.subject(3, "Alan", second), unit(3))
    with pytest.raises(ImportSourceError, match="2 services are called so") as refused:
        PostgresSource(old, compreface("Gate"))
    assert "11111111…, 22222222…" in str(refused.value)
    assert not {first, second} & set(re.findall(r"[\w-]+", str(refused.value)))
    for service, there in (("11111111", 1), ("22222222", 2), (second, 2)):
        with PostgresSource(old, compreface(service)) as source:
            assert (persons(importing.plan(source)), source.count()) == ((there, there, 0), there)


def test_embeddings_of_several_models_are_never_mixed(
    old: str, subjects: CompreFace, importing: Importing, photos: dict[str, Path]
) -> None:
    photo = photos["obama.jpg"].read_bytes()
    (face,) = importing.service.faces_to_store(photo)
    barack = subjects.subject(1, "Barack Obama")
    subjects.face(barack, unit(1), FACENET, photo)
    subjects.face(barack, unit(2), OTHER, photo)
    with pytest.raises(ImportSourceError, match=r"several models.*--model "):
        PostgresSource(old, compreface())
    with pytest.raises(ImportSourceError, match=r"--model mine: .* has no embedding of it\. It has: "):
        PostgresSource(old, compreface(), model="mine")
    with PostgresSource(old, compreface(), model=FACENET) as source:
        account = importing.plan(source)
        assert (faces(account), account.faces.refused) == ((2, 1, 0), {"other_model": 1})
        with pytest.raises(Exception, match="are not of the model in use: of 1 that were compared"):
            importing.run(source)
    with PostgresSource(old, compreface(), any_model=True) as source:
        account = importing.run(source, reembed=True)
        assert (faces(account), account.faces.refused) == ((2, 1, 0), {"duplicate": 1})  # it is one photo
        again = importing.run(source, reembed=True)
        assert (faces(again), again.faces.refused) == ((2, 0, 1), {"duplicate": 1})
    assert importing.found(face.embedding, "A") == f"compreface:{barack}"


def test_arrays_of_several_rows_are_not_run_together(old: str, subjects: CompreFace, importing: Importing) -> None:
    """PostgreSQL's float8[] takes any shape: a client that wrote two embeddings into one has no error."""
    people = [subjects.subject(number, f"Person {number}") for number in range(5)]
    for person, shape in zip(people, ((512,), (1, 512), (512, 1), (2, 256), (2, 2, 128)), strict=True):
        subjects.face(person, unit(person.int).astype(float).reshape(shape))
    with PostgresSource(old, compreface()) as source:
        account = importing.run(source)
    assert (persons(account), faces(account)) == ((5, 3, 0), (5, 3, 0))
    told = [each.reason.split(";")[0] for each in account.problems if each.code == "unreadable"]
    assert told == ["The array has the shape (2, 256)", "The array has the shape (2, 2, 128)"]
    for person in people[:3]:
        assert importing.found(unit(person.int), "A") == f"compreface:{person}"


def test_images_that_cant_be_kept_are_left_out_and_told(
    old: str, subjects: CompreFace, importing: Importing, service_url: str
) -> None:
    rng = np.random.default_rng(1)
    small, large = (
        cv2.imencode(".bmp", rng.integers(0, 256, (side, 99, 3), np.uint8))[1].tobytes() for side in (99, 200)
    )
    ada, grace = subjects.subject(1, "Ada"), subjects.subject(2, "Grace")
    for seed, image in enumerate((small, small, small, large, b"no image at all", b"")):
        subjects.face(ada, unit(seed), image=image)
    subjects.face(grace, unit(7), image=small)
    with PostgresSource(old, compreface(), max_image=len(small)) as source:
        plan = importing.plan(source, store_images=True)
        account = importing.run(source, store_images=True, person_images=2 * len(small))
    assert (faces(plan), plan.images_left_out) == ((7, 7, 0), {})  # no image is looked into
    assert faces(account) == (7, 7, 0)
    assert account.images_left_out == {"image_too_large": 2, "not_an_image": 1, "too_many_images": 1}
    assert {each.reason.split(":")[0] for each in account.problems} == {"The face is imported without its image"}
    with psycopg.connect(service_url) as gallery:
        kept = gallery.execute(
            "SELECT name, count(*), array_agg(DISTINCT length(image_data)), count(image_data) "
            "FROM persons p JOIN face_encodings f ON (p.client_id, p.id) = (f.client_id, f.person_id) "
            "WHERE p.client_id = %s GROUP BY name ORDER BY name",
            (importing.client,),
        ).fetchall()
    assert kept == [("Ada", 6, [len(small), None], 2), ("Grace", 1, [len(small)], 1)]


@pytest.mark.parametrize("pgvector", [False, True], ids=["arrays", "pgvector"])
def test_faces_of_deepface_are_found_in_their_region(old: str, importing: Importing, pgvector: bool) -> None:
    table = "embeddings_facenet512_retinaface_aligned_raw" if pgvector else "embeddings"
    with psycopg.connect(old, autocommit=True) as connection:
        connection.execute(DEEPFACE_PGVECTOR)
        connection.execute(DEEPFACE)
    rows = [("Ada/1.jpg", unit(1)), ("Ada/2.jpg", unit(2)), ("db\\Zoë\\3.png", unit(3)), ("nobody.jpg", unit(4))]
    register(old, [(name, vector, "Facenet512") for name, vector in rows], table)
    for person_of, people, read in (("name", "Ada/1.jpg", 4), ("file", "1", 4), ("folder", "Ada", 2)):
        with PostgresSource(old, deepface(person_of=person_of)) as source:
            account = importing.run(source, RegionAssignment(person_of))
            assert account.persons.read == read
            assert importing.found(unit(1), person_of) == f"deepface:{people}"
    assert account.faces.refused == {"orphan": 1}  # nobody.jpg lies in no folder
    assert importing.found(unit(2), "folder") == "deepface:Ada"
    assert importing.found(unit(3), "folder") == "deepface:Zoë"
    with psycopg.connect(old) as connection:
        (sought,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone() or (None,)
    assert sought == 4


def test_faces_to_compare_are_drawn_from_all_of_the_model_that_is_meant(old: str, subjects: CompreFace) -> None:
    with psycopg.connect(old, autocommit=True) as connection:
        connection.execute(DEEPFACE)
    person = subjects.subject(1, "Ada")
    models = [OTHER] * 90 + [FACENET] * 60
    register(old, [(f"{place}", unit(1)[:4], model) for place, model in enumerate(models)])
    for model in models:
        subjects.face(person, unit(1)[:4], model, b"an image")
    for find in (compreface(), deepface()):
        with PostgresSource(old, find, model=FACENET) as source:
            drawn = list(source.sample_with_images(40))
            assert [face.row for face in source.sample_with_images(40)] == [face.row for face in drawn]
        assert len({face.row for face in drawn}) == 40
        assert not any(face.problem for face in drawn)
    assert max(int(str(face.image_path)) for face in drawn[:12]) > 120


def test_of_several_tables_of_deepface_one_must_be_named(
    old: str, importing: Importing, photos: dict[str, Path]
) -> None:
    with psycopg.connect(old, autocommit=True) as connection:
        connection.execute(DEEPFACE_PGVECTOR)
        connection.execute(DEEPFACE)
    register(old, [("Ada", unit(1), "Facenet512")], "embeddings_facenet512_retinaface_aligned_raw")
    register(old, [("obama.jpg", unit(2)[:128], "Facenet"), ("missing.jpg", unit(3), "ArcFace")])
    with pytest.raises(ImportSourceError, match=r"Several tables hold faces: embeddings, .*--table embeddings"):
        PostgresSource(old, deepface())
    with pytest.raises(ImportSourceError, match=r"--table faces: there is no such table"):
        PostgresSource(old, deepface("faces"))
    with PostgresSource(old, deepface("embeddings"), any_model=True) as source:
        account = importing.run(source, reembed=True, images=photos["obama.jpg"].parent)
        assert (faces(account), account.faces.refused) == ((2, 1, 0), {"image_not_found": 1})
    assert importing.service.list_persons(client_id=importing.client).persons[0].name == "obama.jpg"


def test_a_wrong_database_is_refused(old: str) -> None:
    with pytest.raises(ImportSourceError, match="This is no database of CompreFace: it has no table subject"):
        PostgresSource(old, compreface())
    with pytest.raises(ImportSourceError, match="This is no database of DeepFace"):
        PostgresSource(old, deepface())
    with pytest.raises(ImportSourceError, match=r"must be a URL"):
        PostgresSource("old.db", deepface())
    with pytest.raises(ImportSourceError) as refused:
        PostgresSource("postgresql://someone:sEcReT@127.0.0.1:1/nothing", deepface())
    assert "127.0.0.1:1/nothing can't be read" in str(refused.value)
    assert "sEcReT" not in str(refused.value)


def test_a_database_without_faces_is_an_empty_import(old: str, subjects: CompreFace, importing: Importing) -> None:
    with PostgresSource(old, compreface()) as source:
        account = importing.run(source)
    assert (persons(account), faces(account)) == ((0, 0, 0), (0, 0, 0))


def test_a_locked_table_and_a_forbidden_one_are_told(old: str, subjects: CompreFace) -> None:
    with psycopg.connect(old) as other:
        other.execute("LOCK TABLE embedding IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(ImportSourceError, match="is locked: another session is changing the tables"):
            PostgresSource(old, compreface())
    with psycopg.connect(old, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS stranger")
        admin.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
        admin.execute("GRANT USAGE ON SCHEMA public TO stranger")
    stranger = psycopg.conninfo.conninfo_to_dict(old)
    url = f"postgresql://stranger:stranger@/{stranger['dbname']}?host={stranger['host']}"
    with pytest.raises(ImportSourceError, match=r"permission denied for table .*Name a user who may read"):
        PostgresSource(url, compreface())


def test_nothing_is_written_to_the_other_database(old: str, subjects: CompreFace) -> None:
    with PostgresSource(old, compreface()) as source, pytest.raises(ImportSourceError, match="read-only transaction"):
        source._fetch("DELETE FROM subject RETURNING 1")
