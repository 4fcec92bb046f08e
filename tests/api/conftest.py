"""A real server on a port, on a real database, with real models; each test is a client company of its own."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from companies import Companies, Company, RunningServer

from faceward.settings import Settings, load_settings

KEY = base64.b64encode(bytes(range(32))).decode()
"""Photos and uploads of all these tests are encrypted."""


@pytest.fixture(scope="session")
def api_settings(new_database: Callable[[], contextlib.AbstractContextManager[str]], home: Path) -> Iterator[Settings]:
    with new_database() as url:
        yield load_settings(
            home=home,
            database={"url": url, "pool_size": 4},
            images={"store": "original", "max_bytes": 8 << 20, "keys": {"2026": KEY}, "key": "2026"},
            audit={"receipt_key": "A" * 43 + "="},  # not this machine's own
            api={"max_body": 16 << 20, "max_held": 64 << 20, "body_seconds": 2.0},
        )


@pytest.fixture(scope="session")
def running(api_settings: Settings) -> Iterator[RunningServer]:
    """One server for all tests of the process: they are told apart by their companies."""
    with RunningServer(api_settings) as running:
        yield running


@pytest.fixture(scope="session")
def new_company(running: RunningServer, photos: dict[str, Path]) -> Iterator[Callable[[], Company]]:
    """Makes companies with keys of each role."""
    with contextlib.closing(Companies(running, lambda name: photos[name].read_bytes(), "company")) as companies:
        yield companies


@pytest.fixture
def company(new_company: Callable[[], Company]) -> Company:
    return new_company()
