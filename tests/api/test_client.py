"""faceward.Client against the real server, over lines that break and a service that is full."""

from __future__ import annotations

import contextlib
import datetime as dt
import inspect
import socket
import threading
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import format_datetime
from pathlib import Path

import pytest
from companies import Company, RunningServer

from faceward import Client
from faceward.client.transport import seconds_of
from faceward.errors import (
    DuplicateFaceError,
    DuplicateRegionError,
    FacewardError,
    ImageNotFoundError,
    ImportSourceError,
    InputError,
    InvalidValueError,
    LowQualityError,
    OutcomeUnknownError,
    OverloadedError,
    RequestFormatError,
    ServiceUnreachableError,
    UnauthenticatedError,
    UnknownPersonError,
    UnknownRegionError,
)
from faceward.service import FaceService
from faceward.settings import Settings

FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 7\r\n"
    b'Content-Length: 46\r\nConnection: close\r\n\r\n{"code": "overloaded", "detail": "All of it."}'
)
MAY_BE_DONE = FULL.replace(b"46", b"51").replace(b"overloaded", b"outcome_unknown")


class Line:
    """A TCP line to the server. Its first connections go wrong, one after the other, as `faults` says."""

    def __init__(self, port: int, faults: list[str]) -> None:
        self._port = port
        self.faults = faults
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            fault = self.faults.pop(0) if self.faults else ""
            threading.Thread(target=self._serve, args=(near, fault), daemon=True).start()

    def _serve(self, near: socket.socket, fault: str) -> None:
        with near, contextlib.suppress(OSError):
            if fault == "refuse":
                return
            if fault == "may be done" or fault.startswith("full"):
                near.recv(1 << 16)
                full = FULL.replace(b"Retry-After: 7", b"Retry-After: " + (fault[9:] or "7").encode())
                near.sendall(MAY_BE_DONE if fault == "may be done" else full)
                near.shutdown(socket.SHUT_WR)
                while near.recv(1 << 16):  # closed with something unread, the line would be reset instead
                    pass
                return
            with socket.create_connection(("127.0.0.1", self._port)) as far:
                upward = threading.Thread(target=self._pump, args=(near, far), daemon=True)
                upward.start()
                if fault == "lose the answer":
                    far.recv(1)  # the server has done it
                    near.shutdown(socket.SHUT_RDWR)
                    return
                self._pump(far, near)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)


@pytest.fixture
def line(running: RunningServer) -> Iterator[Callable[..., Line]]:
    made: list[Line] = []

    def make(*faults: str) -> Line:
        made.append(Line(running.port, list(faults)))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def waits() -> list[float]:
    """What a client waited, in seconds; it does not really wait."""
    return []


@pytest.fixture
def open_client(company: Company, waits: list[float]) -> Iterator[Callable[..., Client]]:
    with contextlib.ExitStack() as stack:

        def make(role: str = "enroller", url: str = company.url, **options: object) -> Client:
            return stack.enter_context(
                Client(url, company.keys[role], sleep=waits.append, **options)  # type: ignore[arg-type]
            )

        yield make


def test_a_person_s_life(open_client: Callable[..., Client], photos: dict[str, Path]) -> None:
    client = open_client("manager")
    enrolled = client.enroll([photos["obama.jpg"]], name="Barack Obama", region="A", external_id="1")
    person = enrolled.person
    found = client.recognize(photos["obama2.jpg"].read_bytes(), region=["A"], top_k=1)
    assert found.faces[0].match is not None
    assert found.faces[0].match.person_id == person.id
    with photos["obama3.jpg"].open("rb") as file:
        assert client.verify(file, person_id=person.id).verified
    assert not client.verify(photos["obama.jpg"], photos["biden.jpg"]).verified
    assert len(client.detect(photos["biden.jpg"]).faces) == 1
    assert client.add_face(person.id, photos["obama2.jpg"]).person.face_count == 2
    first, second = client.list_faces(person.id)
    assert client.face_image(person.id, first.id) == photos["obama.jpg"].read_bytes()
    client.delete_face(person.id, second.id)
    assert client.update_person(person.id, description="44th").description == "44th"
    assert client.move_region(person.id, "B").region == "B"
    assert [each.name for each in client.list_regions(limit=1).items] == ["A"]
    assert [each.name for each in client.regions()] == ["A", "B"]
    assert client.update_region("B", name="B/2", threshold=0.4).threshold == 0.4
    assert client.get_region("B/2").persons == 1
    assert [each.id for each in client.persons(region="B/2", limit=1)] == [person.id]
    assert client.search([0.1] * 512, region="B/2").candidates == []
    client.delete_person(person.id)
    client.delete_region("B/2")
    assert client.me().role == "manager"


