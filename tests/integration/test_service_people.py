"""Real photos through the whole service: enrolled, found where they should be and nowhere else, moved, changed, deleted."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import psycopg
import pytest

from faceward import FaceService
from faceward.errors import (
    DatabaseUnavailableError,
    DuplicateFaceError,
    NoFaceError,
    NotFoundError,
    UnknownPersonError,
    UnknownRegionError,
)
from rows import count_rows

ENROLL = """
import sys
import faceward
config, photo, name, client = sys.argv[1:]
with faceward.open_service(config=config) as service:
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        print("stored", service.enroll(photo, name=name, region="A", client_id=client).person.id)
    except faceward.FacewardError as exc:
        print(type(exc).__name__, exc.person_id)
"""


def names(service: FaceService, photo: object, region: str, client: str) -> list[str | None]:
    found = service.recognize(photo, region=region, client_id=client)  # type: ignore[arg-type]
    return [face.match.name if face.match else None for face in found.faces]


def test_people_are_found_in_their_region_by_their_client_only(
    service: FaceService, photos: dict[str, Path], client: str
) -> None:
    other = client[:90] + " other"
    service.enroll(photos["obama.jpg"], name="Barack", region="A", client_id=client)
    service.enroll(photos["biden.jpg"], name="Joe", region="B", client_id=client)
    service.enroll(photos["astronaut.png"], name="Eileen", region="A", client_id=other)
    for photo in ("obama2.jpg", "obama3.jpg"):
        assert names(service, photos[photo], "A", client) == ["Barack"]
        assert names(service, photos[photo], "B", client) == [None]
        assert names(service, photos[photo], "A", other) == [None]
    found = service.recognize(photos["obama2.jpg"], region=("A", "B"), client_id=client, top_k=2)
    (face,) = found.faces
    assert [candidate.name for candidate in face.candidates] == ["Barack", "Joe"]
    assert [candidate.region for candidate in face.candidates] == ["A", "B"]
    assert face.match == face.candidates[0]
    assert found.regions == ("A", "B")


def test_a_photo_comes_as_path_text_bytes_file_or_array(
    service: FaceService, photos: dict[str, Path], client: str
) -> None:
    path = photos["obama.jpg"]
    service.enroll(path, name="Barack", region="A", client_id=client)
    encoded = photos["obama2.jpg"].read_bytes()
    array = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    bgra, grey = cv2.cvtColor(array, cv2.COLOR_BGR2BGRA), cv2.cvtColor(array, cv2.COLOR_BGR2GRAY)
    for photo in (str(photos["obama2.jpg"]), encoded, bytearray(encoded), io.BytesIO(encoded), array, bgra, grey):
        assert names(service, photo, "A", client) == ["Barack"]


def test_each_strategy_names_the_same_person(service: FaceService, photos: dict[str, Path], client: str) -> None:
    service.enroll(photos["obama.jpg"], name="Barack", region="A", client_id=client)
    service.enroll(photos["biden.jpg"], name="Joe", region="A", client_id=client)
    assert service.warm("A", client_id=client)
    answers = [
        service.recognize(photos["obama3.jpg"], region="A", client_id=client, strategy=strategy).faces[0].candidates
        for strategy in ("auto", "exact", "sketch", "hnsw")
    ]
    assert [candidate.name for candidate in answers[0]] == ["Barack", "Joe"]
    assert all(answer == answers[0] for answer in answers)


def test_an_embedding_finds_the_same_people_as_its_photo(
    service: FaceService, photos: dict[str, Path], client: str
) -> None:
    service.enroll(photos["obama.jpg"], name="Barack", region="A", client_id=client)
    (face,) = service.recognize(photos["obama2.jpg"], region="A", client_id=client).faces
    embedding = face.face.embedding
    for probe in (embedding, 7 * embedding, embedding.tolist()):
        (found,) = service.search(probe, region="A", client_id=client)
        assert found.name == "Barack"
        assert found.similarity == pytest.approx(face.candidates[0].similarity, abs=1e-6)
    assert service.search(-embedding, region="A", client_id=client) == ()


def test_verification_compares_photos_and_persons(service: FaceService, photos: dict[str, Path], client: str) -> None:
    same = service.verify(photos["obama.jpg"], photos["obama2.jpg"])
    other = service.verify(photos["obama.jpg"], photos["biden.jpg"])
    assert same.verified
    assert not other.verified
    assert same.similarity > same.threshold == other.threshold > other.similarity
    assert service.verify(photos["obama.jpg"], photos["biden.jpg"], threshold=-1).verified
    stored = service.enroll([photos["obama.jpg"], photos["obama3.jpg"]], name="Barack", region="A", client_id=client)
    person_id = stored.person.id
    again = service.verify(photos["obama3.jpg"], person_id=person_id, client_id=client)
    assert again.similarity == pytest.approx(1.0, abs=1e-5)
    assert again.face_id == stored.face_ids[1]
    assert not service.verify(photos["biden.jpg"], person_id=person_id, client_id=client).verified
    with pytest.raises(UnknownPersonError):
        service.verify(photos["obama.jpg"], person_id=person_id, client_id="somebody else")
    for face in stored.face_ids:
        service.delete_face(person_id, face, client_id=client)
    with pytest.raises(NotFoundError, match="no stored face"):
        service.verify(photos["obama.jpg"], person_id=person_id, client_id=client)


def test_a_person_from_first_to_last_day(service: FaceService, photos: dict[str, Path], client: str) -> None:
    enrolled = service.enroll(
        photos["obama.jpg"], name="Barack", region="A", client_id=client, description="Office\nA", external_id="44"
    )
    person = enrolled.person
    assert (person.name, person.region, person.face_count) == ("Barack", "A", 1)
    assert 0.3 <= enrolled.quality[0].score <= 1
    added = service.add_face(person.id, [photos["obama2.jpg"], photos["obama3.jpg"]], client_id=client)
    assert added.person.face_count == 3
    assert len({*enrolled.face_ids, *added.face_ids}) == 3
    faces = service.list_faces(person.id, client_id=client)
    assert [face.id for face in faces] == [*enrolled.face_ids, *added.face_ids]
    assert faces[0].image_path == str(photos["obama.jpg"])
    assert not faces[0].has_image
    assert service.person_of_photo(photos["obama2.jpg"].read_bytes(), region="A", client_id=client) == person.id

    changed = service.update_person(person.id, name="B. Obama", description=None, client_id=client)
    assert (changed.name, changed.description, changed.external_id) == ("B. Obama", None, "44")
    assert names(service, photos["obama2.jpg"], "A", client) == ["B. Obama"]

    assert service.move_region(person.id, "B", client_id=client).region == "B"
    assert names(service, photos["obama2.jpg"], "A", client) == [None]
    assert names(service, photos["obama2.jpg"], "B", client) == ["B. Obama"]
    regions = service.list_regions(client_id=client).regions
    assert [(r.name, r.persons, r.faces) for r in regions] == [("A", 0, 0), ("B", 1, 3)]

    service.delete_face(person.id, faces[0].id, client_id=client)
    with pytest.raises(NotFoundError, match=f"no face {faces[0].id}"):
        service.delete_face(person.id, faces[0].id, client_id=client)
    assert service.delete_person(person.id, client_id=client) == 2
    assert names(service, photos["obama2.jpg"], "B", client) == [None]
    with pytest.raises(UnknownPersonError, match=f"Person {person.id} does not exist"):
        service.get_person(person.id, client_id=client)


def test_pages_of_people(service: FaceService, photos: dict[str, Path], client: str) -> None:
    ids = [
        service.enroll(photos[photo], name=name, region=region, client_id=client).person.id
        for photo, name, region in (
            ("obama.jpg", "Barack", "A"),
            ("biden.jpg", "Joe", "A"),
            ("obama2.jpg", "Barack", "B"),
        )
    ]
    first = service.list_persons(client_id=client, limit=2)
    assert [person.id for person in first.persons] == ids[:2]
    assert first.next_after is not None
    second = service.list_persons(client_id=client, limit=2, after=first.next_after)
    assert ([person.id for person in second.persons], second.next_after) == (ids[2:], None)
    assert [p.id for p in service.list_persons(client_id=client, region="B").persons] == ids[2:]
    assert [p.id for p in service.list_persons(client_id=client, name_prefix="Bar").persons] == [ids[0], ids[2]]
    assert service.list_persons(client_id=client, external_id="44").persons == ()


def test_nothing_of_a_failed_enrolment_stays(
    service: FaceService, service_url: str, photos: dict[str, Path], client: str
) -> None:
    nobody = np.full((300, 300, 3), 90, np.uint8)
    before = count_rows(service_url)
    with pytest.raises(NoFaceError):
        service.enroll([photos["obama.jpg"], photos["obama2.jpg"], nobody], name="B", region="A", client_id=client)
    with pytest.raises(DuplicateFaceError, match="sent twice"):
        service.enroll([photos["obama.jpg"], photos["obama.jpg"]], name="B", region="A", client_id=client)
    assert count_rows(service_url) == before
    person = service.enroll(photos["obama.jpg"], name="Barack", region="A", client_id=client).person
    before = count_rows(service_url)
    with pytest.raises(DuplicateFaceError, match=f"for person {person.id}"):
        service.enroll([photos["obama2.jpg"], photos["obama.jpg"]], name="B", region="A", client_id=client)
    with pytest.raises(DuplicateFaceError):
        service.add_face(person.id, [photos["obama2.jpg"], photos["obama.jpg"]], client_id=client)
    assert count_rows(service_url) == before


def test_of_two_processes_that_enroll_the_same_photo_one_wins(
    service: FaceService, service_config: Path, photos: dict[str, Path], client: str
) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ENROLL, str(service_config), str(photos["obama.jpg"]), name, client],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        for name in ("one", "two")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = sorted(process.communicate(timeout=60)[0].split() for process in processes)
    (person,) = service.list_persons(client_id=client).persons
    assert answers == [["DuplicateFaceError", str(person.id)], ["stored", str(person.id)]]
    assert person.face_count == 1


def test_threads_share_a_service_without_mixing_their_answers(
    service: FaceService, photos: dict[str, Path], client: str
) -> None:
    people = {"obama.jpg": "Barack", "biden.jpg": "Joe", "astronaut.png": "Eileen"}
    for photo, name in people.items():
        service.enroll(photos[photo], name=name, region=name, client_id=client)
    asked = [(photo, region) for photo in people for region in people.values()] * 3
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda item: names(service, photos[item[0]], item[1], client), asked))
    assert found == [[region if people[photo] == region else None] for photo, region in asked]


def test_a_database_that_was_away_is_an_error_once(
    service: FaceService, service_url: str, photos: dict[str, Path], client: str
) -> None:
    service.enroll(photos["obama.jpg"], name="Barack", region="A", client_id=client)
    with psycopg.connect(service_url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = 'faceward' AND datname = current_database()"
        )
    with pytest.raises(DatabaseUnavailableError, match="faceward doctor"):
        names(service, photos["obama2.jpg"], "A", client)
    assert names(service, photos["obama2.jpg"], "A", client) == ["Barack"]


def test_a_region_that_does_not_exist_is_an_error_that_lists_those_that_do(
    service: FaceService, photos: dict[str, Path], client: str
) -> None:
    nobody = np.full((300, 300, 3), 90, np.uint8)
    with pytest.raises(UnknownRegionError, match=r"'A' does not exist.*none yet"):
        names(service, photos["obama.jpg"], "A", client)
    service.enroll(photos["obama.jpg"], name="Barack", region="A", client_id=client)
    for photo in (photos["obama.jpg"], nobody):
        for region in ("a", "A2", ("A", "elsewhere")):
            with pytest.raises(UnknownRegionError, match=r"Regions that do: A\.") as caught:
                service.recognize(photo, region=region, client_id=client)
            assert caught.value.known == ("A",)
    assert names(service, nobody, "A", client) == []
