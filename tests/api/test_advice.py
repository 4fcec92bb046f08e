"""What a client company hears over HTTP advises nothing that only those at the command line can do."""

from __future__ import annotations

import cv2
import httpx
import numpy as np
from companies import FIRST_KEY, Company


def two_people(company: Company) -> bytes:
    sides = [cv2.imdecode(np.frombuffer(company.photo(name), np.uint8), 1) for name in ("obama.jpg", "biden.jpg")]
    both = np.hstack([cv2.resize(side, (700, 900)) for side in sides if side is not None])
    return cv2.imencode(".jpg", both)[1].tobytes()


def test_no_problem_names_a_command_or_an_option_of_one(company: Company) -> None:
    person = company.enroll(region="A")["person"]["id"]
    other = company.enroll("biden.jpg", "B", "Joe Biden")["person"]["id"]
    http, manager = company.http("enroller"), company.http("manager")
    form, photo = {"name": "N", "region": "A"}, company.photo("obama2.jpg")
    with httpx.Client(base_url=company.url, headers={"x-api-key": FIRST_KEY}) as admin:
        refused = {
            "unknown_person": http.get("/v1/persons/999999999"),
            "unknown_key": manager.get("/v1/keys/999999999"),
            "unknown_client": admin.get("/v1/clients/nosuch"),
            "not_found": http.delete(f"/v1/persons/{person}/faces/999999999"),
            "different_regions": manager.post(f"/v1/persons/{person}/merge", json={"into": other}),
            "several_faces": http.post("/v1/persons", data=form, files={"images": two_people(company)}),
        }
    assert http.patch(f"/v1/persons/{person}", json={"state": "suspended"}).status_code == 200
    refused["person_suspended"] = http.post("/v1/verify", data={"person_id": person}, files={"image": photo})
    for code, answer in refused.items():
        problem = answer.json()
        assert problem["code"] == code, answer.text
        assert "faceward" not in problem["detail"], code
        assert "--" not in problem["detail"], code
