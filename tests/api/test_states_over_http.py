"""States, expiry, retention and sealed photos over HTTP."""

from __future__ import annotations

import datetime as dt

import psycopg
import pytest
from companies import Company

from faceward import Client
from faceward.errors import InvalidValueError, PersonSuspendedError
from faceward.settings import Settings

PAST = "2020-01-01T00:00:00Z"


def found(company: Company) -> bool:
    with Client(company.url, company.keys["recognizer"]) as client:
        (face,) = client.recognize(company.photo("obama2.jpg"), region="A").faces
        return face.match is not None


def test_who_is_suspended_is_kept_and_not_matched(company: Company) -> None:
    with Client(company.url, company.keys["enroller"]) as client:
        person = client.enroll(company.photo("obama.jpg"), name="Barack", region="A").person
        assert (person.state, person.expires_at) == ("active", None)
        assert found(company)
        assert client.update_person(person.id, state="suspended").state == "suspended"
        assert not found(company)
        assert [each.state for each in client.list_persons(region="A").items] == ["suspended"]
        with pytest.raises(PersonSuspendedError, match="is suspended"):
            client.verify(company.photo("obama2.jpg"), person_id=person.id)
        assert client.update_person(person.id, state="active").state == "active"
        assert found(company)
        with pytest.raises(InvalidValueError):
            client.update_person(person.id, state="asleep")  # type: ignore[arg-type]


def test_who_has_expired_is_not_matched(company: Company) -> None:
    soon = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(days=1)
    with Client(company.url, company.keys["enroller"]) as client:
        person = client.enroll(company.photo("obama.jpg"), name="Barack", region="A", expires_at=soon).person
        assert person.expires_at == soon
        assert found(company)
        client.update_person(person.id, expires_at=dt.datetime.fromisoformat(PAST))
        assert not found(company)
        with pytest.raises(PersonSuspendedError, match="has expired"):
            client.verify(company.photo("obama2.jpg"), person_id=person.id)
        assert client.update_person(person.id, expires_at=None).expires_at is None
        assert found(company)


@pytest.mark.parametrize(
    "value",
    [
        "tomorrow",
        "20991231",
        20991231,
        "253402300800",
        253402300800,
        "2030-01-31",
        "2030-01-31T12:00:00",
        "2030-01-31T12:00Z",
        "2030-02-30T12:00:00Z",
        "9999-12-31T23:59:59-12:00",
        "0001-01-01T00:00:00+12:00",
        "",
        1e300,
        [],
        True,
    ],
)
def test_a_time_that_is_none_is_refused(company: Company, value: object) -> None:
    company.enroll_once()
    http = company.http("enroller")
    (person,) = http.get("/v1/persons").json()["items"]
    answers = [
        http.patch(f"/v1/persons/{person['id']}", json={"expires_at": value}),
        company.http("manager").post("/v1/keys", json={"role": "recognizer", "expires_at": value}),
    ]
    if isinstance(value, str):
        form = {"name": "Joe", "region": "A", "expires_at": value}
        answers.append(http.post("/v1/persons", data=form, files={"images": company.photo("biden.jpg")}))
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_value")
        (problem,) = answer.json()["problems"]
        assert problem["field"] == "expires_at"
        assert "as 2099-12-31T00:00:00Z" in problem["message"] or "year" in problem["message"]
    assert http.get("/v1/persons").json()["items"] == [person]


@pytest.mark.parametrize("value", ["2030-01-31t12:00:00.1234567z", "2030-01-31 14:00:00.123456+02:00"])
def test_a_time_may_be_written_in_each_way_of_rfc_3339(company: Company, value: str) -> None:
    expires_at = company.enroll(expires_at=value)["person"]["expires_at"]
    assert dt.datetime.fromisoformat(expires_at) == dt.datetime.fromisoformat("2030-01-31T12:00:00.123456Z")


