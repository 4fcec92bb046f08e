"""Over HTTP: who did what, what was decided, a person's data, and its end."""

from __future__ import annotations

import io
import json
import zipfile

import httpx
import pytest
from companies import Company, RunningServer

import faceward
from faceward.receipts import Receipt
from searching import at_last


@pytest.fixture
def alice(company: Company) -> int:
    made: int = company.enroll(name="Alice")["person"]["id"]
    return made


def test_the_log_names_the_key_and_never_the_person(company: Company, alice: int) -> None:
    enroller, manager = company.http("enroller"), company.http("manager")
    assert enroller.patch(f"/v1/persons/{alice}", json={"description": "Hidden"}).status_code == 200
    page = manager.get("/v1/audit", params={"person_id": alice}).json()
    assert [entry["action"] for entry in page["items"]] == ["person.change", "person.enroll"]
    prefix = enroller.get("/v1/me").json()["prefix"]
    assert {entry["actor"] for entry in page["items"]} == {f"key:{prefix}"}
    assert page["next"] is None
    everything = manager.get("/v1/audit").text
    assert "Alice" not in everything
    assert "Hidden" not in everything


def test_the_log_is_read_by_page_and_filter(company: Company, alice: int) -> None:
    manager = company.http("manager")
    first = manager.get("/v1/audit", params={"limit": 2}).json()
    rest = manager.get("/v1/audit", params={"limit": 1000, "cursor": first["next"]}).json()
    ids = [entry["id"] for entry in first["items"] + rest["items"]]
    assert ids == sorted(ids, reverse=True)
    assert rest["next"] is None
    (entry,) = manager.get("/v1/audit", params={"action": "person.enroll"}).json()["items"]
    assert entry["person_id"] == alice
    after = manager.get("/v1/audit", params={"since": "2999-01-01T00:00:00Z"}).json()
    assert after["items"] == []
    for edge in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        assert manager.get("/v1/audit", params={"since": edge}).status_code == 200
        assert manager.get("/v1/decisions", params={"since": edge}).status_code == 200
    at = manager.get("/v1/audit", params={"since": entry["at"], "actor": entry["actor"]}).json()
    assert [each["action"] for each in at["items"]][-1] in ("person.enroll", "region.create", "client.create")
    for wrong in (
        {"action": "x"},
        {"since": "yesterday"},
        {"since": "2026-01-01T00:00:00"},
        {"since": "20991231"},
        {"cursor": "x"},
        {"limit": 0},
    ):
        assert manager.get("/v1/audit", params=wrong).status_code == 422, wrong
    digits = manager.get("/v1/decisions", params={"since": "4102358400"}).json()
    assert digits["problems"][0]["message"].endswith("as 2099-12-31T00:00:00Z")


def test_decisions_are_read_with_their_candidates(company: Company, alice: int) -> None:
    recognizer, manager = company.http("recognizer"), company.http("manager")
    image = {"image": ("p.jpg", company.photo("obama2.jpg"))}
    assert recognizer.post("/v1/recognize", data={"region": "A"}, files=image).status_code == 200
    assert recognizer.post("/v1/verify", data={"person_id": alice}, files=image).status_code == 200
    at_last(lambda: len(manager.get("/v1/decisions").json()["items"]) == 2)
    verified, recognised = manager.get("/v1/decisions", params={"person_id": alice}).json()["items"]
    prefix = recognizer.get("/v1/me").json()["prefix"]
    assert (recognised["kind"], recognised["decision"], recognised["regions"]) == ("recognize", "match", ["A"])
    assert (verified["kind"], verified["decision"], verified["actor"]) == ("verify", "verified", f"key:{prefix}")
    (candidate,) = recognised["candidates"]
    assert candidate["person_id"] == alice
    assert candidate["similarity"] > 0.4
    assert recognised["threshold"]["source"] == "pack"
    assert manager.get("/v1/decisions", params={"decision": "unknown"}).json()["items"] == []


def test_a_search_by_embedding_is_a_decision_too(company: Company, alice: int) -> None:
    recognizer, manager = company.http("recognizer"), company.http("manager")
    probe = {"embedding": [1.0] * 512, "region": ["A"]}
    assert recognizer.post("/v1/search", json=probe).json()["candidates"] == []
    assert len(recognizer.post("/v1/search", json={**probe, "threshold": -1.0}).json()["candidates"]) == 1
    at_last(lambda: len(manager.get("/v1/decisions").json()["items"]) == 2)
    found, unknown = manager.get("/v1/decisions").json()["items"]
    for each, outcome, source in ((found, "match", "request"), (unknown, "unknown", "pack")):
        assert (each["kind"], each["decision"], each["threshold"]["source"]) == ("search", outcome, source)
        assert (each["regions"], [near["person_id"] for near in each["candidates"]]) == (["A"], [alice])


