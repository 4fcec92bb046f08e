"""Imports over HTTP: sent, watched to their end, reported."""

from __future__ import annotations

import io
import json
import time
import zipfile
from typing import Any

import httpx
import pytest
from companies import Company

ZIP = {"content-type": "application/zip"}
LINES = {"content-type": "application/x-ndjson"}


def packed(company: Company) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("A/barack/1.jpg", company.photo("obama.jpg"))
        archive.writestr("B/joe/1.jpg", company.photo("biden.jpg"))
        archive.writestr("A/nobody/1.jpg", b"no photo")
    return made.getvalue()


def send(company: Company, content: bytes, headers: dict[str, str], key: str | None = None) -> Any:
    answer = company.http(key=key).post("/v1/imports", content=content, headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    return answer.json()


def ended(http: httpx.Client, job: Any) -> Any:
    for _ in range(1500):
        found = http.get(f"/v1/jobs/{job['id']}").json()
        if found["finished_at"] is not None:
            return found
        time.sleep(0.02)
    raise AssertionError(found)


def test_an_archive_is_imported_and_its_report_says_what_was_not(company: Company) -> None:
    http = company.http()
    job = ended(http, send(company, packed(company), ZIP))
    assert (job["state"], job["total"], job["stored_persons"], job["stored_faces"]) == ("partial", 3, 2, 2)
    (refusal,) = http.get(f"/v1/jobs/{job['id']}/refusals").json()["items"]
    assert (refusal["item"], refusal["code"]) == ("A/nobody/1.jpg", "not_an_image")
    found = company.http("recognizer").post(
        "/v1/recognize", data={"region": "A"}, files={"image": company.photo("obama2.jpg")}
    )
    assert [face["match"]["name"] for face in found.json()["faces"]] == ["barack"]
    assert [each["id"] for each in http.get("/v1/jobs").json()["items"]] == [job["id"]]
    assert http.post(f"/v1/jobs/{job['id']}/cancel").json() == job


def test_an_import_sent_again_is_the_same_import(company: Company) -> None:
    headers = {**ZIP, "idempotency-key": "monday"}
    content = packed(company)  # once: the archive holds the time
    first = send(company, content, headers)
    done = ended(company.http(), first)
    assert send(company, content, headers) == done
    other = company.http().post("/v1/imports", content=b"PK another", headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(company.http().get("/v1/jobs").json()["items"]) == 1


def test_a_key_of_one_region_imports_into_no_other(company: Company) -> None:
    key = company.new_key("enroller", regions=["A"])
    job = ended(company.http(key=key), send(company, packed(company), ZIP, key))
    assert (job["state"], job["stored_faces"], job["refused"]) == ("partial", 1, 2)
    report = company.http(key=key).get(f"/v1/jobs/{job['id']}/refusals").json()["items"]
    assert [refusal["code"] for refusal in report] == ["region_not_allowed", "not_an_image"]
    people = company.http().get("/v1/persons").json()["items"]
    assert [(person["region"], person["external_id"]) for person in people] == [("A", "barack")]


def test_pages_of_a_report_lose_no_refusal(company: Company) -> None:
    http = company.http()
    content = "\n".join(json.dumps({"external_id": f"e{number}"}) for number in range(5)).encode()
    job = ended(http, send(company, content, LINES))
    assert (job["state"], job["error_code"], job["refused"]) == ("failed", "nothing_stored", 5)
    seen: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        page = http.get(
            f"/v1/jobs/{job['id']}/refusals", params={"limit": 2, **({"cursor": cursor} if cursor else {})}
        ).json()
        seen += [refusal["position"] for refusal in page["items"]]
        cursor = page["next"]
    assert seen == list(range(5))


def test_embeddings_of_another_model_are_not_imported(company: Company) -> None:
    http = company.http()
    line = json.dumps({"external_id": "1", "region": "A", "name": "Joe", "embedding": [1.0] * 512}).encode()
    for model_id, state, code in (
        ("another", "failed", "model_mismatch"),
        (http.get("/v1/me").json()["model_id"], "succeeded", None),
    ):
        sent = http.post("/v1/imports", content=line, headers=LINES, params={"model_id": model_id})
        job = ended(http, sent.json())
        assert (job["state"], job["error_code"]) == (state, code)
    with_photos = http.post("/v1/imports", content=packed(company), headers=ZIP, params={"model_id": "m"})
    assert (with_photos.status_code, with_photos.json()["code"]) == (422, "invalid_value")


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"", ZIP, 422, "import_source"),
        (b"x", {"content-type": "application/x-rar"}, 415, "unsupported_media_type"),
        (b"x", {**ZIP, "idempotency-key": "x" * 256}, 422, "invalid_value"),
    ],
)
def test_an_import_that_cannot_be_taken_is_refused_at_once(
    company: Company, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = company.http().post("/v1/imports", content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert company.http().get("/v1/jobs").json()["items"] == []
