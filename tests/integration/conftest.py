"""One service for all tests of it; each test works as a client of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import faceward
from faceward.store.embedded import EmbeddedServer


@pytest.fixture(scope="session")
def service_url(server: EmbeddedServer) -> Iterator[str]:
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE service TEMPLATE faceward_template")
        yield server.url_of("service")
        admin.execute("DROP DATABASE service WITH (FORCE)")


@pytest.fixture(scope="session")
def service_config(service_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("service") / "config.json"
    path.write_text(json.dumps({"database": {"type": "postgresql", "url": service_url, "pool_size": 4}}))
    return path


@pytest.fixture(scope="session")
def service(service_config: Path) -> Iterator[faceward.FaceService]:
    with faceward.open_service(config=service_config) as service:
        yield service


@pytest.fixture
def client(request: pytest.FixtureRequest) -> str:
    """A tenant that no other test uses."""
    return request.node.nodeid[-100:].strip()
