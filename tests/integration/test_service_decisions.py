"""Thresholds, decisions, regions and stored photos, with real photos through the whole service."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import faceward
from faceward import FaceService
from faceward.errors import (
    InvalidValueError,
    NotFoundError,
    RequestReusedError,
    UnknownPersonError,
    UnknownRegionError,
)
from faceward.store.database import Database
from faceward.store.regions import RegionStore
from faceward.types import Embedding, FaceMatch, RequestToken, Threshold
from rows import count_rows
from synthetic import unit


def one_face(
    service: FaceService, photo: Path, client: str, *regions: str, threshold: float | None = None
) -> FaceMatch:
    (face,) = service.recognize(photo, region=regions, client_id=client, threshold=threshold, top_k=1).faces
    return face


def test_the_answer_says_which_threshold_decided(service: FaceService, photos: dict[str, Path], client: str) -> None:
    service.create_region("A", client_id=client)
    service.enroll(photos["obama.jpg"], name="Barack", region="A", client_id=client)
    probe = photos["obama2.jpg"]
    of_pack = one_face(service, probe, client, "A")
    assert (of_pack.decision, of_pack.threshold.source) == ("match", "pack")
    similarity = of_pack.candidates[0].similarity
    service.update_region("A", threshold=1.0, client_id=client)
    of_region = one_face(service, probe, client, "A")
    assert (of_region.decision, of_region.match) == ("unknown", None)
    assert of_region.threshold == Threshold(1.0, "region")
    assert "below the threshold 1 of the region" in of_region.reason
    assert service.recognize(probe, region="A", client_id=client).threshold == 1.0
    of_request = one_face(service, probe, client, "A", threshold=similarity)
    assert (of_request.decision, of_request.threshold) == ("match", Threshold(similarity, "request"))
    person = of_pack.candidates[0].person_id
    assert service.verify(probe, person_id=person, client_id=client).decided_by == Threshold(1.0, "region")
    assert not service.verify(probe, person_id=person, client_id=client).verified
    assert service.verify(probe, photos["obama.jpg"], client_id=client).decided_by.source == "pack"
    embedding = service.detect(probe)[0].embedding
    assert service.search(embedding, region="A", client_id=client) == ()
    assert len(service.search(embedding, region="A", client_id=client, threshold=0.0)) == 1


def test_whom_a_high_threshold_shuts_out_takes_nobodys_place(
    service: FaceService, photos: dict[str, Path], client: str
) -> None:
    """Eight who are nearer, in a region where they are not near enough."""
    (probe,) = service.detect(photos["obama.jpg"])
    people = [
        faceward.PersonRecord(str(n), "HQ", f"stranger {n}", [beside(probe.embedding, 0.44, n)]) for n in range(8)
    ]
    people.append(faceward.PersonRecord("y", "Branch", "Yvonne", [beside(probe.embedding, 0.42, 8)]))
    service.import_embeddings(people, client_id=client)
    service.update_region("HQ", client_id=client, threshold=0.5)
    service.update_region("Branch", client_id=client, threshold=0.35)
    both = ["HQ", "Branch"]
    (found,) = service.search(probe.embedding, region=both, client_id=client, top_k=1)
    assert (found.name, found.region) == ("Yvonne", "Branch")
    face = one_face(service, photos["obama.jpg"], client, *both)
    assert (face.decision, face.threshold.value) == ("ambiguous", 0.35), "others are nearer"
    assert face.match is not None
    assert face.match.name == "Yvonne"
    assert face.candidates[0].region == "HQ", "the nearest persons are named all the same"
    near = service.search(probe.embedding, region=both, client_id=client, threshold=0.35, top_k=9)
    assert [candidate.similarity for candidate in near] == pytest.approx([0.44] * 8 + [0.42], abs=1e-5)
    with pytest.raises(UnknownRegionError):
        service.search(probe.embedding, region=[*both, "nowhere"], client_id=client)


def beside(embedding: Embedding, similarity: float, seed: int) -> Embedding:
    """A unit embedding at that similarity."""
    other = unit(seed) - (unit(seed) @ embedding) * embedding
    return similarity * embedding + np.float32((1 - similarity**2) ** 0.5) * other / np.linalg.norm(other)


def test_two_who_look_alike_are_ambiguous_and_one_in_two_regions_is_not(
    service: FaceService, photos: dict[str, Path], client: str
) -> None:
    def enroll(region: str, external_id: str | None) -> int:
        photo = photos["obama.jpg"]
        return service.enroll(photo, name="Barack", region=region, client_id=client, external_id=external_id).person.id

    first = enroll("A", "E-1")
    assert one_face(service, photos["obama2.jpg"], client, "A").decision == "match"
    enroll("B", "E-1")
    assert one_face(service, photos["obama2.jpg"], client, "A", "B").decision == "match"
    third = enroll("C", "E-3")
    face = one_face(service, photos["obama2.jpg"], client, "A", "B", "C")
    assert face.decision == "ambiguous"
    assert face.match is not None
    assert face.rival is not None
    assert (face.match.person_id, face.rival.person_id) == (first, third)


def test_detection_asks_nobody_who_it_is(service: FaceService, photos: dict[str, Path]) -> None:
    (face,) = service.detect(photos["obama.jpg"])
    assert face.box.width > 50
    assert len(service.detect(photos["obama2.jpg"], max_faces=1)) == 1


def test_a_photo_that_was_kept_comes_back_as_it_was_sent(
    service_config: Path, photos: dict[str, Path], client: str
) -> None:
    with faceward.open_service(config=service_config, images={"store": "original"}) as keeping:
        stored = keeping.enroll(photos["obama.jpg"], name="Barack", region="A", client_id=client)
        (face,) = stored.face_ids
        image, media_type = keeping.face_image(stored.person.id, face, client_id=client)
        assert (image, media_type) == (photos["obama.jpg"].read_bytes(), "image/jpeg")
        astronaut = keeping.add_face(stored.person.id, photos["astronaut.png"], client_id=client)
        assert keeping.face_image(stored.person.id, astronaut.face_ids[0], client_id=client)[1] == "image/png"
        with pytest.raises(NotFoundError, match=rf"no photo of face {face + 1000}"):
            keeping.face_image(stored.person.id, face + 1000, client_id=client)
        with pytest.raises(UnknownPersonError):
            keeping.face_image(stored.person.id, face, client_id="another client")


def test_a_photo_that_was_not_kept_is_said_so(service: FaceService, photos: dict[str, Path], client: str) -> None:
    stored = service.enroll(photos["obama.jpg"], name="Barack", region="A", client_id=client)
    with pytest.raises(NotFoundError, match=r"no photo of face .*images\.store"):
        service.face_image(stored.person.id, stored.face_ids[0], client_id=client)


def test_a_repeated_enrolment_answers_without_looking_at_its_photos(
    service: FaceService, service_url: str, photos: dict[str, Path], client: str
) -> None:
    def enroll(photo: object, fingerprint: bytes = b"1") -> faceward.Enrollment:
        request = RequestToken(1, "enroll", fingerprint)
        return service.enroll(photo, name="Barack", region="A", client_id=client, request=request)  # type: ignore[arg-type]

    first = enroll(photos["obama.jpg"])
    before = count_rows(service_url)
    assert enroll(photos["obama.jpg"]) == first
    assert enroll(b"lost on its way") == first
    with pytest.raises(RequestReusedError):
        enroll(photos["obama.jpg"], b"2")
    with pytest.raises(InvalidValueError, match="idempotency key = ''"):
        service.add_face(first.person.id, b"", client_id=client, request=RequestToken(1, "", b""))
    assert count_rows(service_url) == before
    more = RequestToken(1, "add", b"1")
    added = service.add_face(first.person.id, photos["obama2.jpg"], client_id=client, request=more)
    assert service.add_face(first.person.id, photos["obama2.jpg"], client_id=client, request=more) == added


def test_a_renamed_region_is_searched_under_its_new_name(
    service: FaceService, photos: dict[str, Path], client: str
) -> None:
    service.enroll(photos["obama.jpg"], name="Barack", region="A", client_id=client)
    assert service.warm("A", client_id=client)
    assert service.rename_region("A", "B", client_id=client).faces == 1
    face = one_face(service, photos["obama2.jpg"], client, "B")
    assert face.match is not None
    assert face.match.region == "B"
    with pytest.raises(UnknownRegionError, match=r"Regions that do: B\."):
        service.recognize(photos["obama2.jpg"], region="A", client_id=client)
    service.delete_person(face.match.person_id, client_id=client)
    service.delete_region("B", client_id=client)
    assert service.list_regions(client_id=client).regions == ()
    with pytest.raises(UnknownRegionError):
        service.get_region("B", client_id=client)


def test_a_region_keeps_its_threshold_whatever_another_process_names_it(
    service: FaceService, service_url: str, photos: dict[str, Path], client: str
) -> None:
    """What this process remembers by the names of before decides nothing."""
    service.create_region("A", client_id=client, threshold=0.1)
    service.create_region("B", client_id=client, threshold=1.0)
    person = service.enroll(photos["obama.jpg"], name="Barack", region="B", client_id=client).person.id
    probe = photos["obama2.jpg"]
    (embedding,) = (face.embedding for face in service.detect(probe))

    def decides(region: str) -> Threshold:
        face = one_face(service, probe, client, region)
        verified = service.verify(probe, person_id=person, client_id=client)
        found = service.search(embedding, region=region, client_id=client)
        known = face.decision == "match"
        assert (verified.verified, verified.decided_by, bool(found)) == (known, face.threshold, known)
        return face.threshold

    with Database(service_url) as other:
        regions = RegionStore(other)
        own = Threshold(1.0, "region")
        assert decides("B") == own
        regions.update(client, "B", new_name="Vault")
        assert decides("Vault") == own
        regions.update(client, "A", new_name="C")
        regions.update(client, "Vault", new_name="A")
        assert decides("A") == own, "not that of another region of this name"
        regions.update(client, "A", threshold=None)
        assert decides("A").source == "pack"
        regions.update(client, "A", threshold=0.9)
        assert decides("A") == Threshold(0.9, "region")
        assert one_face(service, probe, client, "A", threshold=0.2).threshold == Threshold(0.2, "request")


def test_persons_of_one_region_or_of_several(service: FaceService, client: str) -> None:
    with pytest.raises(InvalidValueError, match="regions = "):
        service.list_persons(region="A", regions=["A", "B"], client_id=client)
    assert service.list_persons(regions=["A", "B"], client_id=client).persons == ()