def test_keys_are_made_rotated_and_ended(open_client: Callable[..., Client]) -> None:
    client = open_client("manager")
    made = client.create_key("recognizer", regions=["A"], name="door")
    assert client.get_key(made.key.id).prefix == made.key.prefix
    assert client.rotate_key(made.key.id).secret != made.secret
    assert client.revoke_key(made.key.id).revoked_at is not None
    assert made.key.id in [key.id for key in client.list_keys().items]


def test_imports_are_sent_and_waited_for(
    open_client: Callable[..., Client], photos: dict[str, Path], tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "people.zip", "w") as archive:
        archive.write(photos["biden.jpg"], "A/Joe/biden.jpg")
        archive.writestr("A/Nobody/x.jpg", b"no photo")
    with open_client() as waiting:
        job = waiting.import_archive(tmp_path / "people.zip")
        while (done := waiting.get_job(job.id)).finished_at is None:
            pass
        assert (done.state, done.stored_persons, done.refused) == ("partial", 1, 1)
        assert [refusal.item for refusal in waiting.list_refusals(job.id).items] == ["A/Nobody/x.jpg"]
        assert waiting.wait_for_job(job.id).id == waiting.list_jobs().items[0].id


def test_errors_are_faceward_s_own_with_their_fields(
    open_client: Callable[..., Client], company: Company, photos: dict[str, Path], tmp_path: Path
) -> None:
    client = open_client("manager")
    person = client.enroll(photos["obama.jpg"], name="Barack Obama", region="A").person
    with pytest.raises(DuplicateFaceError) as twice:
        client.enroll(photos["obama.jpg"], name="Barack Obama", region="A")
    assert twice.value.person_id == person.id
    with pytest.raises(UnknownRegionError) as region:
        client.recognize(photos["biden.jpg"], region="Z")
    assert region.value.known == ("A",)
    with pytest.raises(UnknownPersonError):
        client.get_person(10**12)
    with pytest.raises(DuplicateRegionError):
        client.create_region("A")
    with pytest.raises(ImageNotFoundError):
        client.detect(tmp_path / "nothing.jpg")
    with pytest.raises(ImportSourceError):
        client.import_embeddings(tmp_path / "nothing.ndjson")
    with Client(company.url, "fw_wrong") as stranger, pytest.raises(UnauthenticatedError):
        stranger.me()
    assert issubclass(LowQualityError, FacewardError)


def test_a_line_that_breaks_before_and_after_the_work_enrolls_one_person(
    open_client: Callable[..., Client], line: Callable[..., Line], photos: dict[str, Path], waits: list[float]
) -> None:
    broken = line("refuse", "lose the answer")
    enrolled = open_client(url=broken.url).enroll(photos["obama.jpg"], name="Barack Obama", region="A")
    assert broken.connections == 3
    assert len(waits) == 2
    assert [each.id for each in open_client().persons()] == [enrolled.person.id]


