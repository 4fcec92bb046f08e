"""What each resource does over HTTP, beside what the tests of isolation, imports and hostile requests state."""

from __future__ import annotations

import base64
import datetime as dt
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from companies import FIRST_KEY, Company, RunningServer

from faceward.api.problems import problem
from faceward.client.transport import error_of
from faceward.errors import IndexMissingError, LikelyDuplicateError

OBAMA, BIDEN = "obama.jpg", "biden.jpg"


def is_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return problem


def good(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


def recognized(company: Company, photo: str | bytes = "obama2.jpg", **fields: Any) -> Any:
    """The faces of an answer of /v1/recognize; region A where no other is named."""
    image = company.photo(photo) if isinstance(photo, str) else photo
    answer = company.http("recognizer").post(
        "/v1/recognize", data={"region": "A", **fields}, files={"image": ("p.jpg", image)}
    )
    return good(answer)["faces"]


def two_people(company: Company) -> bytes:
    """One photo of the two, side by side."""
    left, right = (
        cv2.imdecode(np.frombuffer(company.photo(name), np.uint8), cv2.IMREAD_COLOR) for name in (OBAMA, BIDEN)
    )
    assert left is not None
    assert right is not None
    both = np.full((804, 920, 3), 200, np.uint8)
    both[:400, :320], both[:, 320:] = cv2.resize(left, (320, 400)), cv2.resize(right[:1300], (600, 804))
    return cv2.imencode(".jpg", both)[1].tobytes()


def no_one() -> bytes:
    return cv2.imencode(".jpg", np.full((300, 300, 3), 127, np.uint8))[1].tobytes()


def blurred(company: Company) -> bytes:
    pixels = cv2.imdecode(np.frombuffer(company.photo("obama2.jpg"), np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return cv2.imencode(".png", cv2.GaussianBlur(pixels, (0, 0), 14))[1].tobytes()


# Persons and faces


def test_a_person_from_first_to_last_day(company: Company) -> None:
    http = company.http("enroller")
    made = company.enroll(OBAMA, "A", external_id="44", description="first\nline")
    person, (face,) = made["person"], made["faces"]
    assert (person["name"], person["region"], person["external_id"]) == ("Barack Obama", "A", "44")
    assert person["face_count"] == 1
    assert face["quality"]["score"] > 0.3
    path = f"/v1/persons/{person['id']}"
    assert good(http.get(path)) == person

    more = good(http.post(f"{path}/faces", files={"images": company.photo("obama2.jpg")}), 201)
    assert more["person"]["face_count"] == 2
    faces = good(http.get(f"{path}/faces"))["items"]
    assert [each["id"] for each in faces] == [face["id"], more["faces"][0]["id"]]
    page = good(http.get(f"{path}/faces", params={"limit": 1}))
    assert page == {"items": faces[:1], "next": str(face["id"])}
    assert good(http.get(f"{path}/faces", params={"cursor": page["next"]})) == {"items": faces[1:], "next": None}
    assert faces[0]["has_image"]
    assert faces[0]["box"]["right"] > faces[0]["box"]["left"]

    image = http.get(f"{path}/faces/{face['id']}/image")
    assert image.content == company.photo(OBAMA)
    assert image.headers["content-type"] == "image/jpeg"
    assert image.headers["content-disposition"].startswith("attachment")

    good(http.delete(f"{path}/faces/{face['id']}"), 204)
    assert [each["id"] for each in good(http.get(f"{path}/faces"))["items"]] == [more["faces"][0]["id"]]
    is_problem(http.delete(f"{path}/faces/{face['id']}"), 404, "not_found")

    changed = good(http.patch(path, json={"name": "B. Obama", "description": None}))
    assert (changed["name"], changed["description"], changed["external_id"]) == ("B. Obama", None, "44")
    assert changed["updated_at"] > person["updated_at"]
    is_problem(http.patch(path, json={"name": None}), 422, "invalid_value")

    good(http.put(f"{path}/region", json={"region": "B"}))
    assert recognized(company)[0]["match"] is None
    assert recognized(company, region="B")[0]["match"]["name"] == "B. Obama"

    good(http.delete(path), 204)
    is_problem(http.get(path), 404, "unknown_person")
    assert recognized(company, region="B")[0]["candidates"] == []


def test_two_records_of_one_person_become_one(company: Company, new_company: Callable[[], Company]) -> None:
    first = company.enroll(OBAMA, "A", external_id="44")["person"]["id"]
    second = company.enroll("obama2.jpg", "B", "B. Obama", external_id="44b")["person"]["id"]
    http, path = company.http("manager"), f"/v1/persons/{second}/merge"
    is_problem(http.post(path, json={"into": first}), 409, "different_regions")
    is_problem(http.post(path, json={"into": second, "across_regions": True}), 422, "invalid_value")
    is_problem(company.http("enroller").post(path, json={"into": first}), 403, "role_not_allowed")
    strangers = new_company().enroll(OBAMA, "A")["person"]["id"]
    is_problem(http.post(path, json={"into": strangers, "across_regions": True}), 404, "unknown_person")
    door = company.http(key=company.new_key("enroller", regions=["A"]))
    for _ in range(2):  # the answer to the first may be lost
        merged = good(
            http.post(path, json={"into": first, "across_regions": True}, headers={"idempotency-key": "merge"})
        )
        assert (merged["person"]["id"], merged["person"]["face_count"], merged["faces_moved"]) == (first, 2, 1)
        assert merged["external_id_dropped"]
    is_problem(http.get(f"/v1/persons/{second}"), 404, "unknown_person")
    assert good(door.get(f"/v1/persons/{first}"))["face_count"] == 2
    assert recognized(company, "obama3.jpg")[0]["match"]["person_id"] == first


def test_a_likely_duplicate_is_named_and_the_same_call_names_it_again(company: Company) -> None:
    first = company.enroll(OBAMA, "A")
    assert first["likely_duplicates"] == []
    answers = [
        good(
            company.http("enroller").post(
                "/v1/persons",
                data={"name": "B. Obama", "region": "A", "allow_duplicate": "true"},
                files={"images": company.photo("obama2.jpg")},
                headers={"idempotency-key": "again"},
            ),
            201,
        )
        for _ in range(2)
    ]
    (named,) = answers[0]["likely_duplicates"]
    assert (named["person_id"], named["face_id"]) == (first["person"]["id"], first["faces"][0]["id"])
    assert 0.38 < named["similarity"] < 1
    assert answers[1] == answers[0]


def test_a_refused_duplicate_is_an_error_with_ids_and_similarities() -> None:
    sent = problem(LikelyDuplicateError([(1042, 0.71), (7, 0.5)]), "an id")
    answer = httpx.Response(sent.status_code, content=bytes(sent.body))
    listed = [{"person_id": 1042, "similarity": 0.71}, {"person_id": 7, "similarity": 0.5}]
    assert (sent.status_code, answer.json()["code"]) == (409, "likely_duplicate")
    assert answer.json()["likely_duplicates"] == listed
    error = error_of(answer)
    assert isinstance(error, LikelyDuplicateError)
    assert list(error.likely_duplicates) == listed


def test_a_strategy_whose_index_is_missing_is_told_what_to_use() -> None:
    sent = problem(IndexMissingError("The index is missing. Use the strategy auto."), "an id")
    error = error_of(httpx.Response(sent.status_code, content=bytes(sent.body)))
    assert (sent.status_code, type(error)) == (409, IndexMissingError)
    assert "Use the strategy auto" in str(error)


def test_pages_and_filters_of_persons(company: Company) -> None:
    first = company.enroll(OBAMA, "A", "Barack Obama", external_id="44")["person"]["id"]
    second = company.enroll(BIDEN, "A", "Joe Biden", external_id="46")["person"]["id"]
    third = company.enroll("astronaut.png", "B", "Eileen")["person"]["id"]
    http = company.http("recognizer")

    def ids(**query: Any) -> tuple[list[int], str | None]:
        page = good(http.get("/v1/persons", params=query))
        return [each["id"] for each in page["items"]], page["next"]

    found, cursor = ids(limit=2)
    assert found == [first, second]
    assert ids(limit=2, cursor=cursor) == ([third], None)
    assert ids(region="B")[0] == [third]
    assert ids(name_prefix="Joe")[0] == [second]
    assert ids(external_id="44")[0] == [first]
    is_problem(http.get("/v1/persons", params={"cursor": "x"}), 422, "invalid_value")
    is_problem(http.get("/v1/persons", params={"limit": 1001}), 422, "invalid_value")


def test_several_photos_are_stored_together_or_not_at_all(company: Company) -> None:
    http, url = company.http("enroller"), "/v1/persons"
    form = {"name": "Barack Obama", "region": "A"}
    files = [("images", company.photo(name)) for name in (OBAMA, "obama2.jpg")]
    is_problem(http.post(url, data=form, files=[*files, ("images", no_one())]), 422, "no_face")
    assert good(http.get(url))["items"] == []
    assert len(good(http.post(url, data=form, files=files), 201)["faces"]) == 2


def test_json_with_base64_is_the_same_as_a_form(company: Company) -> None:
    photo = base64.b64encode(company.photo(OBAMA)).decode()
    http = company.http("enroller")
    body = {"name": "Barack Obama", "region": "A", "images": [f"data:image/jpeg;base64,{photo}"]}
    made = good(http.post("/v1/persons", json=body), 201)
    probe = base64.b64encode(company.photo("obama2.jpg")).decode()
    by_json = good(http.post("/v1/recognize", json={"image": probe, "region": "A"}))
    assert by_json["faces"] == recognized(company)
    assert by_json["faces"][0]["match"]["person_id"] == made["person"]["id"]


def test_the_same_photo_again_names_who_has_it(company: Company) -> None:
    person = company.enroll(OBAMA)["person"]["id"]
    again = company.http().post(
        "/v1/persons", data={"name": "Other", "region": "A"}, files={"images": company.photo(OBAMA)}
    )
    assert is_problem(again, 409, "duplicate_face")["person_id"] == person
    more = company.http().post(f"/v1/persons/{person}/faces", files={"images": company.photo(OBAMA)})
    assert is_problem(more, 409, "duplicate_face")["person_id"] == person
    taken = {"name": "Joe", "region": "A", "external_id": "46"}
    company.enroll(BIDEN, **taken)
    twin = company.http().post("/v1/persons", data=taken, files={"images": company.photo("astronaut.png")})
    is_problem(twin, 409, "duplicate_person")


def test_photos_that_can_not_be_enrolled(company: Company) -> None:
    http, form = company.http(), {"name": "Both", "region": "A"}
    several = is_problem(
        http.post("/v1/persons", data=form, files={"images": two_people(company)}), 422, "several_faces"
    )
    assert several["request_id"]
    largest = http.post("/v1/persons", data={**form, "several_faces": "largest"}, files={"images": two_people(company)})
    assert good(largest, 201)["person"]["face_count"] == 1
    poor = http.post("/v1/persons", data=form, files={"images": blurred(company)})
    assert "blurred" in is_problem(poor, 422, "low_quality")["reasons"]


# Recognition


def test_each_face_has_a_decision_and_its_reason(company: Company) -> None:
    person = company.enroll(OBAMA)["person"]["id"]
    (face,) = recognized(company)
    assert (face["decision"], face["match"]["person_id"]) == ("match", person)
    assert face["match"] == face["candidates"][0]
    assert face["match"]["match_score"] == pytest.approx(100 * face["match"]["similarity"])
    assert "Barack Obama" in face["reason"]
    (stranger,) = recognized(company, BIDEN)
    assert (stranger["decision"], stranger["match"]) == ("unknown", None)
    assert stranger["candidates"][0]["person_id"] == person
    assert recognized(company, no_one()) == []


def test_two_who_are_too_near_are_ambiguous_and_both_are_named(company: Company) -> None:
    pixels = cv2.imdecode(np.frombuffer(company.photo(OBAMA), np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    twin = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 93])[1].tobytes()
    first = company.enroll(OBAMA)["person"]["id"]
    answer = company.http().post("/v1/persons", data={"name": "Twin", "region": "A"}, files={"images": twin})
    second = good(answer, 201)["person"]["id"]
    (face,) = recognized(company)
    assert (face["decision"], face["match"]) == ("ambiguous", None)
    assert {each["person_id"] for each in face["candidates"]} == {first, second}
    assert "Twin" in face["reason"]
    assert "Barack Obama" in face["reason"]


def test_the_threshold_is_the_request_s_the_region_s_the_client_s_the_pack_s(company: Company) -> None:
    company.enroll(OBAMA)
    manager, admin = company.http("manager"), company.http("admin")

    def used(**fields: Any) -> tuple[float, str]:
        threshold = recognized(company, **fields)[0]["threshold"]
        return threshold["value"], threshold["source"]

    pack = used()
    assert pack[1] == "pack"
    good(admin.patch(f"/v1/clients/{company.client_id}", json={"threshold": 0.31}))
    _until(lambda: used() == (pytest.approx(0.31), "client"))
    good(manager.patch("/v1/regions/A", json={"threshold": 0.99}))
    _until(lambda: used() == (pytest.approx(0.99), "region"))
    assert recognized(company)[0]["decision"] == "unknown"
    assert used(threshold=0.2) == (0.2, "request")
    good(manager.patch("/v1/regions/A", json={"threshold": None}))
    good(admin.patch(f"/v1/clients/{company.client_id}", json={"threshold": 1e-300}))  # nothing in 32 bits
    _until(lambda: used() == (0.0, "client"))
    good(admin.patch(f"/v1/clients/{company.client_id}", json={"threshold": None}))
    _until(lambda: used() == pack)


def test_options_of_recognition(company: Company) -> None:
    company.enroll(OBAMA, "A", "Barack Obama")
    company.enroll(BIDEN, "B", "Joe Biden")
    company.enroll("astronaut.png", "B", "Eileen")
    both = two_people(company)
    large, small = recognized(company, both, region=["A", "B"])
    assert [face["match"]["name"] for face in (large, small)] == ["Joe Biden", "Barack Obama"]
    assert (large["match"]["region"], small["match"]["region"]) == ("B", "A")
    assert {each["name"] for each in small["candidates"]} == {"Barack Obama", "Joe Biden", "Eileen"}
    assert len(recognized(company, both, region=["A", "B"], top_k=1)[0]["candidates"]) == 1
    assert len(recognized(company, both, max_faces=1)) == 1
    assert len(recognized(company, blurred(company))) == 1
    assert recognized(company, blurred(company), min_quality=0.9) == []
    assert recognized(company, strategy="exact")[0]["match"]["name"] == "Barack Obama"
    is_problem(
        company.http().post("/v1/recognize", data={"region": "A", "treshold": "0.1"}, files={"image": both}),
        422,
        "invalid_value",
    )
    unknown = company.http().post("/v1/recognize", data={"region": "C"}, files={"image": both})
    assert is_problem(unknown, 404, "unknown_region")["known_regions"] == ["A", "B"]


def test_verification_against_a_photo_and_a_person(company: Company) -> None:
    made = company.enroll(OBAMA)
    http, photo = company.http("recognizer"), company.photo
    same = good(http.post("/v1/verify", files={"image": photo("obama2.jpg"), "other": photo("obama3.jpg")}))
    assert same["verified"]
    assert same["threshold"]["source"] == "pack"
    assert same["face_id"] is None
    other = good(http.post("/v1/verify", files={"image": photo("obama2.jpg"), "other": photo(BIDEN)}))
    assert not other["verified"]
    form = {"person_id": made["person"]["id"]}
    person = good(http.post("/v1/verify", data=form, files={"image": photo("obama2.jpg")}))
    assert person["verified"]
    assert person["face_id"] == made["faces"][0]["id"]
    form["threshold"] = 1
    strict = good(http.post("/v1/verify", data=form, files={"image": photo("obama2.jpg")}))
    assert (strict["verified"], strict["threshold"]) == (False, {"value": 1.0, "source": "request"})
    is_problem(http.post("/v1/verify", data=form, files={"image": no_one()}), 422, "no_face")
    is_problem(http.post("/v1/verify", files={"image": photo(OBAMA)}), 422, "invalid_value")


def test_detection_and_search(company: Company) -> None:
    company.enroll(OBAMA)
    http = company.http("recognizer")
    faces = good(http.post("/v1/detect", files={"image": two_people(company)}))["faces"]
    assert len(faces) == 2
    assert len(faces[0]["landmarks"]) == 5
    assert len(good(http.post("/v1/detect", data={"max_faces": 1}, files={"image": two_people(company)}))["faces"]) == 1
    near = good(http.post("/v1/search", json={"embedding": [1.0] * 512, "region": ["A"], "threshold": -1}))
    assert [each["name"] for each in near["candidates"]] == ["Barack Obama"]
    is_problem(http.post("/v1/search", json={"embedding": [1.0] * 5, "region": "A"}), 422, "invalid_embedding")


# Regions


def test_a_region_from_first_to_last_day(company: Company) -> None:
    http = company.http("manager")
    made = good(http.post("/v1/regions", json={"name": "Hall 1/2", "threshold": 0.4}), 201)
    assert (made["persons"], made["faces"], made["threshold"]) == (0, 0, pytest.approx(0.4))
    is_problem(http.post("/v1/regions", json={"name": "Hall 1/2"}), 409, "duplicate_region")
    person = company.enroll(OBAMA, "Hall 1/2")["person"]["id"]
    key = company.http(key=company.new_key("recognizer", regions=["Hall 1/2"]))
    assert [(each["name"], each["persons"], each["faces"]) for each in good(key.get("/v1/regions"))["items"]] == [
        ("Hall 1/2", 1, 1)
    ]
    good(http.patch("/v1/regions/Hall%201/2", json={"name": "Hall"}))
    (face,) = recognized(company, region="Hall")
    assert (face["match"]["person_id"], face["match"]["region"]) == (person, "Hall")
    _until(lambda: key.get("/v1/me").json()["regions"] == ["Hall"])
    is_problem(http.get("/v1/regions/Hall%201/2"), 404, "unknown_region")
    is_problem(http.delete("/v1/regions/Hall"), 409, "region_not_empty")
    good(company.http().delete(f"/v1/persons/{person}"), 204)
    good(http.delete("/v1/regions/Hall"), 204)
    assert good(http.get("/v1/regions"))["items"] == []


def test_regions_are_listed_in_pages_and_within_what_a_key_may(company: Company) -> None:
    http = company.http("manager")
    for name in ("C", "A", "D", "B"):
        good(http.post("/v1/regions", json={"name": name}), 201)

    def names(client: httpx.Client, **query: Any) -> tuple[list[str], str | None]:
        page = good(client.get("/v1/regions", params=query))
        return [each["name"] for each in page["items"]], page["next"]

    assert names(http, limit=3) == (["A", "B", "C"], "C")
    assert names(http, limit=3, cursor="C") == (["D"], None)
    limited = company.http(key=company.new_key("recognizer", regions=["B", "D", "Z"]))
    assert names(limited, limit=1) == (["B"], "B")
    assert names(limited, limit=1, cursor="B") == (["D"], None)
    for query in ({"limit": 0}, {"cursor": ""}, {"cursor": "x" * 51}, {"cursor": " "}):
        is_problem(http.get("/v1/regions", params=query), 422, "invalid_value")


def test_an_unknown_region_is_told_with_some_of_those_that_exist(company: Company) -> None:
    http = company.http("manager")
    for number in range(101):
        good(http.post("/v1/regions", json={"name": f"R{number:03}"}), 201)
    unknown = company.http().post("/v1/search", json={"embedding": [1.0] * 512, "region": "Z"})
    problem = is_problem(unknown, 404, "unknown_region")
    assert problem["known_regions"] == [f"R{number:03}" for number in range(100)]
    assert problem["detail"].endswith("R099, and more.")
    limited = company.http(key=company.new_key("recognizer", regions=["R100", "Z"]))
    problem = is_problem(limited.get("/v1/regions/Z"), 404, "unknown_region")
    assert (problem["known_regions"], problem["detail"][-9:]) == (["R100"], "do: R100.")


# Keys


def test_me_says_what_a_key_may(company: Company) -> None:
    me = good(company.http("recognizer").get("/v1/me"))
    assert (me["client_id"], me["role"], me["regions"]) == (company.client_id, "recognizer", None)
    assert me["may"] == ["recognize", "verify", "detect", "search", "read"]
    assert (me["model_id"].partition(":")[0], me["dimension"]) == ("faceplugin-0.0.1", 512)
    assert company.keys["recognizer"].startswith(f"fw_{me['prefix']}_")
    with httpx.Client(base_url=company.url, headers={"authorization": f"bearer {company.keys['manager']}"}) as bearer:
        assert "manage keys" in good(bearer.get("/v1/me"))["may"]


def test_a_secret_is_shown_once_and_ends_when_it_is_rotated_or_revoked(company: Company) -> None:
    http = company.http("manager")
    made = good(http.post("/v1/keys", json={"role": "enroller", "name": "desk"}), 201)
    key, secret = made["key"], made["secret"]
    good(company.http(key=secret).get("/v1/me"))
    path = f"/v1/keys/{key['id']}"
    assert secret not in http.get(path).text + http.get("/v1/keys").text
    _until(lambda: http.get(path).json()["last_used_at"] is not None)
    rotated = good(http.post(f"{path}/rotate"))
    assert rotated["key"]["id"] == key["id"]
    is_problem(company.http(key=secret).get("/v1/me"), 401, "unauthenticated")
    used = company.http(key=rotated["secret"])
    good(used.get("/v1/me"))
    assert good(http.delete(path))["revoked_at"] is not None
    is_problem(used.get("/v1/me"), 401, "unauthenticated")
    is_problem(http.post(f"{path}/rotate"), 409, "conflict")
    is_problem(http.post("/v1/keys", json={"role": "admin"}), 403, "role_not_allowed")


def test_a_key_ends_when_it_expires(company: Company) -> None:
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
    key = company.http(key=company.new_key("recognizer", expires_at=soon.isoformat()))
    good(key.get("/v1/me"))
    _until(lambda: key.get("/v1/me").status_code == 401)
    past = company.http("manager").post("/v1/keys", json={"role": "recognizer", "expires_at": "2001-01-01T00:00:00Z"})
    is_problem(past, 422, "invalid_value")


def test_an_admin_makes_clients_and_their_keys(company: Company) -> None:
    with httpx.Client(base_url=company.url, headers={"x-api-key": FIRST_KEY}) as admin:
        name = f"{company.client_id}/new"
        good(admin.post("/v1/clients", json={"client_id": name, "name": "New Ltd"}), 201)
        is_problem(admin.post("/v1/clients", json={"client_id": name}), 409, "duplicate_client")
        key = good(admin.post("/v1/keys", json={"role": "manager", "client_id": name}), 201)
        assert good(company.http(key=key["secret"]).get("/v1/me"))["client_id"] == name
        listed = good(admin.get("/v1/keys", params={"client_id": name}))["items"]
        assert [each["id"] for each in listed] == [key["key"]["id"]]
        assert name in [each["client_id"] for each in good(admin.get("/v1/clients", params={"limit": 1000}))["items"]]
        assert good(admin.get(f"/v1/clients/{name}"))["name"] == "New Ltd"
        good(admin.delete(f"/v1/keys/{key['key']['id']}", params={"client_id": name}))
    other = company.http("manager").get("/v1/keys", params={"client_id": name})
    is_problem(other, 403, "role_not_allowed")


# Requests sent again


def test_an_enrolment_sent_again_makes_no_second_person(company: Company) -> None:
    http = company.http()

    def send(name: str = "Barack Obama") -> httpx.Response:
        return http.post(
            "/v1/persons",
            data={"name": name, "region": "A"},
            files={"images": company.photo(OBAMA)},
            headers={"idempotency-key": "monday"},
        )

    with ThreadPoolExecutor(4) as threads:
        twins = [answer.result() for answer in [threads.submit(send) for _ in range(4)]]
    assert {answer.status_code for answer in twins} == {201}
    assert len({answer.json()["person"]["id"] for answer in twins}) == 1
    is_problem(send("Somebody else"), 422, "idempotency_key_reused")
    assert len(good(http.get("/v1/persons"))["items"]) == 1


def test_a_key_made_again_does_not_show_its_secret_again(company: Company) -> None:
    http, headers = company.http("manager"), {"idempotency-key": "door"}
    first = good(http.post("/v1/keys", json={"role": "recognizer"}, headers=headers), 201)
    again = http.post("/v1/keys", json={"role": "recognizer"}, headers=headers)
    assert is_problem(again, 409, "secret_shown")["key_id"] == first["key"]["id"]
    other = http.post("/v1/keys", json={"role": "enroller"}, headers=headers)
    is_problem(other, 422, "idempotency_key_reused")
    assert len(good(http.get("/v1/keys"))["items"]) == len(company.keys) + 1


def test_regions_and_clients_sent_again_are_made_once(company: Company) -> None:
    headers = {"idempotency-key": "monday"}
    http = company.http("manager")
    made = good(http.post("/v1/regions", json={"name": "A"}, headers=headers), 201)
    assert good(http.post("/v1/regions", json={"name": "A"}, headers=headers), 201) == made
    is_problem(http.post("/v1/regions", json={"name": "B"}, headers=headers), 422, "idempotency_key_reused")
    is_problem(http.post("/v1/regions", json={"name": "A"}), 409, "duplicate_region")
    good(http.delete("/v1/regions/A"), 204)
    is_problem(http.post("/v1/regions", json={"name": "A"}, headers=headers), 404, "unknown_region")
    admin, body = company.http("admin"), {"client_id": f"{company.client_id}-more", "name": "More Ltd"}
    client = good(admin.post("/v1/clients", json=body, headers=headers), 201)
    assert good(admin.post("/v1/clients", json=body, headers=headers), 201) == client
    is_problem(admin.post("/v1/clients", json={**body, "name": "x"}, headers=headers), 422, "idempotency_key_reused")
    is_problem(admin.post("/v1/clients", json=body), 409, "duplicate_client")
    is_problem(admin.post("/v1/clients", json=body, headers={"idempotency-key": "new"}), 409, "duplicate_client")


# Limits and headers


def test_a_key_over_its_rate_is_told_when_to_come_again(company: Company) -> None:
    key = company.http(key=company.new_key("recognizer", rate_limit=0.5))
    first = key.get("/v1/me")
    assert first.status_code == 200
    assert first.headers["ratelimit-policy"] == '"key";q=1;w=2'
    assert first.headers["ratelimit"].startswith('"key";r=0;t=')
    refused = key.get("/v1/me")
    is_problem(refused, 429, "rate_limited")
    assert int(refused.headers["retry-after"]) in (1, 2)
    assert refused.headers["ratelimit"].startswith('"key";r=0')
    good(company.http("recognizer").get("/v1/me"))
    too_slow = company.http("manager").post("/v1/keys", json={"role": "recognizer", "rate_limit": 1e-300})
    is_problem(too_slow, 422, "invalid_value")


@pytest.mark.parametrize("path", ["/v1/me", "/healthz", "/nothing"])
def test_every_answer_has_the_headers_that_keep_browsers_from_harm(company: Company, path: str) -> None:
    answer = company.http().get(path, headers={"x-request-id": "my-request-1", "origin": "https://evil.example.com"})
    assert answer.headers["x-request-id"] == "my-request-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "server" not in answer.headers
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_paths_and_methods_that_are_not_there(company: Company) -> None:
    is_problem(company.http().get("/v1/nothing"), 404, "not_found")
    is_problem(company.http().delete("/v1/me"), 405, "method_not_allowed")


def test_what_those_who_run_it_ask(running: RunningServer, company: Company) -> None:
    company.http().get("/v1/me")
    with httpx.Client(base_url=running.url) as http:
        assert good(http.get("/healthz")) == {"alive": True}
        assert good(http.get("/readyz")) == {"ready": True, "checks": {"database": "ok", "models": "ok"}}
        page = http.get("/metrics").text
        assert 'faceward_requests_total{method="GET",route="/v1/me",status="200"}' in page
        assert company.client_id not in page


def _until(so: Callable[[], bool]) -> None:
    """What a process believes of keys and thresholds may be a few seconds old."""
    for _ in range(200):
        if so():
            return
        time.sleep(0.05)
    raise AssertionError("it did not become so")
