"""`faceward demo`, as `make demo` runs it, and the script test_postgres_integration.py."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from command_line import CommandLine
from PIL import Image
from sqlalchemy.engine import make_url

from faceward.store.embedded import EmbeddedServer
from faceward.store.schema import TENANT_TABLES

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def beside(
    faceward: CommandLine,
    server: EmbeddedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    photos: dict[str, Path],
) -> CommandLine:
    """A working directory of its own; the embedded server's data directory is that of the tests' server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEWARD_DATA", str(server.pgdata))
    return faceward


def test_the_demo_finds_everybody_where_they_are_and_nowhere_else(beside: CommandLine, tmp_path: Path) -> None:
    shown = beside.succeeds("demo").stdout
    assert "✗" not in shown
    assert shown.count("✓") == 28
    assert re.search(r"Found where enrolled: 12 of 12\. Found in a wrong region or by a wrong client: 0 of 16\.", shown)
    assert re.search(r"from the file to the answer: \d+ ms", shown)
    assert " enroll alice.jpg" in shown
    picture = tmp_path / "demo-output" / "recognised.jpg"
    assert picture.stat().st_size < 200 * 1024
    with Image.open(picture) as image:
        assert image.size[0] > image.size[1] > 600


def test_the_demo_needs_no_network_and_touches_nobody_of_the_user(
    beside: CommandLine, enrolled: int, database_url: str, server: EmbeddedServer
) -> None:
    dead_end = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "https_proxy", "http_proxy"), "http://127.0.0.1:9")
    assert beside.succeeds("demo", "--json").json["right"] is True
    # Made anew at each run: a second one finds the same.
    running = beside.program("demo", "--json", env={**dead_end, "PATH": "/nonexistent"})
    shown, said = running.communicate(timeout=120)
    assert running.returncode == 0, said
    assert json.loads(shown)["right"] is True
    (person,) = beside.succeeds("people", "list", "--json").json["people"]
    assert (person["id"], person["face_count"]) == (enrolled, 1)
    assert "Client 'acme' does not exist" in beside.fails("regions", "--client", "acme", "--json")


def test_the_demo_uses_its_own_server_and_defaults_whatever_the_settings_say(beside: CommandLine) -> None:
    beside.config.write_text(
        json.dumps(
            {
                "database": {"url": "postgresql://someone@127.0.0.1:1/nothing"},
                "search": {"threshold": 0.99},
                "enroll": {"min_quality": 1.0},
            }
        )
    )
    assert beside.succeeds("demo", "--json").json["right"] is True


def integration_script(config: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "test_postgres_integration.py",
        "--config",
        str(config),
        "--persons",
        "50",
        "--searches",
        "20",
    ]
    return subprocess.run(
        command, cwd=CHECKOUT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def tables_with_rows(database_url: str) -> set[str]:
    with psycopg.connect(database_url) as connection:
        return {table for table in TENANT_TABLES if connection.execute(f"SELECT FROM {table} LIMIT 1").rowcount}


def test_the_integration_script_passes_and_leaves_nothing_behind(
    config: Path, database_url: str, photos: dict[str, Path]
) -> None:
    ended = integration_script(config)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Everything passed." in ended.stdout
    for point in ("Connection", "Tables", "Enrolment by region", "Vector search", "Benchmark"):
        assert point in ended.stdout
    assert re.search(r"median\s+\d", ended.stdout)
    assert "remain" not in ended.stdout
    assert tables_with_rows(database_url) == set()


@pytest.fixture
def of_the_service(config: Path, database_url: str) -> Iterator[None]:
    """The settings name a login that works as the service's role, and owns no table."""
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("CREATE ROLE trying LOGIN IN ROLE faceward_app")
        url = make_url(database_url).set(username="trying").render_as_string(hide_password=False)
        config.write_text(json.dumps({"database": {"url": url, "pool_size": 4}}))
        yield
        owner.execute("DROP ROLE trying")


def test_the_integration_script_fails_where_a_point_does_and_says_what_it_may_not_remove(
    of_the_service: None, config: Path, database_url: str, photos: dict[str, Path]
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP INDEX idx_person_region_client")
        connection.execute("ALTER TABLE persons ADD CONSTRAINT no_collins CHECK (name <> 'Eileen Collins')")
    ended = integration_script(config)
    assert ended.returncode == 1
    assert "Failed: 3 of 5 points." in ended.stdout
    assert "Traceback" not in ended.stderr
    said = " ".join(ended.stdout.split())
    assert re.search(r"integration-test-\w+-1 and integration-test-\w+-2 remain", said)
    assert "missing: idx_person_region_client" in said
    assert tables_with_rows(database_url) <= {"clients", "audit_log", "decisions", "decision_candidates"}


def test_the_integration_script_says_that_the_server_is_down(without_database: CommandLine) -> None:
    ended = integration_script(without_database.config)
    assert ended.returncode == 1
    assert "DatabaseUnavailableError" in ended.stdout
    assert "sEcReT" not in ended.stdout
    assert "Traceback" not in ended.stderr
