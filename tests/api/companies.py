"""The server that the tests of the API call, and the client companies that call it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn

from faceward.api.connections import protocol_with
from faceward.api.opening import build_app
from faceward.settings import Settings

FIRST_KEY = "fw_adminadmin12_" + "A" * 43
HEADER_SECONDS = 1.0
MOST_UNSENT = 16 << 20


class RunningServer:
    """uvicorn with our protocol on a free port, in a thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.app = build_app(settings)
        self.app.state.parts.administration.ensure_first_key(FIRST_KEY)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(
            self.app,
            http=protocol_with(HEADER_SECONDS, MOST_UNSENT, lambda *_, **__: None),
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
    _enrolled: bool = False

    def http(self, role: str = "enroller", key: str | None = None) -> httpx.Client:
        client = httpx.Client(base_url=self.url, headers={"x-api-key": key or self.keys[role]}, timeout=60)
        self._open.append(client)
        return client

    def close(self) -> None:
        for client in self._open:
            client.close()

    def enroll_once(self) -> None:
        """Somebody in region A."""
        if not self._enrolled:
            self._enrolled = True
            self.enroll()

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


class Companies:
    """Makes companies by the deployment's admin key; closes their connections at the end."""

    def __init__(self, running: RunningServer, photo: Callable[[str], bytes], prefix: str) -> None:
        self._admin = httpx.Client(base_url=running.url, headers={"x-api-key": FIRST_KEY}, timeout=60)
        self._photo = photo
        self._prefix = prefix
        self._made: list[Company] = []

    def __call__(self) -> Company:
        client_id = f"{self._prefix}-{len(self._made)}"
        made = self._admin.post("/v1/clients", json={"client_id": client_id})
        assert made.status_code == 201, made.text
        keys = {
            role: self._admin.post("/v1/keys", json={"client_id": client_id, "role": role}).json()["secret"]
            for role in ("admin", "manager", "enroller", "recognizer")
        }
        self._made.append(Company(str(self._admin.base_url), client_id, keys, self._photo))
        return self._made[-1]

    def close(self) -> None:
        for company in self._made:
            company.close()
        self._admin.close()
