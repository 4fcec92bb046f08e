"""Who is enrolled a second time under another record is named, or refused, and the same call gets the same answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import faceward
from faceward import FaceService
from faceward.errors import LikelyDuplicateError
from faceward.types import RequestToken


@pytest.fixture(scope="module")
def refusing(service_config: Path) -> Iterator[FaceService]:
    with faceward.open_service(config=service_config, enroll={"duplicates": "refuse"}) as service:
        yield service


def test_a_second_record_of_a_person_is_reported(service: FaceService, photos: dict[str, Path], client: str) -> None:
    first = service.enroll(photos["obama.jpg"], name="Barack", region="A", external_id="44", client_id=client)
    assert first.likely_duplicates == ()
    assert service.enroll(photos["biden.jpg"], name="Joe", region="A", client_id=client).likely_duplicates == ()
    both = [photos["obama2.jpg"], photos["obama3.jpg"]]
    assert service.enroll(both, name="B. Obama", region="B", client_id=client).likely_duplicates == ()
    again = service.enroll(both, name="B. Obama", region="A", client_id=client)
    (found,) = again.likely_duplicates
    assert (found.person_id, found.face_id, found.external_id) == (first.person.id, *first.face_ids, "44")
    nearest = max(service.verify(photo, person_id=first.person.id, client_id=client).similarity for photo in both)
    assert found.similarity == pytest.approx(nearest, abs=1e-5)


def test_only_at_the_region_s_threshold(service: FaceService, photos: dict[str, Path], client: str) -> None:
    service.create_region("A", threshold=0.99, client_id=client)
    service.enroll(photos["obama.jpg"], name="Barack", region="A", client_id=client)
    assert service.enroll(photos["obama2.jpg"], name="B", region="A", client_id=client).likely_duplicates == ()
    service.update_region("A", threshold=-1.0, client_id=client)
    found = service.enroll(photos["biden.jpg"], name="Joe", region="A", client_id=client).likely_duplicates
    assert [each.name for each in found] in (["Barack", "B"], ["B", "Barack"])
    assert found[0].similarity >= found[1].similarity


def test_a_photo_that_is_nearer_to_another_person_is_reported(
    service: FaceService, photos: dict[str, Path], client: str
) -> None:
    barack = service.enroll(photos["obama.jpg"], name="Barack", region="A", client_id=client).person
    joe = service.enroll(photos["biden.jpg"], name="Joe", region="A", client_id=client).person
    (found,) = service.add_face(joe.id, photos["obama2.jpg"], client_id=client).likely_duplicates
    assert found.person_id == barack.id
    assert service.add_face(barack.id, photos["obama3.jpg"], client_id=client).person.face_count == 2


def test_photos_of_the_person_itself_are_no_duplicate(
    service: FaceService, photos: dict[str, Path], client: str
) -> None:
    barack = service.enroll(photos["obama.jpg"], name="Barack", region="A", client_id=client).person
    assert service.add_face(barack.id, photos["obama2.jpg"], client_id=client).likely_duplicates == ()


def test_a_likely_duplicate_is_refused_by_setting_and_allowed_by_request(
    refusing: FaceService, photos: dict[str, Path], client: str
) -> None:
    barack = refusing.enroll(photos["obama.jpg"], name="Barack", region="A", client_id=client).person
    joe = refusing.enroll(photos["biden.jpg"], name="Joe", region="A", client_id=client).person
    for attempt in (
        lambda: refusing.enroll(photos["obama2.jpg"], name="B. Obama", region="A", client_id=client),
        lambda: refusing.add_face(joe.id, photos["obama2.jpg"], client_id=client),
    ):
        with pytest.raises(
            LikelyDuplicateError, match=rf"person {barack.id} at 0\.\d{{3}}\. Nothing was stored"
        ) as caught:
            attempt()
        assert "Barack" not in str(caught.value), "an error names nobody"
        (named,) = caught.value.likely_duplicates
        assert named["person_id"] == barack.id
    assert [each.face_count for each in refusing.list_persons(client_id=client).persons] == [1, 1]
    photo = photos["obama2.jpg"]
    allowed = refusing.enroll(photo, name="B. Obama", region="A", client_id=client, allow_duplicate=True)
    assert [each.person_id for each in allowed.likely_duplicates] == [barack.id]


def test_who_is_suspended_is_not_let_in_again_under_another_record(
    refusing: FaceService, photos: dict[str, Path], client: str
) -> None:
    barred = refusing.enroll(photos["obama.jpg"], name="Barred", region="A", client_id=client).person
    joe = refusing.enroll(photos["biden.jpg"], name="Joe", region="A", client_id=client).person
    refusing.update_person(barred.id, state="suspended", client_id=client)
    with pytest.raises(LikelyDuplicateError, match=f"person {barred.id} at"):
        refusing.enroll(photos["obama2.jpg"], name="Somebody", region="A", client_id=client)
    with pytest.raises(LikelyDuplicateError, match=f"person {barred.id} at"):
        refusing.add_face(joe.id, photos["obama2.jpg"], client_id=client)
    assert refusing.add_face(barred.id, photos["obama2.jpg"], client_id=client).likely_duplicates == ()
    assert refusing.enroll(photos["obama3.jpg"], name="B", region="B", client_id=client).likely_duplicates == ()


def test_it_can_be_turned_off(service_config: Path, photos: dict[str, Path], client: str) -> None:
    with faceward.open_service(config=service_config, enroll={"duplicates": "off"}) as service:
        for photo in ("obama.jpg", "obama2.jpg"):
            stored = service.enroll(photos[photo], name="Barack", region="A", client_id=client)
            assert stored.likely_duplicates == ()


@pytest.mark.parametrize("mode", ["service", "refusing"])
def test_a_repeated_call_gets_the_same_answer(
    request: pytest.FixtureRequest, mode: str, photos: dict[str, Path], client: str
) -> None:
    """Also where the gallery has grown: the person it stored itself, and whoever came later, are no news."""
    service: FaceService = request.getfixturevalue(mode)
    barack = service.enroll(photos["obama.jpg"], name="Barack", region="A", client_id=client).person
    token, added = RequestToken(1, "enroll", b"1"), RequestToken(1, "add", b"2")

    def enroll() -> faceward.Enrollment:
        return service.enroll(
            photos["obama2.jpg"], name="B", region="A", client_id=client, allow_duplicate=True, request=token
        )

    first = enroll()
    assert [each.person_id for each in first.likely_duplicates] == [barack.id]
    joe = service.enroll(photos["biden.jpg"], name="Joe", region="A", client_id=client).person

    def add() -> faceward.Enrollment:
        return service.add_face(joe.id, photos["obama3.jpg"], client_id=client, allow_duplicate=True, request=added)

    second = add()
    assert {each.person_id for each in second.likely_duplicates} == {barack.id, first.person.id}
    assert enroll() == first
    assert add() == second
    service.merge_persons(first.person.id, barack.id, client_id=client)
    assert enroll().likely_duplicates == (), "what was near is the person's own now"
    assert [each.person_id for each in add().likely_duplicates] == [barack.id]
    service.delete_person(barack.id, client_id=client)
    assert add().likely_duplicates == ()


def test_of_twins_that_come_at_once_none_is_refused_for_the_other(
    refusing: FaceService, photos: dict[str, Path], client: str
) -> None:
    token, start = RequestToken(1, "enroll", b"1"), threading.Barrier(4)

    def enroll(_: int) -> faceward.Enrollment:
        start.wait()
        return refusing.enroll(photos["obama.jpg"], name="Barack", region="A", client_id=client, request=token)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(enroll, range(4)))
    assert answers == [answers[0]] * 4
    assert answers[0].likely_duplicates == ()
