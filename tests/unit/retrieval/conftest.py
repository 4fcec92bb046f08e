"""A server that a test may break."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faceward.store.embedded import EmbeddedServer
from faceward.store.schema import Schema


@pytest.fixture
def own_database(server_directories: Callable[[], Path], copy_cluster: Callable[[Path], Path]) -> Iterator[str]:
    """The URL of a migrated database on a server of this test's own."""
    with contextlib.closing(EmbeddedServer(copy_cluster(server_directories() / "data"))) as server:
        server.ensure_database()
        Schema(server.url).upgrade()
        yield server.url