def test_a_deletion_whose_answer_is_lost_has_happened(
    open_client: Callable[..., Client], line: Callable[..., Line], photos: dict[str, Path]
) -> None:
    person = open_client().enroll(photos["obama.jpg"], name="Barack Obama", region="A").person
    open_client(url=line("lose the answer").url).delete_person(person.id)
    with pytest.raises(UnknownPersonError):
        open_client().delete_person(person.id)


def test_what_can_be_repeated_is_where_it_may_have_been_done(
    open_client: Callable[..., Client], line: Callable[..., Line]
) -> None:
    manager = open_client("manager")
    assert open_client("manager", url=line("may be done").url).create_region("A").name == "A"
    manager.delete_region("A")
    open_client("manager", url=line("may be done").url).delete_region("A")  # as if the first try had deleted it
    with pytest.raises(UnknownRegionError):
        manager.delete_region("A")


def test_regions_clients_and_keys_whose_answer_is_lost_are_made_once(
    open_client: Callable[..., Client], line: Callable[..., Line], company: Company
) -> None:
    admin = open_client("admin")
    made = open_client("manager", url=line("lose the answer").url).create_region("New", threshold=0.4)
    assert (made.name, made.threshold) == ("New", pytest.approx(0.4))
    client_id = f"{company.client_id}-new"
    assert open_client("admin", url=line("lose the answer").url).create_client(client_id).client_id == client_id
    key = open_client("admin", url=line("lose the answer").url).create_key("recognizer", client_id=client_id)
    assert [each.id for each in admin.list_keys(client_id=client_id).items] == [key.key.id]
    with Client(company.url, key.secret) as shown:  # the secret of the lost answer has ended
        assert shown.me().prefix == key.key.prefix


def test_what_can_not_be_repeated_says_that_it_may_be_done(
    open_client: Callable[..., Client], line: Callable[..., Line]
) -> None:
    manager = open_client("manager")
    key = manager.create_key("recognizer")
    manager.create_region("A")
    rotating, renaming = line("lose the answer"), line("lose the answer")
    with pytest.raises(ServiceUnreachableError, match="may have been done"):
        open_client("manager", url=rotating.url).rotate_key(key.key.id)
    with pytest.raises(ServiceUnreachableError, match="may have been done"):
        open_client("manager", url=renaming.url).update_region("A", name="B")
    assert rotating.connections == renaming.connections == 1
    confirming = line("may be done")
    with pytest.raises(OutcomeUnknownError):
        open_client("manager", url=confirming.url).update_region("B", name="C")
    assert confirming.connections == 1
    assert manager.get_key(key.key.id).prefix != key.key.prefix


def test_the_methods_are_those_of_the_service() -> None:
    """By their names, but for what has no place on the other side of a line."""

    def methods(kind: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}

    inside = {
        "import_photos",
        "face_page",
        "faces_to_store",
        "enrolled_before",
        "count_existing",
        "count_expired",
        "purge_expired",
        "purge_held_until",
        "person_of_photo",
        "person_of_photo_digest",
        "rename_region",
        "warm",
        "was_called",
    }
    assert methods(FaceService) - inside <= methods(Client)
    for name in methods(FaceService) & methods(Client) - {"import_embeddings"}:
        own, theirs = (set(inspect.signature(getattr(kind, name)).parameters) for kind in (FaceService, Client))
        of_python = {"client_id", "request", "stages", "regions", "after"}  # the key's, the header's, the cursor
        assert own - of_python <= theirs, name


def test_a_key_over_its_rate_waits_and_goes_on(company: Company) -> None:
    """Of the real service, with real waits."""
    with Client(company.url, company.new_key("recognizer", rate_limit=2)) as client:
        assert {client.me().role for _ in range(6)} == {"recognizer"}


