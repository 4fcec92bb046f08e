"""What a hostile review of the API found: each of these once did harm."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from companies import FIRST_KEY, Company, RunningServer
from starlette.requests import Request

from faceward.administration import Administration
from faceward.api.admission import WorkPool
from faceward.api.authentication import Authenticator
from faceward.errors import UnauthenticatedError
from faceward.types import ApiKey

PROBLEM = "application/problem+json"


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.headers["content-type"] == PROBLEM, answer.text
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


@pytest.mark.parametrize("charset", ["undefined", "punycode", "utf-16", "no-such", '""'])
def test_a_form_does_not_choose_a_codec_of_ours(company: Company, charset: str) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="region"\r\n\r\nA\xc3\xa9\r\n--b--\r\n'
    kind = f"multipart/form-data; boundary=b; charset={charset}"
    refused(
        company.http("recognizer").post("/v1/recognize", content=form, headers={"content-type": kind}),
        400,
        "invalid_request",
    )


def test_a_form_may_say_that_it_is_utf_8(company: Company) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="region"\r\n\r\nA\r\n--b--\r\n'
    kind = 'multipart/form-data; boundary=b; charset="UTF-8"'
    answer = company.http("recognizer").post("/v1/recognize", content=form, headers={"content-type": kind})
    refused(answer, 422, "invalid_value")
    assert [each["field"] for each in answer.json()["problems"]] == ["image"]


@pytest.mark.parametrize("value", [b"[],", b"{},", b"1,", b'"",'])
def test_json_of_millions_of_values_is_refused_before_it_is_built(company: Company, value: bytes) -> None:
    body = b'{"region": "A", "embedding": [' + value * 1_000_000 + b"0]}"
    answer = company.http("recognizer").post("/v1/search", content=body, headers={"content-type": "application/json"})
    refused(answer, 400, "invalid_request")


def test_a_body_too_large_where_none_is_read_is_told_as_a_problem(running: RunningServer, company: Company) -> None:
    """It comes while the database is asked; the answer once was a plain 500, as if nobody were left to be told."""
    head = f"GET /v1/regions HTTP/1.1\r\nHost: x\r\nx-api-key: {company.keys['manager']}\r\n"
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(17):
                connection.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = connection.recv(65536)
    assert not answer.startswith(b"HTTP/1.1 500"), answer
    assert b"text/plain" not in answer


def test_a_path_with_a_slash_too_many_redirects_nowhere(running: RunningServer) -> None:
    answer = httpx.post(f"{running.url}/v1/recognize/", headers={"host": "evil.example"})
    refused(answer, 404, "not_found")
    assert "location" not in answer.headers


def test_an_admin_of_some_regions_administers_no_clients(running: RunningServer, company: Company) -> None:
    with httpx.Client(base_url=running.url, headers={"x-api-key": FIRST_KEY}, timeout=60) as admin:
        made = admin.post("/v1/keys", json={"role": "admin", "client_id": company.client_id, "regions": ["A"]})
    limited = company.http(key=made.json()["secret"])
    for answer in (
        limited.get("/v1/clients"),
        limited.post("/v1/clients", json={"client_id": f"{company.client_id}-more"}),
        limited.get(f"/v1/clients/{company.client_id}"),
        limited.patch(f"/v1/clients/{company.client_id}", json={"threshold": 0.1}),
    ):
        refused(answer, 403, "region_not_allowed")


def test_a_manager_makes_no_key_that_sends_more_than_its_own(company: Company) -> None:
    manager = company.http("manager")
    refused(manager.post("/v1/keys", json={"role": "recognizer", "rate_limit": 1_000_000}), 403, "role_not_allowed")
    slow = company.http(key=company.new_key("manager", rate_limit=5))
    refused(slow.post("/v1/keys", json={"role": "recognizer", "rate_limit": 6}), 403, "role_not_allowed")
    assert slow.post("/v1/keys", json={"role": "recognizer"}).json()["key"]["rate_limit"] == 5
    assert slow.post("/v1/keys", json={"role": "recognizer", "rate_limit": 4}).json()["key"]["rate_limit"] == 4


def test_a_manager_makes_no_key_that_outlives_its_own(company: Company) -> None:
    ends = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(hours=1)
    trial = company.http(key=company.new_key("manager", expires_at=ends.isoformat()))
    later = (ends + dt.timedelta(seconds=1)).isoformat()
    refused(trial.post("/v1/keys", json={"role": "manager", "expires_at": later}), 403, "role_not_allowed")
    made = trial.post("/v1/keys", json={"role": "manager"})
    assert dt.datetime.fromisoformat(made.json()["key"]["expires_at"]) == ends


def test_a_manager_gets_the_secret_of_no_key_that_it_could_not_make(company: Company) -> None:
    manager = company.http("manager")
    ends = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).isoformat()

    def made(**options: object) -> str:
        key = manager.post("/v1/keys", json={"role": "manager", **options}).json()["key"]
        return f"/v1/keys/{key['id']}"

    lasting, trial_s, slow_s = made(), made(expires_at=ends), made(rate_limit=5)
    trial = company.http(key=manager.post(f"{trial_s}/rotate").json()["secret"])
    refused(trial.post(f"{lasting}/rotate"), 403, "role_not_allowed")
    assert trial.delete(made(expires_at=ends)).status_code == 200
    slow = company.http(key=manager.post(f"{slow_s}/rotate").json()["secret"])
    refused(slow.post(f"{lasting}/rotate"), 403, "role_not_allowed")
    for own, path in ((trial, trial_s), (slow, slow_s)):
        assert own.post(f"{path}/rotate").status_code == 200
    # The deployment's admins may, whatever their own key is.
    brief = company.http("admin").post("/v1/keys", json={"role": "admin", "expires_at": ends}).json()["secret"]
    assert company.http(key=brief).post(f"{lasting}/rotate").status_code == 200


def test_a_region_is_the_same_however_its_name_is_encoded(company: Company) -> None:
    composed, decomposed = "Zürich", "Zu\u0308rich"
    key = company.new_key("manager", regions=[decomposed])
    assert company.http(key=key).get("/v1/me").json()["regions"] == [composed]
    person = company.enroll("obama.jpg", decomposed, external_id="u\u0308")["person"]
    assert (person["region"], person["external_id"]) == (composed, "ü")
    for name in (composed, decomposed):
        http = company.http(key=key)
        found = http.post("/v1/recognize", data={"region": name}, files={"image": company.photo("obama2.jpg")})
        assert found.json()["faces"][0]["match"]["person_id"] == person["id"]
        assert http.get(f"/v1/regions/{name}").json()["persons"] == 1
        for query in ({"region": name}, {"external_id": "u\u0308"}):
            assert [each["id"] for each in http.get("/v1/persons", params=query).json()["items"]] == [person["id"]]
    refused(company.http("manager").post("/v1/regions", json={"name": "A\u200b"}), 422, "invalid_value")
    refused(company.http("admin").post("/v1/clients", json={"client_id": decomposed}), 422, "invalid_value")


def test_a_repeated_enrolment_does_not_follow_a_person_out_of_the_key_s_regions(company: Company) -> None:
    def enroll(client: httpx.Client) -> httpx.Response:
        return client.post(
            "/v1/persons",
            data={"name": "Barack Obama", "region": "A"},
            files={"images": ("obama.jpg", company.photo("obama.jpg"))},
            headers={"idempotency-key": "one"},
        )

    limited = company.http(key=company.new_key("enroller", regions=["A"]))
    person = enroll(limited).json()["person"]
    assert enroll(limited).json()["person"] == person
    moved = company.http("enroller").put(f"/v1/persons/{person['id']}/region", json={"region": "B"})
    assert moved.status_code == 200
    refused(enroll(limited), 404, "unknown_person")


class Paused(Administration):
    """Its answers about keys are kept back for a while, as by a slow network."""

    def __init__(self, administration: Administration) -> None:
        super().__init__(administration._clients, administration._keys)
        self.asked, self.free = threading.Event(), threading.Event()

    def authenticate(self, text: str | None) -> ApiKey:
        key = super().authenticate(text)
        self.asked.set()
        assert self.free.wait(20)
        return key


def request_with(key: str) -> Request:
    return Request({"type": "http", "headers": [(b"x-api-key", key.encode())]})


def test_what_was_read_of_a_key_before_it_was_revoked_is_not_believed(running: RunningServer, company: Company) -> None:
    secret = company.new_key("recognizer")
    administration = Paused(running.app.state.parts.administration)

    async def scene() -> None:
        authenticator = Authenticator(administration, pool, pool, time.monotonic)
        early = asyncio.ensure_future(authenticator.caller(request_with(secret)))
        await asyncio.to_thread(administration.asked.wait, 20)
        key = Administration.authenticate(administration, secret)
        administration.revoke_key(key.client_id, key.id)
        authenticator.forget()
        late = asyncio.ensure_future(authenticator.caller(request_with(secret)))
        await asyncio.sleep(0)
        administration.free.set()
        assert (await early).key.id == key.id
        for refused_one in (late, authenticator.caller(request_with(secret))):
            with pytest.raises(UnauthenticatedError):
                await refused_one

    with contextlib.closing(WorkPool("test", threads=2, queue=2, seconds=20.0)) as pool:
        asyncio.run(scene())


def test_a_use_that_a_full_pool_can_not_record_is_recorded_with_the_next(
    running: RunningServer, company: Company
) -> None:
    secret = company.new_key("recognizer")
    administration = running.app.state.parts.administration
    complaints: list[dict[str, Any]] = []

    async def scene() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        authenticator = Authenticator(administration, pool, pool, time.monotonic)
        free = threading.Event()
        key = await authenticator._find(secret)
        while pool.running:
            await asyncio.sleep(0.001)
        held = asyncio.ensure_future(pool.run(lambda: free.wait(20)))
        await asyncio.sleep(0)
        await authenticator.caller(request_with(secret))  # believed, and its use has no place
        await asyncio.sleep(0.05)
        free.set()
        await held
        gc.collect()
        assert complaints == []
        while pool.running:
            await asyncio.sleep(0.001)
        await authenticator.caller(request_with(secret))
        while administration.get_key(company.client_id, key.id).last_used_at is None:
            await asyncio.sleep(0.01)

    with contextlib.closing(WorkPool("test", threads=1, queue=0, seconds=20.0)) as pool:
        asyncio.run(asyncio.wait_for(scene(), 20))


def test_bodies_that_stop_coming_take_the_place_of_no_other_client(
    running: RunningServer, new_company: Callable[[], Company]
) -> None:
    """64 MiB may be held; one client sends that much in bodies that lack their last byte."""
    greedy, other = new_company(), new_company()
    head = (
        "POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"x-api-key: {greedy.keys['recognizer']}\r\nContent-Length: {16 << 20}\r\n\r\n"
    )
    refusals = 0
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=20))
            with contextlib.suppress(ConnectionError):
                connection.sendall(head.encode() + bytes((16 << 20) - 1))
            connection.settimeout(0.1)
            with contextlib.suppress(TimeoutError, ConnectionError):
                refusals += connection.recv(12) == b"HTTP/1.1 503"
        assert refusals
        photo = {"image": ("obama.jpg", other.photo("obama.jpg"))}
        assert other.http("recognizer").post("/v1/detect", files=photo).status_code == 200


def test_a_key_of_a_region_sees_its_imports_after_the_region_is_renamed(company: Company) -> None:
    limited = company.http(key=company.new_key("enroller", regions=["A"]))
    assert company.http("manager").post("/v1/regions", json={"name": "A"}).status_code == 201

    def send() -> int:
        headers = {"content-type": "application/x-ndjson", "idempotency-key": "monday"}
        answer = limited.post("/v1/imports", content=b"{}\n", headers=headers)
        assert answer.status_code == 202, answer.text
        return int(answer.json()["id"])

    job = send()
    assert company.http("manager").patch("/v1/regions/A", json={"name": "B"}).status_code == 200
    assert limited.get("/v1/me").json()["regions"] == ["B"], "at once, in the process that renamed it"
    assert limited.get(f"/v1/jobs/{job}").status_code == 200
    assert send() == job, "the same upload again"


def test_an_enrolment_sent_again_after_its_region_was_renamed_gets_its_answer(company: Company) -> None:
    """The key goes with the region, and a request that is repeated can't."""
    manager = company.http("manager")
    limited = company.http(key=company.new_key("enroller", regions=["A"]))

    def send(idempotency_key: str = "monday") -> httpx.Response:
        files = {"images": ("a.jpg", company.photo("obama.jpg"))}
        headers = {"idempotency-key": idempotency_key}
        return limited.post("/v1/persons", data={"name": "Ada", "region": "A"}, files=files, headers=headers)

    first = send()
    assert first.status_code == 201
    assert manager.patch("/v1/regions/A", json={"name": "B"}).status_code == 200
    again = send()
    assert again.status_code == 201, again.text
    person = again.json()["person"]
    assert (person["id"], person["region"]) == (first.json()["person"]["id"], "B")
    refused(send("tuesday"), 403, "region_not_allowed")
    assert manager.put(f"/v1/persons/{person['id']}/region", json={"region": "C"}).status_code == 200
    refused(send(), 404, "unknown_person")