def test_a_person_is_exported(company: Company, alice: int) -> None:
    answer = company.http("manager").get(f"/v1/persons/{alice}/export")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    assert int(answer.headers["content-length"]) == len(answer.content)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert json.loads(archive.read("person.json"))["id"] == alice
        (photo,) = [name for name in archive.namelist() if name.startswith("photos/")]
        assert archive.read(photo) == company.photo("obama.jpg")
    file = io.BytesIO()
    with faceward.Client(company.url, company.keys["manager"]) as client:
        client.export_person(alice, file)
    assert zipfile.is_zipfile(file)


def test_an_erasure_has_one_receipt_however_often_it_is_asked_for(
    company: Company, alice: int, running: RunningServer
) -> None:
    manager = company.http("manager")
    headers = {"idempotency-key": "erase-1"}
    first = manager.post(f"/v1/persons/{alice}/erase", headers=headers)
    again = manager.post(f"/v1/persons/{alice}/erase", headers=headers)
    assert first.status_code == again.status_code == 200, first.text
    assert first.json() == again.json()
    receipt = Receipt.parse(first.text)
    receipt.verify(running.app.state.parts.service._signer.public_key)
    assert receipt.content["client_id"] == company.client_id
    assert receipt.content["complete"] is True
    assert manager.post(f"/v1/persons/{alice}/erase").json()["code"] == "unknown_person"
    (entry,) = manager.get("/v1/audit", params={"action": "person.erase"}).json()["items"]
    assert (entry["person_id"], entry["details"]["receipt"]) == (None, receipt.content["id"])


def test_who_was_merged_is_not_erased_alone(company: Company, alice: int) -> None:
    joe = company.enroll("biden.jpg", "A", name="Joe")["person"]["id"]
    manager = company.http("manager")
    assert manager.post(f"/v1/persons/{joe}/merge", json={"into": alice}).status_code == 200
    refused = manager.post(f"/v1/persons/{joe}/erase")
    assert refused.status_code == 409, refused.text
    assert (refused.json()["code"], refused.json()["person_id"]) == ("person_merged", alice)
    assert manager.post(f"/v1/persons/{alice}/erase").json()["receipt"]["removed"]["faces"] == 2


def test_a_key_of_some_regions_gets_its_receipt_again_and_erases_nobody_else(company: Company, alice: int) -> None:
    elsewhere = company.enroll("biden.jpg", "B", name="Joe")["person"]["id"]
    own, other = (company.http(key=company.new_key("manager", regions=["A"])) for _ in range(2))
    headers = {"idempotency-key": "erase-1"}
    first = own.post(f"/v1/persons/{alice}/erase", headers=headers)
    assert first.status_code == 200, first.text
    assert own.post(f"/v1/persons/{alice}/erase", headers=headers).json() == first.json()
    # What another key erased, and who is in another region, this one hears nothing of.
    for http, person in ((other, alice), (own, elsewhere), (other, elsewhere), (other, 2**62)):
        refused = http.post(f"/v1/persons/{person}/erase", headers={"idempotency-key": f"of-{person}"})
        assert (refused.status_code, refused.json()["code"]) == (404, "unknown_person")
    refused = other.post(f"/v1/persons/{alice}/erase", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (404, "unknown_person")
    assert company.http("manager").get(f"/v1/persons/{elsewhere}").status_code == 200


def test_the_client_erases_and_reads(company: Company, alice: int) -> None:
    with faceward.Client(company.url, company.keys["manager"]) as client:
        receipt = client.erase_person(alice)
        assert receipt.receipt["removed"]["persons"] == 1
        assert client.list_audit(action="person.erase").items[0].details["receipt"] == receipt.receipt["id"]
        assert client.list_decisions(person_id=alice).items == []


def test_what_waits_and_what_was_lost_is_measured(running: RunningServer) -> None:
    page = httpx.get(f"{running.url}/metrics").text
    for name in ("faceward_decisions_waiting", "faceward_decisions_written", "faceward_decisions_lost"):
        assert name in page
