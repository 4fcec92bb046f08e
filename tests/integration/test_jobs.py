"""Imports in the background with real photos, models and processes: what is stored is the same however workers end."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psycopg
import pytest

import faceward
from faceward.errors import (
    ImportSourceError,
    InvalidValueError,
    RequestReusedError,
    RequestTooLargeError,
    UnknownJobError,
)
from faceward.jobs import Imports, JobRunner, RunnerSettings
from faceward.store.database import Database
from faceward.store.embedded import EmbeddedServer
from faceward.store.job_queue import JobProgress, JobQueue
from faceward.store.jobs import JobStore
from faceward.store.presence import Presence
from faceward.store.regions import RegionStore
from faceward.types import Job, JobKind, JobRefusal
from synthetic import unit

WORKER = Path(__file__).with_name("import_worker.py")
QUICK = RunnerSettings(poll_seconds=0.02, retry_seconds=(0.02, 0.2), photos_at_once=25, lines_at_once=50)


@dataclass(frozen=True)
class Office:
    """Imports of one client on the tests' database, with runners made as needed."""

    client: str
    service: faceward.FaceService
    database: Database
    jobs: JobStore
    imports: Imports

    def send(self, kind: JobKind, content: bytes, **more: Any) -> Job:
        with self.imports.receive(self.client, kind, **more) as upload:
            for start in range(0, len(content), 300_000):
                upload.append(content[start : start + 300_000])
            return upload.finish()

    def runner(self, queue: JobQueue | None = None, settings: RunnerSettings = QUICK) -> JobRunner:
        return JobRunner(self.service, queue or JobQueue(self.database, self.jobs), Presence(self.database), settings)

    def run(self, job: Job) -> Job:
        while self.runner().run_next():
            pass
        return self.job(job)

    def job(self, job: Job) -> Job:
        return self.imports.get(job.id, client_id=self.client)

    def until(self, job: Job, reached: Callable[[Job], bool]) -> Job:
        for _ in range(3000):
            found = self.job(job)
            if reached(found):
                return found
            time.sleep(0.02)
        raise AssertionError(f"the job stands at {found}")

    def refusals(self, job: Job) -> tuple[JobRefusal, ...]:
        return self.imports.refusals(job.id, client_id=self.client).refusals

    def people(self) -> dict[tuple[str, str | None], int]:
        """Faces of each person by region and external id."""
        found = self.service.list_persons(client_id=self.client, limit=1000).persons
        return {(person.region, person.external_id): person.face_count for person in found}


@pytest.fixture(scope="module")
def pool(service_url: str) -> Iterator[Database]:
    with Database(service_url) as database:
        yield database


@pytest.fixture
def open_office(service: faceward.FaceService, pool: Database, client: str) -> Iterator[Callable[..., Office]]:
    jobs = JobStore(pool)
    offices: list[Office] = []

    def make(name: str = "") -> Office:
        offices.append(Office(client[: 100 - len(name)] + name, service, pool, jobs, Imports(jobs)))
        return offices[-1]

    yield make
    for office in offices:  # a runner takes any client's jobs
        for job in office.imports.list(client_id=office.client).jobs:
            office.imports.cancel(job.id, client_id=office.client)


@pytest.fixture
def office(open_office: Callable[..., Office]) -> Office:
    return open_office()


@pytest.fixture(scope="module")
def faces(photos: dict[str, Path]) -> Sequence[bytes]:
    """Forty photos, no two the same, of one face."""
    image = cv2.imread(str(photos["obama.jpg"]))
    scale = 300 / image.shape[1]
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return [cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 60 + number])[1].tobytes() for number in range(40)]


