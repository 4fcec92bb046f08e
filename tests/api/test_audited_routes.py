"""Every route that writes leaves an entry in the audit log, which names the key and the person; so do photos that are read.

The table names each such route of the application; one that is added without a row here fails the first test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import psycopg
import pytest
from companies import Company, RunningServer
from test_api_isolation import TABLE, World, make_world

from faceward import PersonRecord
from faceward.settings import Settings
from synthetic import unit

NOTHING_CHANGED = {
    ("POST", "/v1/recognize"),
    ("POST", "/v1/search"),
    ("POST", "/v1/verify"),
    ("POST", "/v1/detect"),
}
"""They answer a question, and have the log of decisions."""

READS = {("GET", "/v1/persons/{person_id}/faces/{face_id}/image"), ("GET", "/v1/persons/{person_id}/export")}
"""What they show is worth an entry."""

ACTIONS: dict[tuple[str, str], str] = {
    ("POST", "/v1/persons"): "person.enroll",
    ("PATCH", "/v1/persons/{person_id}"): "person.change",
    ("PUT", "/v1/persons/{person_id}/region"): "person.move",
    ("POST", "/v1/persons/{person_id}/merge"): "person.merge",
    ("DELETE", "/v1/persons/{person_id}"): "person.delete",
    ("POST", "/v1/persons/{person_id}/erase"): "person.erase",
    ("GET", "/v1/persons/{person_id}/export"): "person.export",
    ("POST", "/v1/persons/{person_id}/faces"): "face.add",
    ("DELETE", "/v1/persons/{person_id}/faces/{face_id}"): "face.delete",
    ("GET", "/v1/persons/{person_id}/faces/{face_id}/image"): "photo.read",
    ("POST", "/v1/regions"): "region.create",
    ("PATCH", "/v1/regions/{region}"): "region.change",
    ("DELETE", "/v1/regions/{region}"): "region.delete",
    ("POST", "/v1/imports"): "import.create",
    ("POST", "/v1/jobs/{job_id}/cancel"): "import.cancel",
    ("POST", "/v1/clients"): "client.create",
    ("PATCH", "/v1/clients/{client_id}"): "client.change",
    ("POST", "/v1/keys"): "key.create",
    ("POST", "/v1/keys/{key_id}/rotate"): "key.rotate",
    ("DELETE", "/v1/keys/{key_id}"): "key.revoke",
}


def test_every_route_that_writes_is_in_the_table(running: RunningServer) -> None:
    writing = {
        (method.upper(), path)
        for path, operations in running.app.openapi()["paths"].items()
        for method in operations
        if method.upper() not in ("GET", "HEAD")
    }
    assert set(ACTIONS) == (writing - NOTHING_CHANGED) | READS


def entries(settings: Settings, prefix: str) -> list[tuple[str, int | None]]:
    """Of all clients: a new client's first entry is in its own log."""
    with psycopg.connect(settings.database.url) as connection:
        return connection.execute(
            "SELECT action, person_id FROM audit_log WHERE actor = %s ORDER BY id", (f"key:{prefix}",)
        ).fetchall()


CALLS: dict[tuple[str, str], Callable[[httpx.Client, World], httpx.Response]] = {
    **{(row.method, row.path): row.send for row in TABLE},
    ("PUT", "/v1/persons/{person_id}/region"): lambda http, world: http.put(
        f"/v1/persons/{world.person}/region", json={"region": "C"}
    ),
    ("DELETE", "/v1/regions/{region}"): lambda http, world: http.delete("/v1/regions/empty"),
}
"""As the isolation test sends them, but for those that it sends so that nothing changes."""

ENDS_A_PERSON = {
    ("POST", "/v1/persons/{person_id}/merge"),
    ("DELETE", "/v1/persons/{person_id}"),
    ("POST", "/v1/persons/{person_id}/erase"),
    ("POST", "/v1/persons/{person_id}/faces"),
    ("DELETE", "/v1/persons/{person_id}/faces/{face_id}"),
}


@pytest.fixture(scope="module")
def world(new_company: Callable[[], Company]) -> World:
    made = make_world(new_company())
    assert made.company.http("manager").post("/v1/regions", json={"name": "empty"}).status_code == 201
    return made


def with_another_person(running: RunningServer, world: World, number: int) -> World:
    """One that may come to an end, in the region that a merge needs."""
    service, client_id = running.app.state.parts.service, world.company.client_id
    service.import_embeddings([PersonRecord(f"E-{number}", "B", "Other", unit(number))], client_id=client_id)
    (person,) = service.list_persons(external_id=f"E-{number}", client_id=client_id).persons
    (face,) = service.list_faces(person.id, client_id=client_id)
    return replace(world, person=person.id, face=face.id)


def with_a_job_under_way(settings: Settings, world: World) -> World:
    """As if another process had it."""
    with psycopg.connect(settings.database.url) as connection:
        row = connection.execute(
            "INSERT INTO jobs (client_id, kind, state, lease_until) "
            "VALUES (%s, 'archive', 'running', now() + interval '1 hour') RETURNING id",
            (world.company.client_id,),
        ).fetchone()
    assert row is not None
    return replace(world, job=row[0])


@pytest.mark.parametrize("number", range(len(ACTIONS)), ids=lambda number: " ".join(sorted(ACTIONS)[number]))
def test_a_call_leaves_its_entry(number: int, api_settings: Settings, running: RunningServer, world: World) -> None:
    route = sorted(ACTIONS)[number]
    if route in ENDS_A_PERSON:
        world = with_another_person(running, world, number)
    elif route == ("POST", "/v1/jobs/{job_id}/cancel"):
        world = with_a_job_under_way(api_settings, world)
    made: Any = world.company.http("admin").post("/v1/keys", json={"role": "admin"}).json()
    other = world.company.http("manager").post("/v1/keys", json={"role": "recognizer"}).json()["key"]["id"]
    world = replace(world, key=other)
    answer = CALLS[route](world.company.http(key=made["secret"]), world)
    assert answer.status_code < 300, answer.text
    told = entries(api_settings, made["key"]["prefix"])
    of_person = [person for name, person in told if name == ACTIONS[route]]
    assert len(of_person) == 1, told
    if "{person_id}" in route[1]:
        assert of_person == [None if ACTIONS[route] == "person.erase" else world.person]


def test_a_call_that_is_refused_leaves_none(api_settings: Settings, world: World) -> None:
    made: Any = world.company.http("manager").post("/v1/keys", json={"role": "recognizer"}).json()
    for route in sorted(ACTIONS):
        assert CALLS[route](world.company.http(key=made["secret"]), world).status_code >= 400, route
    assert entries(api_settings, made["key"]["prefix"]) == []