def test_a_service_that_is_overloaded_answers_all_in_the_end(
    api_settings: Settings, photos: dict[str, Path], company: Company
) -> None:
    """The real one, which takes on two requests at once; six come, and none is lost."""
    narrow = api_settings.model_copy(
        update={
            "api": api_settings.api.model_copy(update={"queue": 0}),
            "model": api_settings.model.model_copy(update={"threads": 1}),
        }
    )
    with RunningServer(narrow) as full:
        refusals = full.app.state.parts.inference._refused

        def detect(_: int) -> int:
            with Client(full.url, company.keys["recognizer"], retries=50, sleep=lambda _: time.sleep(0.1)) as client:
                return len(client.detect(photos["obama.jpg"]).faces)

        with ThreadPoolExecutor(6) as threads:
            assert list(threads.map(detect, range(6))) == [1] * 6
        assert refusals._count > 0


def test_a_full_service_is_asked_again_when_it_says(
    open_client: Callable[..., Client], line: Callable[..., Line], waits: list[float]
) -> None:
    open_client("manager", url=line("full", "full").url).create_region("New")
    assert len(waits) == 2
    assert all(7.0 <= wait <= 7.0 * 1.3 for wait in waits)


def test_a_service_that_stays_full_is_told_with_its_wait(
    open_client: Callable[..., Client], line: Callable[..., Line], waits: list[float]
) -> None:
    with pytest.raises(OverloadedError) as full:
        open_client(url=line(*["full"] * 3).url, retries=2).me()
    assert full.value.retry_after == 7.0
    assert len(waits) == 2


def test_a_service_that_asks_for_a_long_wait_is_told_at_once_and_not_asked_before(
    open_client: Callable[..., Client], line: Callable[..., Line], waits: list[float]
) -> None:
    open_client(url=line("full for 60").url).me()
    assert len(waits) == 1
    assert 60.0 <= waits[0] <= 60.0 * 1.3
    away = line("full for 61")
    with pytest.raises(OverloadedError) as full:
        open_client(url=away.url).me()
    assert (full.value.retry_after, len(waits), away.connections) == (61.0, 1, 1)


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_be_another_path_is_not_sent(open_client: Callable[..., Client], name: str) -> None:
    client = open_client("admin")
    for call in (
        client.get_region,
        client.delete_region,
        client.update_region,
        client.get_client,
        client.update_client,
    ):
        with pytest.raises(InvalidValueError):
            call(name)
    for make in (client.create_region, client.create_client):
        with pytest.raises((InvalidValueError, InputError)):
            make(name)


def test_a_service_that_is_not_there(open_client: Callable[..., Client]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ServiceUnreachableError, match=url):
        open_client(url=url, retries=1).me()


def test_a_key_as_a_file_holds_it(company: Company) -> None:
    with Client(company.url, f" {company.keys['enroller']}\r\n") as client:
        assert client.me().role == "enroller"


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("fw_se\ncret", "character 6 of its 10 is a control character"),
        ("fw_se cret", "character 6 of its 10 is white space"),
        ("fw_secr\xe9t", "character 8 of its 9 is not ASCII"),
        ("\n", "it is empty"),
        (None, "it is no text"),
        (b"fw_secret", "it is no text"),
    ],
)
def test_a_key_that_no_header_takes_is_refused_and_not_shown(key: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        Client("http://127.0.0.1:1", key)
    assert "cr" not in str(caught.value)


def test_a_request_that_can_not_be_sent_is_told_at_once_and_not_shown(open_client: Callable[..., Client]) -> None:
    """The library's own text of it may be a header with the key."""
    client, secret = open_client(), "x" * 43
    with pytest.raises(RequestFormatError, match="can't be sent") as caught:
        client._transport.ask("GET", "/v1/me", headers={"authorization": f"Bearer {secret}\n"})
    assert secret not in "".join(traceback.format_exception(caught.value))


def test_waits_are_seconds_or_dates() -> None:
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=20)
    assert 15.0 < seconds_of(format_datetime(soon, usegmt=True)) <= 20.0
    assert seconds_of("3") == 3.0
    assert [seconds_of(text) for text in (None, "", "soon", "-1", "Wed, 21 Oct 2015 07:28:00 GMT")] == [0.0] * 5
