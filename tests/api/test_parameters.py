"""A query parameter that a call does not declare is refused, before anything is done: it would not do what it says."""

from __future__ import annotations

import re
from typing import Any

import httpx
from companies import Company


def refusal(answer: httpx.Response, status: int = 422, code: str = "invalid_value") -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), answer.text
    return problem


def test_every_call_refuses_a_parameter_that_it_does_not_declare(company: Company) -> None:
    http = company.http("admin")
    calls = 0
    for path, operations in http.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            if path.startswith("/v1/"):
                calls += 1
                # No body: it is refused before one is looked for.
                answer = http.request(method, re.sub(r"{[^}]*}", "1", path), params={"limt": "1", "regoin": "A"})
                first, second = refusal(answer)["problems"]
                declared = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]
                assert (first["field"], second["field"]) == ("query.limt", "query.regoin"), (method, path)
                assert first["message"].endswith(f": {', '.join(declared) or 'none'}"), (method, path)
                assert str(422) in operation["responses"], (method, path)
    assert calls >= 30


def test_a_parameter_that_comes_twice_is_refused(company: Company) -> None:
    """One of the two would be dropped unseen."""
    problem = refusal(company.http().get("/v1/persons?region=A&limit=1&region=B"))
    assert problem["problems"] == [{"field": "query.region", "message": "sent more than once"}]


def test_a_client_in_the_query_deletes_nobody_of_the_keys_own(company: Company) -> None:
    http, person = company.http("enroller"), company.enroll()["person"]
    path = f"/v1/persons/{person['id']}"
    problem = refusal(http.delete(path, params={"client_id": "client_123"}))
    assert "query.client_id" in problem["detail"]
    assert http.get(path).json() == person


def test_an_unknown_parameter_tells_a_stranger_nothing_and_a_form_is_refused_for_it(company: Company) -> None:
    with httpx.Client(base_url=company.url) as stranger:
        refusal(stranger.get("/v1/persons", params={"regoin": "A"}), 401, "unauthenticated")
    files = {"image": ("p.jpg", company.photo("obama.jpg"))}
    refusal(company.http().post("/v1/detect", params={"regoin": "A"}, files=files))


def test_what_is_no_call_of_the_service_itself_takes_any_parameter(company: Company) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/docs"):
        assert company.http().get(path, params={"cache": "off"}).status_code == 200
