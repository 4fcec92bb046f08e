"""What is kept of real photos: the face alone, sealed, found again by the same models; stopped work goes on."""

from __future__ import annotations

import base64
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import psycopg
import pytest

import faceward
from faceward import FaceService
from faceward.errors import DuplicateFaceError, ImageKeyError
from faceward.importers import RegionAssignment, SourceImport, SqliteSource, run_import
from faceward.photo_import import PhotoRecord
from faceward.vision import decode_image

KEYS = {name: base64.b64encode(os.urandom(32)).decode() for name in ("2025", "2026")}


@pytest.fixture
def keeping(service_config: Path) -> Iterator[FaceService]:
    images = {"store": "face", "keys": KEYS, "key": "2025"}
    with faceward.open_service(config=service_config, images=images) as service:
        yield service


def test_the_face_alone_is_kept_and_found_again(
    keeping: FaceService, service: FaceService, service_url: str, photos: dict[str, Path], client: str
) -> None:
    stored = keeping.enroll(photos["obama.jpg"], name="Barack", region="A", client_id=client)
    pixels = cv2.imread(str(photos["obama2.jpg"]))
    added = keeping.add_face(stored.person.id, pixels, client_id=client)  # type: ignore[arg-type]
    joe = PhotoRecord("A", "joe", "Joe", photos["biden.jpg"].read_bytes())
    assert keeping.import_photos([joe], client_id=client).enrolled == 1
    (face,) = keeping.detect(photos["obama.jpg"])
    (kept,) = keeping.list_faces(stored.person.id, client_id=client)[:1]
    assert kept.box is not None
    assert kept.box.as_tuple() == pytest.approx(face.box.as_tuple(), abs=0.1), "in pixels of the sent photo"
    for face_id in (*stored.face_ids, *added.face_ids):
        data, media_type = keeping.face_image(stored.person.id, face_id, client_id=client)
        assert media_type == "image/jpeg"
        assert service.verify(data, person_id=stored.person.id, client_id=client).similarity > 0.95
    assert max(decode_image(data).size) <= 1024
    with psycopg.connect(service_url) as owner:
        rows = owner.execute(
            "SELECT image_key_id, image_box IS NOT NULL, substring(image_data FOR 3) FROM face_encodings "
            "WHERE client_id = %s",
            (client,),
        ).fetchall()
    assert [row[:2] for row in rows] == [("2025", True)] * 3
    assert all(start != b"\xff\xd8\xff" for *_, start in rows)
    with pytest.raises(ImageKeyError, match="'2025'"):
        service.face_image(stored.person.id, stored.face_ids[0], client_id=client)


def test_an_imported_photo_is_bound_to_itself_and_known_again(
    keeping: FaceService, service_url: str, photos: dict[str, Path], client: str, tmp_path: Path
) -> None:
    files = [photos[name].read_bytes() for name in ("obama.jpg", "biden.jpg")]
    with closing(sqlite3.connect(tmp_path / "old.db")) as old, old:
        old.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name, embedding, image)")
        rows = ((f"P{n}", keeping.faces_to_store(file)[0].embedding.tobytes(), file) for n, file in enumerate(files))
        old.executemany("INSERT INTO people (name, embedding, image) VALUES (?, ?, ?)", rows)
    wanted = SourceImport(RegionAssignment("A"), client_id=client, same_model=True, store_images=True)
    with SqliteSource(tmp_path / "old.db") as source:
        assert run_import(wanted, source, keeping).faces.imported == 2
    first, second = keeping.list_persons(client_id=client).persons
    (face,) = keeping.list_faces(first.id, client_id=client)
    assert keeping.face_image(first.id, face.id, client_id=client)[0] == files[0]
    with pytest.raises(DuplicateFaceError, match=f"for person {first.id}") as refused:
        keeping.enroll(files[0], name="Again", region="A", client_id=client)
    assert refused.value.person_id == first.id
    with pytest.raises(DuplicateFaceError, match=f"for person {second.id}"):
        keeping.add_face(first.id, files[1], client_id=client)
    with psycopg.connect(service_url, autocommit=True) as owner:
        owner.execute(
            "UPDATE face_encodings f SET image_data = o.image_data FROM face_encodings o "
            "WHERE f.client_id = %s AND o.client_id = f.client_id AND f.person_id = %s AND o.person_id = %s",
            (client, first.id, second.id),
        )
    with pytest.raises(ImageKeyError):
        keeping.face_image(first.id, face.id, client_id=client)


def test_a_rotation_that_is_killed_goes_on_where_it_was(
    database_url: str, tmp_path: Path, photos: dict[str, Path]
) -> None:
    config = tmp_path / "config.json"

    def write(current: str) -> None:
        images = {"store": "original", "keys": KEYS, "key": current}
        config.write_text(json.dumps({"database": {"url": database_url, "pool_size": 2}, "images": images}))

    def under(key_id: str) -> int:
        with psycopg.connect(database_url) as owner:
            row = owner.execute("SELECT count(*) FROM face_encodings WHERE image_key_id = %s", (key_id,)).fetchone()
        assert row is not None
        return int(row[0])

    write("2025")
    with faceward.open_service(config=config) as service:
        person = service.enroll(photos["obama.jpg"], name="Barack", region="A").person
    with psycopg.connect(database_url) as owner:  # the same sealed photo, by whose digest it opens, many times
        owner.execute(
            "INSERT INTO face_encodings (client_id, person_id, region, model_id, embedding, image_data, image_key_id, "
            "image_sha256, face_bbox) SELECT client_id, person_id, region, model_id, embedding, image_data, image_key_id, "
            "image_sha256, n || ',0,1,1' FROM face_encodings, generate_series(1, 400) n"
        )
    write("2026")
    command = [
        sys.executable,
        "-c",
        "from faceward.cli import main; main()",
        "--config",
        str(config),
        "photos",
        "rotate",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not under("2026") and process.poll() is None:
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    some = under("2026")
    assert some + under("2025") == 401
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["changed"] <= 401 - some
    assert under("2026") == 401
    images = {"store": "original", "keys": {"2026": KEYS["2026"]}, "key": "2026"}
    with faceward.open_service(config=config, images=images) as service:
        for face in service.list_faces(person.id)[::100]:
            data, _ = service.face_image(person.id, face.id)
            assert data == photos["obama.jpg"].read_bytes()
