"""Photos imported as a stream: who gets them, who keeps them, and nothing lost or doubled when others write meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import psycopg
import pytest

from faceward.errors import InvalidValueError
from faceward.photo_import import PhotoRecord, PhotoReport, PhotoResult
from faceward.service import FaceService

Photo = Callable[[int], bytes]


@pytest.fixture(scope="session")
def photo(photos: dict[str, Path]) -> Photo:
    """The same face in files of other bytes."""
    large = cv2.imread(str(photos["obama.jpg"]))
    assert large is not None
    small = cv2.resize(large, None, fx=0.25, fy=0.25)

    def make(number: int) -> bytes:
        image = small.copy()
        image[-1] = number
        return cv2.imencode(".bmp", image)[1].tobytes()

    return make


def run(
    service: FaceService, client: str, records: Iterator[PhotoRecord] | list[PhotoRecord], workers: int = 2
) -> tuple[PhotoReport, list[PhotoResult]]:
    results: list[PhotoResult] = []
    report = service.import_photos(records, client_id=client, workers=workers, on_result=results.append)
    assert report.read == len(results) == report.enrolled + report.skipped + report.refused
    return report, results


def faces(service: FaceService, client: str) -> dict[tuple[str, str | None], int]:
    page = service.list_persons(client_id=client, limit=1000)
    return {(person.region, person.external_id): person.face_count for person in page.persons}


def test_each_photo_gets_what_is_due_to_it(service: FaceService, client: str, photo: Photo) -> None:
    first, second, third = (photo(number) for number in (1, 2, 3))
    records = [
        PhotoRecord("A", "ann", "Ann", first, "of the office"),
        PhotoRecord("A", "ann", "Ann", second),
        PhotoRecord("A", "ann", "Ann", first),  # twice
        PhotoRecord("A", "ben", "Ben", second),  # another's, in the same batch
        PhotoRecord("B", "ben", "Ben", second),  # in another region
        PhotoRecord("A", "eve", "Eve", b"no image"),
        PhotoRecord("A", "eve", "", third),
        PhotoRecord("", "eve", "Eve", third),
        PhotoRecord("A", "e\0", "Eve", third),
        PhotoRecord("A", "eve", "Eve", third, "a\0"),
    ]
    report, results = run(service, client, records)
    assert [result.record for result in results] == records
    assert report == PhotoReport(10, 3, 1, 6)
    assert [result.code for result in results] == [
        "", "", "", "duplicate_face", "", "not_an_image", "invalid_value", "invalid_value", "invalid_value", "invalid_value",
    ]  # fmt: skip
    ann = results[0].person_id
    assert ann is not None
    assert [result.person_id for result in results[:4]] == [ann] * 4
    assert results[3].reason == f"This photo is enrolled in region 'A' already, for person {ann}. Nothing was stored."
    assert faces(service, client) == {("A", "ann"): 2, ("B", "ben"): 1}
    assert [face.id for face in service.list_faces(ann, client_id=client)] == [results[0].face_id, results[1].face_id]
    stored = service.get_person(ann, client_id=client)
    assert (stored.name, stored.description) == ("Ann", "of the office")
    assert [result.new_person for result in results[:5]] == [True, True, False, False, True]
    more = [PhotoRecord("A", "ann", "Anne", third), PhotoRecord("A", "ann", "Ann", photo(4))]
    report, results = run(service, client, [*records, *more])
    assert report == PhotoReport(12, 1, 4, 7)
    assert (results[-2].code, results[-2].person_id) == ("other_person", ann)
    assert f"the external id ann is that of person {ann}, who was never called 'Anne'" in results[-2].reason
    assert (results[-1].status, results[-1].person_id, results[-1].new_person) == ("enrolled", ann, False)
    service.update_person(ann, client_id=client, name="Anne")
    assert [each.status for each in run(service, client, more)[1]] == ["enrolled", "skipped"]
    service.update_person(ann, client_id=client, name="Ann")
    assert service.get_person(ann, client_id=client).name == "Ann"
    recognition = service.recognize(first, region="A", client_id=client)
    assert [match.match.name if match.match else None for match in recognition.faces] == ["Ann"]


def test_nothing_of_a_stream_is_read_far_ahead(service: FaceService, client: str) -> None:
    read = done = ahead = 0

    def records() -> Iterator[PhotoRecord]:
        nonlocal read
        for number in range(3_000):
            read += 1
            yield PhotoRecord("A", str(number), "N", b"no image")

    def count(_: PhotoResult) -> None:
        nonlocal done, ahead
        ahead = max(ahead, read - done)
        done += 1

    report = service.import_photos(records(), client_id=client, workers=2, on_result=count)
    assert report == PhotoReport(3_000, 0, 0, 3_000)
    assert 128 <= ahead <= 3 * 128
    assert service.list_regions(client_id=client).regions == ()


def test_large_photos_make_small_batches(service: FaceService, client: str) -> None:
    read: list[int] = []

    def records() -> Iterator[PhotoRecord]:
        for number in range(12):
            read.append(number)
            yield PhotoRecord("A", str(number), "N", bytes([number]) * (20 << 20))

    ahead: list[int] = []
    service.import_photos(records(), client_id=client, on_result=lambda _: ahead.append(len(read)))
    assert ahead[0] == 6


def test_what_a_stream_raises_ends_the_import_and_what_is_done_stays(
    service: FaceService, client: str, photo: Photo
) -> None:
    def until(stop: int) -> Iterator[PhotoRecord]:
        for number in range(60):
            if number == stop:
                raise OSError("the disk with the photos is gone")
            yield PhotoRecord("A", "ann", "Ann", photo(number))

    with pytest.raises(OSError, match="the disk"):
        run(service, client, until(57))
    assert faces(service, client) == {("A", "ann"): 8}
    report, _ = run(service, client, until(99))
    assert (report.enrolled, report.skipped) == (52, 8)
    assert faces(service, client) == {("A", "ann"): 60}
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("faceward-photos")]


def test_photos_that_others_enroll_meanwhile_do_not_cost_the_rest_of_their_batch(
    service: FaceService, client: str, photo: Photo
) -> None:
    def records() -> Iterator[PhotoRecord]:
        for number in range(30):
            if number == 24:  # the first batch of eight is looked up and not written yet
                service.enroll(photo(3), name="Ben", external_id="ben", region="A", client_id=client)
                service.enroll(photo(5), name="Five", external_id="5", region="A", client_id=client)
            yield PhotoRecord("A", str(number), f"P {number}", photo(number))

    report, results = run(service, client, records())
    assert (report.enrolled, report.skipped, report.refused) == (28, 1, 1)
    assert [result.status for result in results[:8]] == ["enrolled"] * 3 + ["refused", "enrolled", "skipped"] + [
        "enrolled"
    ] * 2
    assert results[3].code == "duplicate_face"
    expected = {("A", str(number)): 1 for number in range(30) if number != 3}
    assert faces(service, client) == {**expected, ("A", "ben"): 1}, "and nobody without a photo"


def test_a_person_deleted_while_a_batch_is_written_is_made_again(
    service: FaceService, service_url: str, client: str, photo: Photo
) -> None:
    run(service, client, [PhotoRecord("A", "ann", "Ann", photo(0))])
    records = [PhotoRecord("A", who, who, photo(number)) for number, who in enumerate(("ann", "ben", "ann", "eve"), 1)]
    reports: list[PhotoReport] = []
    importing = threading.Thread(target=lambda: reports.append(run(service, client, records)[0]))
    with psycopg.connect(service_url) as other:
        other.execute("DELETE FROM persons WHERE client_id = %s", (client,))
        importing.start()
        with psycopg.connect(service_url, autocommit=True) as watching:
            waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            while not watching.execute(waiting).fetchone():
                assert importing.is_alive()
                time.sleep(0.01)
        other.commit()
    importing.join()
    assert reports == [PhotoReport(4, 4, 0, 0)]
    assert faces(service, client) == {("A", "ann"): 2, ("A", "ben"): 1, ("A", "eve"): 1}


def test_two_imports_of_the_same_photos_at_once_store_each_once(
    service: FaceService, client: str, photo: Photo
) -> None:
    records = [PhotoRecord("A", str(number % 7), "N", photo(number)) for number in range(40)]
    reports: list[PhotoReport] = []

    def work(own: list[PhotoRecord]) -> None:
        reports.append(run(service, client, own, workers=1)[0])

    threads = [threading.Thread(target=work, args=(own,)) for own in (records, records[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 2
    assert sum(report.enrolled for report in reports) == sum(report.skipped for report in reports) == 40
    assert sum(faces(service, client).values()) == 40


def test_a_wrong_choice_of_faces_is_refused_at_once(service: FaceService, client: str) -> None:
    wrong: Any = "all"
    with pytest.raises(InvalidValueError, match="several_faces"):
        service.import_photos([], client_id=client, several_faces=wrong)


def test_photos_of_who_was_moved_away_do_not_let_them_in_again(service: FaceService, client: str, photo: Photo) -> None:
    records = [PhotoRecord("A", "ann", "Ann", photo(1))]
    (made,) = run(service, client, records)[1]
    service.move_region(made.person_id, "B", client_id=client)
    report, (again, ben) = run(service, client, [*records, PhotoRecord("A", "ben", "Ben", photo(2))])
    assert (report.refused, again.code, ben.status) == (1, "moved", "enrolled")
    assert faces(service, client) == {("B", "ann"): 1, ("A", "ben"): 1}