def zipped(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return made.getvalue()


def tarred(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


def line(number: int, **changes: Any) -> str:
    values = {"external_id": f"e{number}", "region": "A", "name": f"p{number}", "embedding": unit(number).tolist()}
    return json.dumps({**values, **changes})


def lines(count: int) -> bytes:
    return "\n".join(line(number) for number in range(count)).encode()


def told(office: Office, job: Job) -> list[tuple[int, str, str]]:
    """What was refused; the reasons name ids of persons, which differ from client to client."""
    return [(refusal.position, refusal.item, refusal.code) for refusal in office.refusals(job)]


def counts(job: Job) -> tuple[object, ...]:
    return job.state, job.total, JobProgress.of(job)


BLANK = cv2.imencode(".png", np.full((200, 200, 3), 128, np.uint8))[1].tobytes()


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_is_stored_and_what_cannot_be_is_reported(
    office: Office, faces: Sequence[bytes], pack: Callable[[Mapping[str, bytes]], bytes]
) -> None:
    content = pack(
        {
            "A/ada_l/1.jpg": faces[0],
            "A/ada_l/2.jpg": faces[1],
            "B/ada_l/1.jpg": faces[0],
            "A/eve/1.jpg": faces[2],
            "A/eve/again.jpg": faces[2],
            "A/eve/ada.jpg": faces[1],
            "A/bob/blank.png": BLANK,
            "A/bob/text.jpg": b"no photo",
            "A/bob/notes.txt": b"x",
            "../bob/1.jpg": faces[3],
        }
    )
    job = office.run(office.send("archive", content))
    assert counts(job) == ("partial", 10, JobProgress(10, 3, 4, 1, 5))
    assert told(office, job) == [
        (5, "A/eve/ada.jpg", "duplicate_face"),
        (6, "A/bob/blank.png", "no_face"),
        (7, "A/bob/text.jpg", "not_an_image"),
        (8, "A/bob/notes.txt", "not_an_image"),
        (9, "../bob/1.jpg", "unsafe_path"),
    ]
    assert office.people() == {("A", "ada_l"): 2, ("B", "ada_l"): 1, ("A", "eve"): 1}
    assert {person.name for person in office.service.list_persons(client_id=office.client).persons} == {"ada l", "eve"}
    again = office.run(office.send("archive", content))
    assert counts(again) == ("partial", 10, JobProgress(10, 0, 0, 5, 5))
    assert office.people() == {("A", "ada_l"): 2, ("B", "ada_l"): 1, ("A", "eve"): 1}
    office.service.enroll(faces[3], name="Ada", region="A", external_id="7", client_id=office.client)
    strangers = office.run(office.send("archive", pack({"A/7/1.jpg": faces[4], "B/ada_l/2.jpg": faces[4]})))
    assert (counts(strangers)[2], told(office, strangers)) == (
        JobProgress(2, 0, 1, 0, 1),
        [(0, "A/7/1.jpg", "other_person")],
    )
    assert [each.face_count for each in office.service.list_persons(region="B", client_id=office.client).persons] == [2]


def test_lines_of_embeddings_are_stored_and_found(office: Office) -> None:
    content = "\n".join([line(1), "{", line(2, embedding=[1.0]), line(3, description="Office A"), line(1)]).encode()
    job = office.run(office.send("embeddings", content))
    assert counts(job) == ("partial", 5, JobProgress(5, 2, 2, 1, 2))
    assert [(refusal.item, refusal.code) for refusal in office.refusals(job)] == [
        ("line 2", "not_json"),
        ("line 3", "invalid_embedding"),
    ]
    (found,) = office.service.search(unit(3), region="A", client_id=office.client, threshold=0.9)
    assert (found.external_id, found.description) == ("e3", "Office A")


def test_a_line_of_somebody_who_was_there_without_a_face_is_stored_and_counted(office: Office) -> None:
    office.run(office.send("embeddings", lines(2)))
    (first, _) = office.service.list_persons(client_id=office.client).persons
    (face,) = office.service.list_faces(first.id, client_id=office.client)
    office.service.delete_face(first.id, face.id, client_id=office.client)
    again = office.run(office.send("embeddings", lines(2)))
    assert counts(again) == ("succeeded", 2, JobProgress(2, 0, 1, 1, 0))
    assert office.people() == {("A", "e0"): 1, ("A", "e1"): 1}


def test_several_faces_are_refused_or_the_largest_is_taken(office: Office, photos: dict[str, Path]) -> None:
    image = cv2.imread(str(photos["obama.jpg"]))
    two = np.hstack([image, cv2.resize(image, None, fx=0.5, fy=1.0)[:, :]])
    content = zipped({"A/two/1.jpg": cv2.imencode(".jpg", two)[1].tobytes()})
    refused = office.run(office.send("archive", content))
    assert (refused.state, refused.error_code) == ("failed", "nothing_stored")
    assert [refusal.code for refusal in office.refusals(refused)] == ["several_faces"]
    taken = office.run(office.send("archive", content, options={"several_faces": "largest"}))
    assert counts(taken) == ("succeeded", 1, JobProgress(1, 1, 1))


def test_a_key_of_some_regions_imports_into_these_only(office: Office, faces: Sequence[bytes]) -> None:
    content = zipped({"A/ada/1.jpg": faces[0], "B/ada/1.jpg": faces[0]})
    job = office.run(office.send("archive", content, region_limit=["A"]))
    assert counts(job) == ("partial", 2, JobProgress(2, 1, 1, 0, 1))
    both = f"{line(1)}\n{line(2, region='B')}".encode()
    more = office.run(office.send("embeddings", both, region_limit=["B"]))
    assert counts(more) == ("partial", 2, JobProgress(2, 1, 1, 0, 1))
    for each in (job, more):
        assert [refusal.code for refusal in office.refusals(each)] == ["region_not_allowed"]
    assert office.people() == {("A", "ada"): 1, ("B", "e2"): 1}


def test_an_import_of_a_key_of_some_regions_goes_with_these_when_they_are_renamed(office: Office) -> None:
    """Also one that runs: by the next batch the name may be another region's."""
    regions, client = RegionStore(office.database), office.client
    regions.create(client, "A")
    regions.create(client, "B")

    class Renaming(JobQueue):
        def report(self, job: Job, progress: JobProgress, refusals: Sequence[JobRefusal] = ()) -> None:
            super().report(job, progress, refusals)
            if progress.done == 2:
                regions.update(client, "A", new_name="C")
                regions.update(client, "B", new_name="A")

    job = office.send("embeddings", lines(4), region_limit=["A"])
    queue = Renaming(office.database, office.jobs)
    assert office.runner(queue, replace(QUICK, lines_at_once=2)).run_next()
    assert counts(office.job(job)) == ("partial", 4, JobProgress(4, 2, 2, 0, 2))
    assert [refusal.code for refusal in office.refusals(job)] == ["region_not_allowed"] * 2
    assert office.people() == {("C", "e0"): 1, ("C", "e1"): 1}


@pytest.mark.parametrize(
    ("kind", "content", "options", "code"),
    [
        ("archive", b"no archive", {}, "import_source"),
        ("archive", zipped({"A/ada/1.jpg": b""})[:-5], {}, "import_source"),
        ("archive", tarred({"A/ada/1.jpg": BLANK})[:-20], {}, "import_source"),
        ("archive", zipped({"ada.jpg": BLANK}), {}, "nothing_stored"),
        ("embeddings", b" \n", {}, "import_source"),
        ("embeddings", b"[]", {}, "nothing_stored"),
        ("embeddings", line(1).encode(), {"model_id": "another-model"}, "model_mismatch"),
    ],
)
def test_an_upload_that_cannot_be_used_fails_and_says_why(
    office: Office, kind: JobKind, content: bytes, options: dict[str, str], code: str
) -> None:
    job = office.run(office.send(kind, content, options=options))
    assert (job.state, job.error_code) == ("failed", code)
    assert job.error_message
    assert job.finished_at is not None
    assert office.people() == {}


def crowd(faces: Sequence[bytes]) -> bytes:
    """120 photos of 60 people in three regions, in batches that end amid a person; some are in the upload twice."""
    files = {
        f"R{region}/p{number // 2}/{number % 2}.jpg": faces[number]
        for region in range(3)
        for number in range(len(faces))
    }
    for region in range(3):
        files[f"R{region}/p0/copy.jpg"] = faces[0]
        files[f"R{region}/p1/not-mine.jpg"] = faces[0]
        files[f"R{region}/p2/blank.png"] = BLANK
    return tarred(files)


@pytest.fixture(scope="module")
def undisturbed(service: faceward.FaceService, pool: Database, faces: Sequence[bytes]) -> tuple[Office, Job]:
    """The crowd, imported by a worker that nothing happens to."""
    jobs = JobStore(pool)
    office = Office("undisturbed", service, pool, jobs, Imports(jobs))
    return office, office.run(office.send("archive", crowd(faces)))


@pytest.mark.parametrize("how", ["die-after-storing", ""])
def test_an_import_goes_on_after_a_sigkill_as_if_nothing_had_been(
    office: Office, undisturbed: tuple[Office, Job], faces: Sequence[bytes], service_config: Path, how: str
) -> None:
    calm, whole = undisturbed
    assert counts(whole) == ("partial", 129, JobProgress(129, 60, 120, 3, 6))
    content = crowd(faces)
    job = office.send("archive", content)
    with subprocess.Popen([sys.executable, str(WORKER), str(service_config), *filter(None, [how])]) as process:
        if not how:
            office.until(job, lambda found: found.done > 0)
            process.kill()
        assert process.wait(60) == -signal.SIGKILL
    torn = office.job(job)
    assert torn.state == "running"
    if how:
        assert torn.done == 0
        assert office.people()
    with contextlib.closing(office.runner()) as runner:
        runner.start()
        done = office.until(job, lambda found: found.finished)
    assert counts(done) == counts(whole)
    assert office.people() == calm.people()
    assert told(office, done) == told(calm, whole)


@pytest.mark.parametrize("kind", ["archive", "embeddings"])
def test_a_worker_that_was_thought_dead_doubles_nothing(office: Office, faces: Sequence[bytes], kind: JobKind) -> None:
    """It has stored a batch and not reported it when another one takes over and ends the job; then it wakes."""
    stored, over = threading.Event(), threading.Event()

    class SlowQueue(JobQueue):
        def report(self, job: Job, progress: JobProgress, refusals: Sequence[JobRefusal] = ()) -> None:
            stored.set()
            assert over.wait(60)
            super().report(job, progress, refusals)

    files = {f"A/p{number}/1.jpg": face for number, face in enumerate(faces)}
    job = office.send(kind, zipped(files) if kind == "archive" else lines(120))
    with contextlib.closing(office.runner(SlowQueue(office.database, office.jobs, lease=0.0))) as slow:
        slow.start()
        assert stored.wait(60)
        done = office.run(job)
        over.set()
    total = 40 if kind == "archive" else 120
    assert counts(done) == ("succeeded", total, JobProgress(total, total, total))
    assert office.job(job) == done
    assert set(office.people().values()) == {1}
    assert len(office.people()) == total


def test_a_runner_that_closes_gives_its_job_to_the_next_at_once(office: Office) -> None:
    job = office.send("embeddings", lines(600))
    with contextlib.closing(office.runner()) as runner:
        runner.start()
        office.until(job, lambda found: found.done > 0)
    given_back = office.job(job)
    assert (given_back.state, given_back.done < 600) == ("queued", True)
    assert counts(office.run(job)) == ("succeeded", 600, JobProgress(600, 600, 600))


def test_a_cancelled_import_stops_and_the_next_one_runs(office: Office) -> None:
    job, following = office.send("embeddings", lines(600)), office.send("embeddings", line(9999).encode())
    with contextlib.closing(office.runner()) as runner:
        runner.start()
        office.until(job, lambda found: found.done > 0)
        cancelled = office.imports.cancel(job.id, client_id=office.client)
        assert (cancelled.state, 0 < cancelled.done < 600) == ("cancelled", True)
        office.until(following, lambda found: found.state == "succeeded")
    assert office.job(job) == cancelled
    assert ("A", "e0") in office.people()


@contextlib.contextmanager
def outage(server: EmbeddedServer) -> Iterator[None]:
    """Nobody reaches the tests' database in the block, and who was connected is not any more."""
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as admin:
        admin.execute("ALTER DATABASE service ALLOW_CONNECTIONS false")
        try:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'service'")
            yield
        finally:
            admin.execute("ALTER DATABASE service ALLOW_CONNECTIONS true")


def test_a_database_that_goes_and_comes_is_waited_for(office: Office, server: EmbeddedServer) -> None:
    job = office.send("embeddings", lines(500))
    with contextlib.closing(office.runner()) as runner:
        runner.start()
        office.until(job, lambda found: found.done > 0)
        with outage(server):
            time.sleep(0.5)
        done = office.until(job, lambda found: found.finished)
        assert counts(done) == ("succeeded", 500, JobProgress(500, 500, 500))
        assert runner.alive


def test_a_runner_that_closes_in_an_outage_leaves_its_job_to_the_next(office: Office, server: EmbeddedServer) -> None:
    """It can give nothing back: the lease runs out."""
    job = office.send("embeddings", lines(500))
    with contextlib.closing(office.runner(JobQueue(office.database, office.jobs, lease=1.0))) as runner:
        runner.start()
        office.until(job, lambda found: found.done > 0)
        with outage(server):
            time.sleep(0.2)
            runner.close()
    with contextlib.closing(office.runner()) as runner:
        runner.start()
        done = office.until(job, lambda found: found.finished)
    assert counts(done) == ("succeeded", 500, JobProgress(500, 500, 500))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_nobody_foresaw_does_not_end_the_work(office: Office) -> None:
    class FaultyQueue(JobQueue):
        faults = 0

        def claim(self) -> Job | None:
            self.faults += 1
            if self.faults < 3:
                raise ZeroDivisionError
            return super().claim()

    job = office.send("embeddings", line(1).encode())
    with contextlib.closing(office.runner(FaultyQueue(office.database, office.jobs))) as runner:
        runner.start()
        assert office.until(job, lambda found: found.finished).state == "succeeded"


def test_a_disk_without_room_fails_the_import_and_says_so(office: Office, tmp_path: Path) -> None:
    job = office.send("embeddings", line(1).encode())
    office.runner(settings=replace(QUICK, spool=tmp_path / "absent", retry_seconds=(0.001, 0.01))).run_next()
    failed = office.job(job)
    assert (failed.state, failed.error_code) == ("failed", "overloaded")
    assert "imports.spool" in (failed.error_message or "")


def test_a_runner_wakes_for_news(office: Office) -> None:
    """It would look again in an hour."""
    slow = RunnerSettings(poll_seconds=3600)
    with contextlib.closing(office.runner(settings=slow)) as runner:
        runner.start()
        imports = Imports(office.jobs, on_queued=runner.wake)
        with imports.receive(office.client, "embeddings") as upload:
            upload.append(line(1).encode())
            job = upload.finish()
        office.until(job, lambda found: found.finished)


def test_an_upload_that_breaks_off_leaves_no_job(office: Office) -> None:
    with office.imports.receive(office.client, "archive") as upload:
        upload.append(bytes(3_000_000))
    with pytest.raises(UnknownJobError):
        office.imports.get(upload.job_id, client_id=office.client)
    assert office.imports.list(client_id=office.client).jobs == ()


def test_an_upload_is_cut_off_at_its_limit(office: Office) -> None:
    with office.imports.receive(office.client, "archive", max_bytes=2_000_000) as upload:
        upload.append(bytes(2_000_000))
        with pytest.raises(RequestTooLargeError, match="2000000 bytes"):
            upload.append(b"x")
    assert office.imports.list(client_id=office.client).jobs == ()


def test_an_empty_upload_is_refused(office: Office) -> None:
    with office.imports.receive(office.client, "archive") as upload, pytest.raises(ImportSourceError, match="empty"):
        upload.finish()


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("photos", {}),
        ("archive", {"options": {"model_id": "m"}}),
        ("archive", {"options": {"several_faces": "all"}}),
        ("embeddings", {"options": {"several_faces": "error"}}),
        ("embeddings", {"options": {"model_id": 7}}),
        ("archive", {"region_limit": [""]}),
    ],
)
def test_an_import_that_asks_for_what_is_not_there_is_refused(office: Office, kind: Any, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        office.imports.receive(office.client, kind, **given)


def test_a_request_sent_again_makes_one_job(office: Office) -> None:
    def send(content: bytes, token: str) -> Job:
        with office.imports.receive(office.client, "embeddings", key_id=3) as upload:
            upload.append(content)
            return upload.finish(token)

    first = send(lines(2), "t")
    done = office.run(first)
    assert send(lines(2), "t") == done
    with pytest.raises(RequestReusedError):
        send(lines(3), "t")
    with pytest.raises(InvalidValueError):
        send(lines(2), "")
    assert [job.id for job in office.imports.list(client_id=office.client).jobs] == [first.id]


def test_a_client_never_sees_anothers_import(open_office: Callable[..., Office]) -> None:
    ours, theirs = open_office(" ours"), open_office(" theirs")
    job = theirs.send("embeddings", b"{")
    for look in (ours.imports.get, ours.imports.cancel, ours.imports.refusals):
        with pytest.raises(UnknownJobError, match=f"Job {job.id} does not exist"):
            look(job.id, client_id=ours.client)
    assert ours.imports.list(client_id=ours.client).jobs == ()
    assert theirs.run(job).state == "failed"
    assert ours.people() == {}


class TestWhatIsSetAside:
    """As the HNSW index, during an import of many faces."""

    def run(self, office: Office, job: Job, large_from: int) -> list[tuple[str, int]]:
        """What happened, with the faces that the client had then."""
        events: list[tuple[str, int]] = []

        def faces() -> int:
            return sum(office.people().values())

        @contextlib.contextmanager
        def aside() -> Iterator[None]:
            events.append(("set aside", faces()))
            yield
            events.append((f"built anew, {office.job(job).state}", faces()))

        def asked(coming: int) -> contextlib.AbstractContextManager[None]:
            events.append(("asked", coming))
            return aside()

        settings = replace(QUICK, large_from=large_from)
        queue = JobQueue(office.database, office.jobs)
        runner = JobRunner(office.service, queue, Presence(office.database), settings, large_import=asked)
        while runner.run_next():
            pass
        return events

    def test_once_the_first_batch_shows_how_many_come(self, office: Office) -> None:
        job = office.send("embeddings", lines(200))
        assert self.run(office, job, 200) == [("asked", 200), ("set aside", 50), ("built anew, succeeded", 200)]

    def test_not_for_a_small_import(self, office: Office) -> None:
        assert self.run(office, office.send("embeddings", lines(200)), 201) == []

    def test_not_for_people_who_are_there_already(self, office: Office) -> None:
        office.run(office.send("embeddings", lines(200)))
        assert self.run(office, office.send("embeddings", lines(200)), 100) == []
