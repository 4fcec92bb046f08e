"""Every route, called with another company's ids and with keys of every role and of other regions.

The table names each route of the application; one that is added without a row here fails the first test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from companies import Company, RunningServer

ROLES = ("recognizer", "enroller", "manager", "admin")
OPEN = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics")}
"""Without a key: they show nothing of any company."""


@dataclass(frozen=True)
class World:
    """What a company has: a person in region A with a face, one in region B, a key, an import."""

    company: Company
    person: int
    face: int
    elsewhere: int
    key: int
    job: int
    photo: bytes


Send = Callable[[httpx.Client, World], httpx.Response]


@dataclass(frozen=True)
class Row:
    """A route. role: the least that may call it. send: calls it with what a world has; a second world's ids must get
    `foreign`. region: sends it for the person in region B, or for region B, which a key for A alone must not.
    """

    method: str
    path: str
    role: str
    send: Send
    foreign: int | None = 404
    region: Send | None = None
    outside: int = 404


def _image(world: World) -> dict[str, Any]:
    return {"image": ("p.jpg", world.photo)}


TABLE = [
    Row("GET", "/v1/me", "recognizer", lambda http, _: http.get("/v1/me"), foreign=None),
    Row(
        "POST",
        "/v1/recognize",
        "recognizer",
        lambda http, world: http.post("/v1/recognize", data={"region": "A"}, files=_image(world)),
        foreign=None,
        region=lambda http, world: http.post("/v1/recognize", data={"region": ["A", "B"]}, files=_image(world)),
        outside=403,
    ),
    Row(
        "POST",
        "/v1/search",
        "recognizer",
        lambda http, _: http.post("/v1/search", json={"embedding": [1.0] * 512, "region": "A"}),
        foreign=None,
        region=lambda http, _: http.post("/v1/search", json={"embedding": [1.0] * 512, "region": "B"}),
        outside=403,
    ),
    Row(
        "POST",
        "/v1/verify",
        "recognizer",
        lambda http, world: http.post("/v1/verify", data={"person_id": world.person}, files=_image(world)),
        region=lambda http, world: http.post("/v1/verify", data={"person_id": world.elsewhere}, files=_image(world)),
    ),
    Row(
        "POST",
        "/v1/detect",
        "recognizer",
        lambda http, world: http.post("/v1/detect", files=_image(world)),
        foreign=None,
    ),
    Row(
        "GET",
        "/v1/persons",
        "recognizer",
        lambda http, _: http.get("/v1/persons"),
        foreign=None,
        region=lambda http, _: http.get("/v1/persons", params={"region": "B"}),
        outside=403,
    ),
    Row(
        "POST",
        "/v1/persons",
        "enroller",
        lambda http, world: http.post(
            "/v1/persons", data={"name": "New", "region": "A"}, files={"images": ("p.jpg", world.photo)}
        ),
        foreign=None,
        region=lambda http, world: http.post(
            "/v1/persons", data={"name": "New", "region": "B"}, files={"images": ("p.jpg", world.photo)}
        ),
        outside=403,
    ),
    Row(
        "GET",
        "/v1/persons/{person_id}",
        "recognizer",
        lambda http, world: http.get(f"/v1/persons/{world.person}"),
        region=lambda http, world: http.get(f"/v1/persons/{world.elsewhere}"),
    ),
    Row(
        "PATCH",
        "/v1/persons/{person_id}",
        "enroller",
        lambda http, world: http.patch(f"/v1/persons/{world.person}", json={"description": "changed"}),
        region=lambda http, world: http.patch(f"/v1/persons/{world.elsewhere}", json={"description": "changed"}),
    ),
    Row(
        "PUT",
        "/v1/persons/{person_id}/region",
        "enroller",
        lambda http, world: http.put(f"/v1/persons/{world.person}/region", json={"region": "A"}),
        region=lambda http, world: http.put(f"/v1/persons/{world.elsewhere}/region", json={"region": "A"}),
    ),
    Row(
        "POST",
        "/v1/persons/{person_id}/merge",
        "manager",
        lambda http, world: http.post(
            f"/v1/persons/{world.person}/merge", json={"into": world.elsewhere, "across_regions": True}
        ),
        region=lambda http, world: http.post(
            f"/v1/persons/{world.elsewhere}/merge", json={"into": world.person, "across_regions": True}
        ),
    ),
    Row(
        "DELETE",
        "/v1/persons/{person_id}",
        "enroller",
        lambda http, world: http.delete(f"/v1/persons/{world.person}"),
        region=lambda http, world: http.delete(f"/v1/persons/{world.elsewhere}"),
    ),
    Row(
        "GET",
        "/v1/persons/{person_id}/export",
        "manager",
        lambda http, world: http.get(f"/v1/persons/{world.person}/export"),
        region=lambda http, world: http.get(f"/v1/persons/{world.elsewhere}/export"),
    ),
    Row(
        "POST",
        "/v1/persons/{person_id}/erase",
        "manager",
        lambda http, world: http.post(f"/v1/persons/{world.person}/erase"),
        region=lambda http, world: http.post(f"/v1/persons/{world.elsewhere}/erase"),
    ),
    Row(
        "GET",
        "/v1/persons/{person_id}/faces",
        "recognizer",
        lambda http, world: http.get(f"/v1/persons/{world.person}/faces"),
        region=lambda http, world: http.get(f"/v1/persons/{world.elsewhere}/faces"),
    ),
    Row(
        "POST",
        "/v1/persons/{person_id}/faces",
        "enroller",
        lambda http, world: http.post(f"/v1/persons/{world.person}/faces", files={"images": ("p.jpg", world.photo)}),
        region=lambda http, world: http.post(
            f"/v1/persons/{world.elsewhere}/faces", files={"images": ("p.jpg", world.photo)}
        ),
    ),
    Row(
        "DELETE",
        "/v1/persons/{person_id}/faces/{face_id}",
        "enroller",
        lambda http, world: http.delete(f"/v1/persons/{world.person}/faces/{world.face}"),
        region=lambda http, world: http.delete(f"/v1/persons/{world.elsewhere}/faces/{world.face}"),
    ),
    Row(
        "GET",
        "/v1/persons/{person_id}/faces/{face_id}/image",
        "enroller",
        lambda http, world: http.get(f"/v1/persons/{world.person}/faces/{world.face}/image"),
        region=lambda http, world: http.get(f"/v1/persons/{world.elsewhere}/faces/{world.face}/image"),
    ),
    Row("GET", "/v1/regions", "recognizer", lambda http, _: http.get("/v1/regions"), foreign=None),
    Row(
        "POST",
        "/v1/regions",
        "manager",
        lambda http, _: http.post("/v1/regions", json={"name": "C"}),
        foreign=None,
        region=lambda http, _: http.post("/v1/regions", json={"name": "C"}),
        outside=403,
    ),
    Row(
        "GET",
        "/v1/regions/{region}",
        "recognizer",
        lambda http, _: http.get("/v1/regions/A"),
        foreign=None,
        region=lambda http, _: http.get("/v1/regions/B"),
        outside=403,
    ),
    Row(
        "PATCH",
        "/v1/regions/{region}",
        "manager",
        lambda http, _: http.patch("/v1/regions/A", json={"threshold": 0.4}),
        foreign=None,
        region=lambda http, _: http.patch("/v1/regions/B", json={"threshold": 0.4}),
        outside=403,
    ),
    Row(
        "DELETE",
        "/v1/regions/{region}",
        "manager",
        lambda http, _: http.delete("/v1/regions/A"),
        foreign=None,
        region=lambda http, _: http.delete("/v1/regions/B"),
        outside=403,
    ),
    Row(
        "POST",
        "/v1/imports",
        "enroller",
        lambda http, _: http.post(
            "/v1/imports", content=b'{"external_id": "1"}\n', headers={"content-type": "application/x-ndjson"}
        ),
        foreign=None,
    ),
    Row("GET", "/v1/jobs", "enroller", lambda http, _: http.get("/v1/jobs"), foreign=None),
    Row(
        "GET",
        "/v1/jobs/{job_id}",
        "enroller",
        lambda http, world: http.get(f"/v1/jobs/{world.job}"),
        region=lambda http, world: http.get(f"/v1/jobs/{world.job}"),
    ),
    Row(
        "POST",
        "/v1/jobs/{job_id}/cancel",
        "enroller",
        lambda http, world: http.post(f"/v1/jobs/{world.job}/cancel"),
        region=lambda http, world: http.post(f"/v1/jobs/{world.job}/cancel"),
    ),
    Row(
        "GET",
        "/v1/jobs/{job_id}/refusals",
        "enroller",
        lambda http, world: http.get(f"/v1/jobs/{world.job}/refusals"),
        region=lambda http, world: http.get(f"/v1/jobs/{world.job}/refusals"),
    ),
    Row(
        "GET",
        "/v1/audit",
        "manager",
        lambda http, _: http.get("/v1/audit"),
        foreign=None,
        region=lambda http, _: http.get("/v1/audit"),
        outside=403,
    ),
    Row(
        "GET",
        "/v1/decisions",
        "manager",
        lambda http, _: http.get("/v1/decisions"),
        foreign=None,
        region=lambda http, _: http.get("/v1/decisions"),
        outside=403,
    ),
    Row("GET", "/v1/clients", "admin", lambda http, _: http.get("/v1/clients"), foreign=None),
    Row(
        "POST",
        "/v1/clients",
        "admin",
        lambda http, world: http.post("/v1/clients", json={"client_id": f"{world.company.client_id}-sub"}),
        foreign=None,
    ),
    Row(
        "GET",
        "/v1/clients/{client_id}",
        "admin",
        lambda http, world: http.get(f"/v1/clients/{world.company.client_id}"),
        foreign=None,
    ),
    Row(
        "PATCH",
        "/v1/clients/{client_id}",
        "admin",
        lambda http, world: http.patch(f"/v1/clients/{world.company.client_id}", json={"threshold": None}),
        foreign=None,
    ),
    Row(
        "GET",
        "/v1/keys",
        "manager",
        lambda http, _: http.get("/v1/keys"),
        foreign=None,
        region=lambda http, _: http.get("/v1/keys"),
        outside=403,
    ),
    Row(
        "POST",
        "/v1/keys",
        "manager",
        lambda http, _: http.post("/v1/keys", json={"role": "recognizer"}),
        foreign=None,
        region=lambda http, _: http.post("/v1/keys", json={"role": "recognizer"}),
        outside=403,
    ),
    Row(
        "GET",
        "/v1/keys/{key_id}",
        "manager",
        lambda http, world: http.get(f"/v1/keys/{world.key}"),
        region=lambda http, world: http.get(f"/v1/keys/{world.key}"),
        outside=403,
    ),
    Row(
        "POST",
        "/v1/keys/{key_id}/rotate",
        "manager",
        lambda http, world: http.post(f"/v1/keys/{world.key}/rotate"),
        region=lambda http, world: http.post(f"/v1/keys/{world.key}/rotate"),
        outside=403,
    ),
    Row(
        "DELETE",
        "/v1/keys/{key_id}",
        "manager",
        lambda http, world: http.delete(f"/v1/keys/{world.key}"),
        region=lambda http, world: http.delete(f"/v1/keys/{world.key}"),
        outside=403,
    ),
]
EACH = pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.method} {row.path}")


def test_the_table_has_every_route(running: RunningServer) -> None:
    routes = {
        (method.upper(), path) for path, operations in running.app.openapi()["paths"].items() for method in operations
    }
    assert {(row.method, row.path) for row in TABLE} == routes - OPEN


@pytest.fixture(scope="module")
def worlds(new_company: Callable[[], Company]) -> tuple[World, World]:
    return make_world(new_company()), make_world(new_company())


def make_world(company: Company) -> World:
    enrolled = company.enroll("obama.jpg", "A")
    elsewhere = company.enroll("biden.jpg", "B", name="Joe Biden")
    sent = company.http("enroller").post(
        "/v1/imports", content=b'{"external_id": "1"}\n', headers={"content-type": "application/x-ndjson"}
    )
    assert sent.status_code == 202, sent.text
    key = company.http("manager").post("/v1/keys", json={"role": "recognizer"}).json()["key"]["id"]
    return World(
        company=company,
        person=enrolled["person"]["id"],
        face=enrolled["faces"][0]["id"],
        elsewhere=elsewhere["person"]["id"],
        key=key,
        job=sent.json()["id"],
        photo=company.photo("obama2.jpg"),
    )


@EACH
def test_without_a_valid_key_every_route_says_the_same(row: Row, worlds: tuple[World, World]) -> None:
    world = worlds[0]
    for key in ("", "nonsense", "fw_aaaaaaaaaaaa_" + "B" * 43):
        with httpx.Client(base_url=world.company.url, headers={"x-api-key": key}) as http:
            answer = row.send(http, world)
        assert answer.status_code == 401
        assert answer.json()["code"] == "unauthenticated"
        assert answer.headers["www-authenticate"] == "Bearer"


@EACH
def test_a_role_below_gets_403_and_changes_nothing(row: Row, worlds: tuple[World, World]) -> None:
    world = worlds[0]
    for role in ROLES[: ROLES.index(row.role)]:
        answer = row.send(world.company.http(role), world)
        assert (answer.status_code, answer.json()["code"]) == (403, "role_not_allowed"), role


@EACH
def test_another_company_s_ids_do_not_exist(row: Row, worlds: tuple[World, World]) -> None:
    theirs, own = worlds
    if row.foreign is None:
        return
    answer = row.send(own.company.http("manager"), theirs)
    assert answer.status_code == row.foreign, answer.text
    assert theirs.company.client_id not in answer.text


@EACH
def test_a_key_of_one_region_does_not_reach_another(row: Row, worlds: tuple[World, World]) -> None:
    if row.region is None:
        return
    world = worlds[0]
    role = row.role if row.role != "admin" else "manager"
    key = world.company.new_key(role, regions=["A"])
    answer = row.region(world.company.http(key=key), world)
    assert answer.status_code == row.outside, answer.text


@EACH
def test_the_own_company_s_key_of_that_role_is_let_in(row: Row, new_company: Callable[[], Company]) -> None:
    world = make_world(new_company())
    answer = row.send(world.company.http(row.role), world)
    assert answer.status_code not in (401, 403, 404), answer.text
    assert answer.status_code < 500
