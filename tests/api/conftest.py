"""A real server on a port, on a real database, with real models; each test is a client company of its own."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn

from conftest import TEMPLATE
from faceward.api.connections import BoundedProtocol
from faceward.api.opening import build_app
from faceward.settings import Settings, load_settings
from faceward.store.embedded import EmbeddedServer

FIRST_KEY = "fw_adminadmin12_" + "A" * 43
HEADER_SECONDS = 1.0


class RunningServer:
    """uvicorn with our protocol on a free port, in a thread."""

    def __init__(self, settings: Settings) -> None:
        from functools import partial

        self.settings = settings
        self.app = build_app(settings)
        self.app.state.parts.administration.ensure_first_key(FIRST_KEY)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(
            self.app,
            http=partial(BoundedProtocol, header_seconds=HEADER_SECONDS),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=20,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True)

    def __enter__(self) -> RunningServer:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()


@dataclass
class Company:
    """A client company and keys of each role. photo: the bytes of a sample photo by its name."""

    url: str
    client_id: str
    keys: dict[str, str]
    photo: Callable[[str], bytes]
    _open: list[httpx.Client] = field(default_factory=list)

    def http(self, role: str = "enroller", key: str | None = None) -> httpx.Client:
        client = httpx.Client(base_url=self.url, headers={"x-api-key": key or self.keys[role]}, timeout=60)
        self._open.append(client)
        return client

    def close(self) -> None:
        for client in self._open:
            client.close()

    def new_key(self, role: str, **options: Any) -> str:
        made = self.http("manager").post("/v1/keys", json={"role": role, **options})
        assert made.status_code == 201, made.text
        secret: str = made.json()["secret"]
        return secret

    def enroll(self, photo: str = "obama.jpg", region: str = "A", name: str = "Barack Obama", **fields: Any) -> Any:
        """The answer of an enrolment that must succeed."""
        made = self.http("enroller").post(
            "/v1/persons",
            data={"name": name, "region": region, **fields},
            files={"images": (photo, self.photo(photo))},
        )
        assert made.status_code == 201, made.text
        return made.json()


@pytest.fixture(scope="session")
def api_settings(server: EmbeddedServer, home: Path) -> Iterator[Settings]:
    name = "test_api"
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield load_settings(
        home=home,
        database={"url": server.url_of(name), "pool_size": 4},
        images={"store": "original", "max_bytes": 8 << 20},
        api={"max_body": 16 << 20, "body_seconds": 2.0, "max_held": 64 << 20},
    )


@pytest.fixture(scope="session")
def running(api_settings: Settings) -> Iterator[RunningServer]:
    """One server for all tests of the process: they are told apart by their companies."""
    with RunningServer(api_settings) as running:
        yield running


@pytest.fixture(scope="session")
def _companies() -> Iterator[int]:
    return itertools.count()


@pytest.fixture
def new_company(
    running: RunningServer, photos: dict[str, Path], _companies: Iterator[int]
) -> Iterator[Callable[[], Company]]:
    """Makes companies."""
    made: list[Company] = []
    admin = httpx.Client(base_url=running.url, headers={"x-api-key": FIRST_KEY}, timeout=60)

    def make() -> Company:
        client_id = f"company-{next(_companies)}"
        assert admin.post("/v1/clients", json={"client_id": client_id}).status_code == 201
        keys = {
            role: admin.post("/v1/keys", json={"client_id": client_id, "role": role}).json()["secret"]
            for role in ("admin", "manager", "enroller", "recognizer")
        }
        company = Company(running.url, client_id, keys, lambda name: photos[name].read_bytes())
        made.append(company)
        return company

    with admin:
        yield make
    for company in made:
        company.close()


@pytest.fixture
def company(new_company: Callable[[], Company]) -> Company:
    return new_company()
