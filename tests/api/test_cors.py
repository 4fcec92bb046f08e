"""Browser pages of other origins: only those that the settings name may call, and they hear refusals too."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from companies import Company, RunningServer

from faceward.api.app import AppSettings, create_app
from faceward.api.bodies import BodySettings

DESK = "https://desk.example.com"


def ask(
    running: RunningServer, method: str, path: str, headers: dict[str, str], content: bytes = b""
) -> httpx.Response:
    """Of the same parts with CORS switched on."""
    settings = AppSettings(BodySettings(1024, 1024, 4096, 5.0), origins=[DESK])
    app = create_app(running.app.state.parts, settings, lambda *_, **__: None, lambda: None)

    async def scene() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as http:
            return await http.request(method, path, headers=headers, content=content)

    return asyncio.run(scene())


def test_a_page_that_is_named_may_call(running: RunningServer, company: Company) -> None:
    before = {
        "origin": DESK,
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-api-key,content-type,idempotency-key",
    }
    allowed = ask(running, "OPTIONS", "/v1/persons", before)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == DESK
    answer = ask(running, "GET", "/v1/me", {"origin": DESK, "x-api-key": company.keys["recognizer"]})
    assert answer.json()["client_id"] == company.client_id
    assert answer.headers["access-control-allow-origin"] == DESK
    assert "retry-after" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(("path", "content", "status"), [("/v1/me", b"", 401), ("/v1/detect", b"x" * 2000, 413)])
def test_a_page_that_is_named_hears_why_it_is_refused(
    running: RunningServer, path: str, content: bytes, status: int
) -> None:
    answer = ask(running, "POST" if content else "GET", path, {"origin": DESK}, content)
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == DESK
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_page_that_is_not_named_may_not(running: RunningServer, company: Company) -> None:
    other = {"origin": "https://evil.example.com"}
    before = ask(running, "OPTIONS", "/v1/persons", {**other, "access-control-request-method": "POST"})
    assert before.status_code == 400
    answer = ask(running, "GET", "/v1/me", {**other, "x-api-key": company.keys["recognizer"]})
    for each in (before, answer):
        assert "access-control-allow-origin" not in each.headers