def test_nobody_is_enrolled_who_has_expired(company: Company) -> None:
    """The next purge would erase them."""
    http, photo = company.http(), {"images": company.photo("obama.jpg")}
    answer = http.post("/v1/persons", data={"name": "Joe", "region": "A", "expires_at": PAST}, files=photo)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_value")
    assert answer.json()["field"] == "expires_at"
    assert "in the future" in answer.json()["detail"]
    assert http.get("/v1/persons").json()["items"] == []


def test_a_retention_decides_when_new_people_expire(company: Company) -> None:
    with Client(company.url, company.keys["manager"]) as client:
        assert client.create_region("A", retention_days=30).retention_days == 30
        person = client.enroll(company.photo("obama.jpg"), name="Barack", region="A").person
        assert person.expires_at == person.created_at + dt.timedelta(days=30)
        assert client.update_region("A", retention_days=None).retention_days is None
        later = client.enroll(company.photo("biden.jpg"), name="Joe", region="A").person
        assert later.expires_at is None
        assert client.get_person(person.id).expires_at == person.expires_at
        with pytest.raises(InvalidValueError):
            client.update_region("A", retention_days=0)
    with Client(company.url, company.keys["admin"]) as admin:
        made = admin.create_client(f"{company.client_id}-short", retention_days=7)
        assert made.retention_days == 7
        assert admin.update_client(made.client_id, retention_days=None).retention_days is None


def test_a_retention_is_given_to_people_who_are_there(company: Company, api_settings: Settings) -> None:
    with Client(company.url, company.keys["manager"]) as client:
        old, young = (
            client.enroll(company.photo(photo), name=photo, region="A").person for photo in ("obama.jpg", "biden.jpg")
        )
        other = client.enroll(company.photo("astronaut.png"), name="Eileen", region="B").person
        with psycopg.connect(api_settings.database.url) as owner:
            owner.execute("UPDATE persons SET created_at = created_at - interval '40 days' WHERE id = %s", (old.id,))
        assert client.update_region("A", retention_days=365).existing is None
        assert found(company)
        changed = client.update_region("A", retention_days=30, apply_to_existing=True)
        assert changed.existing is not None
        assert (changed.existing.people, changed.existing.expired, changed.retention_days) == (2, 1, 30)
        assert not found(company)
        assert client.get_person(young.id).expires_at == young.created_at + dt.timedelta(days=30)
        assert client.get_person(other.id).expires_at is None
        for change in ({}, {"retention_days": None}):
            with pytest.raises(InvalidValueError, match="given with retention_days"):
                client.update_region("B", apply_to_existing=True, **change)
    key = company.new_key("manager", regions=["A"])
    body = {"retention_days": 1, "apply_to_existing": True}
    assert company.http(key=key).patch("/v1/regions/B", json=body).status_code == 403
    assert company.http(key=key).patch("/v1/regions/A", json=body).json()["existing"] == {"people": 1, "expired": 0}
    with Client(company.url, company.keys["admin"]) as admin:
        assert admin.get_person(other.id).expires_at is None
        of_client = admin.update_client(company.client_id, retention_days=30, apply_to_existing=True)
        assert of_client.existing is not None
        assert (of_client.existing.people, of_client.existing.expired) == (1, 0)
        assert admin.get_person(other.id).expires_at == other.created_at + dt.timedelta(days=30)


def test_a_photo_is_sealed_and_one_whose_key_is_gone_is_told_by_the_keys_id(
    company: Company, api_settings: Settings
) -> None:
    enrolled = company.enroll()
    http = company.http("enroller")
    path = f"/v1/persons/{enrolled['person']['id']}/faces/{enrolled['faces'][0]['id']}/image"
    assert http.get(path).content == company.photo("obama.jpg")
    with psycopg.connect(api_settings.database.url) as owner:
        changed = owner.execute(
            "UPDATE face_encodings SET image_key_id = 'lost' WHERE client_id = %s AND image_key_id = '2026' "
            "AND position('\\xffd8ff'::bytea IN image_data) <> 1",
            (company.client_id,),
        )
        assert changed.rowcount == 1
    answer = http.get(path)
    assert (answer.status_code, answer.json()["code"]) == (503, "image_key")
    assert "'lost'" in answer.json()["detail"]
