"""The parts that serve many clients are put together on one pool of connections, and say whether they can serve."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from faceward.cli.invocation import manifest_in_use
from faceward.errors import DatabaseUnavailableError
from faceward.factory import open_parts, open_records
from faceward.settings import load_settings
from faceward.vision import ModelPack


def test_one_pool_and_one_client_for_service_and_administration(config: Path, pack: ModelPack) -> None:
    with open_parts(load_settings(config)) as parts:
        assert parts.checks() == {"models": "ok", "database": "ok"}
        assert parts.database is parts.searched
        assert parts.manifest == pack.manifest
        parts.administration.create_client("acme", threshold=0.9)
        parts.service.create_region("A", client_id="acme")
        assert parts.administration.create_key("acme", "manager").key.client_id == "acme"
        assert parts.database.pool_status()["in_use"] == 0


def test_a_database_that_can_not_serve_is_told(config: Path, database_url: str, pack: ModelPack) -> None:
    with open_parts(load_settings(config)) as parts:
        with psycopg.connect(database_url) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        assert parts.checks()["database"] == "schema_missing"


def test_what_needs_no_model_opens_without_one(config: Path, tmp_path: Path) -> None:
    """No file of a pack is at this home, and none is fetched."""
    settings = load_settings(config, home=tmp_path / "empty")
    with open_records(settings, manifest_in_use(settings)) as records:
        records.administration.create_client("acme")
        assert records.regions.create_region("A", client_id="acme").persons == 0
    assert not (tmp_path / "empty").exists()


def test_a_database_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    settings = load_settings(None, database={"url": "postgresql://nobody@127.0.0.1:1/nothing"})
    with pytest.raises(DatabaseUnavailableError), open_records(settings, manifest_in_use(settings)):
        pass
