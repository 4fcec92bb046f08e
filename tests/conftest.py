"""Real parts for every test: the embedded PostgreSQL with a clone of one template database, the real model pack."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from faceward.settings import load_settings
from faceward.store.database import Database, PoolSettings
from faceward.store.embedded import EmbeddedServer
from faceward.store.gallery import Gallery
from faceward.store.schema import Schema
from faceward.vision import FaceAnalyzer, ModelPack, PackStore, fetch_sample_photos
from synthetic import MODEL

TEMPLATE = "faceward_template"
SETTINGS = {"fsync": "off", "shared_buffers": "256MB", "max_wal_size": "256MB"}
MEMORY = Path("/dev/shm")
ROOM = 6 * 2**30
LFW = Path(__file__).resolve().parents[2] / "shared" / "faces" / "lfw100"


@pytest.fixture(scope="session")
def server_directories() -> Iterator[Callable[[], Path]]:
    """Makes directories for servers.

    Not in pytest's own: where root runs the tests PostgreSQL runs as another user, and each start of pytest closes that
    directory to others, also under the servers of a run that is still going on. In memory where there is room: the databases
    of the tests are thousands of small files.
    """
    roomy = MEMORY.is_dir() and min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available) > ROOM
    parent = MEMORY if roomy else None
    with contextlib.ExitStack() as made:
        yield lambda: Path(
            made.enter_context(tempfile.TemporaryDirectory(prefix="faceward-", dir=parent, ignore_cleanup_errors=True))
        )


@pytest.fixture(scope="session")
def copy_cluster(
    tmp_path_factory: pytest.TempPathFactory, server_directories: Callable[[], Path]
) -> Callable[[Path], Path]:
    """Copies a stopped cluster with a migrated template database to a new directory: initdb takes seconds.

    All test processes share the original. Tests lose no data that matters, so it need not wait for the disk.
    """
    base = tmp_path_factory.getbasetemp()
    made = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cluster"
    with made.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            data = server_directories() / "data"
            with contextlib.closing(EmbeddedServer(data, SETTINGS)) as original:
                original.ensure_database(TEMPLATE)
                Schema(original.url_of(TEMPLATE)).upgrade()
            subprocess.run(["cp", "-a", data, made], check=True)

    def copy(target: Path) -> Path:
        subprocess.run(["cp", "-a", made, target], check=True)
        return target

    return copy


@pytest.fixture(scope="session")
def server(server_directories: Callable[[], Path], copy_cluster: Callable[[Path], Path]) -> Iterator[EmbeddedServer]:
    """One server for each test process."""
    with contextlib.closing(EmbeddedServer(copy_cluster(server_directories() / "data"))) as server:
        yield server


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return itertools.count()


@pytest.fixture(scope="session")
def new_database(
    server: EmbeddedServer, _numbers: Iterator[int]
) -> Callable[[], contextlib.AbstractContextManager[str]]:
    """Makes empty, migrated databases; each lasts as long as its block, which gets its URL."""

    @contextlib.contextmanager
    def make() -> Iterator[str]:
        name = f"test_{next(_numbers)}"
        with psycopg.connect(server.url_of("postgres"), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
        try:
            yield server.url_of(name)
        finally:
            with psycopg.connect(server.url_of("postgres"), autocommit=True) as admin:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    return make


@pytest.fixture
def database_url(new_database: Callable[[], contextlib.AbstractContextManager[str]]) -> Iterator[str]:
    """The URL of an empty, migrated database of this test's own."""
    with new_database() as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with Database(database_url, pool=PoolSettings(pool_size=4, max_overflow=8, pool_timeout=5)) as database:
        yield database


@pytest.fixture
def gallery(database: Database) -> Gallery:
    return Gallery(database, MODEL)


@pytest.fixture(scope="session")
def home() -> Path:
    """Where the model pack and the sample photos are kept between runs."""
    return load_settings().home


@pytest.fixture(scope="session")
def pack(home: Path) -> ModelPack:
    return PackStore(home).get("faceplugin-0.0.1")


@pytest.fixture(scope="session")
def photos(home: Path) -> dict[str, Path]:
    """The sample photos by name, as obama.jpg."""
    return fetch_sample_photos(home)


@pytest.fixture(scope="session")
def analyzer(pack: ModelPack, home: Path) -> Iterator[FaceAnalyzer]:
    with FaceAnalyzer.open(pack, cache_dir=home / "compiled") as analyzer:
        yield analyzer


@pytest.fixture
def config(tmp_path: Path, database_url: str) -> Path:
    """A config.json that names this test's database."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"database": {"type": "postgresql", "url": database_url, "pool_size": 4}}))
    return path


@pytest.fixture(scope="session")
def lfw() -> Path:
    """Ten photos each of ten people; they lie beside the checkout, not in it."""
    if not LFW.is_dir():
        pytest.skip(f"no photos at {LFW}")
    return LFW
