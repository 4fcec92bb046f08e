"""What setup_postgres.sh makes on a real server, and that a second run changes nothing."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import psycopg
import pytest
from real_server import DATABASE, Cluster, offer_vector, urls


def test_a_fresh_server_gets_roles_database_extension_and_config(cluster: Cluster, config: Path) -> None:
    done = cluster.set_up(config)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\n  .venv/bin/faceward db upgrade " in done.stdout
    assert "\n  .venv/bin/python test_postgres_integration.py" in done.stdout
    roles = cluster.ask(
        "SELECT rolname, rolcanlogin, rolsuper, rolbypassrls, rolcreatedb, rolcreaterole, rolreplication"
        " FROM pg_roles WHERE rolname LIKE 'faceward%' ORDER BY 1"
    )
    attributes = (True, False, False, False, False, False)
    assert roles == [("faceward_app", *attributes), ("faceward_owner", *attributes)]
    database = cluster.ask(
        f"SELECT pg_get_userbyid(datdba), pg_encoding_to_char(encoding) FROM pg_database WHERE datname = '{DATABASE}'"
    )
    assert database == [("faceward_owner", "UTF8")]
    assert cluster.ask("SELECT '[1,2]'::vector <=> '[2,1]'::vector < 0.21", DATABASE) == [(True,)]

    written = json.loads(config.read_text())
    app_url, owner_url = urls(config)
    assert written == {
        "database": {
            "type": "postgresql",
            "url": app_url,
            "migration_url": owner_url,
            "pool_size": 20,
            "max_overflow": 40,
            "pool_timeout": 30,
            "pool_recycle": 3600,
        }
    }
    place = f"@127.0.0.1:{cluster.port}/{DATABASE}"
    assert re.fullmatch(rf"postgresql://faceward_app:[\w-]{{32}}{place}", app_url)
    assert re.fullmatch(rf"postgresql://faceward_owner:[\w-]{{32}}{place}", owner_url)
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    for url, user in ((app_url, "faceward_app"), (owner_url, "faceward_owner")):
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT current_user").fetchone() == (user,)
    # The owner can make tables, the app role can't.
    with psycopg.connect(owner_url) as connection:
        connection.execute("CREATE TABLE made_by_owner (id int)")
    with psycopg.connect(app_url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("CREATE TABLE made_by_app (id int)")


def test_no_password_reaches_the_server_log_or_the_terminal(cluster: Cluster, config: Path) -> None:
    done = cluster.set_up(config)

    assert done.returncode == 0, done.stderr
    log = cluster.log.read_text()
    assert "CREATE ROLE faceward_app" in log
    for url in urls(config):
        password = psycopg.conninfo.conninfo_to_dict(url)["password"]
        assert str(password) not in log
        assert str(password) not in done.stdout


def test_a_second_run_changes_nothing(cluster: Cluster, config: Path) -> None:
    assert cluster.set_up(config).returncode == 0
    written, passwords = config.read_bytes(), cluster.passwords()

    done = cluster.set_up(config)

    assert done.returncode == 0, done.stderr
    assert "nothing was changed" in done.stdout
    assert config.read_bytes() == written
    assert cluster.passwords() == passwords


def test_a_second_run_hides_a_config_that_others_can_read(cluster: Cluster, config: Path) -> None:
    assert cluster.set_up(config).returncode == 0
    config.chmod(0o644)

    assert cluster.set_up(config).returncode == 0

    assert stat.S_IMODE(config.stat().st_mode) == 0o600


def test_other_keys_of_the_config_stay(cluster: Cluster, config: Path) -> None:
    before = {"database": {"url": "embedded", "pool_size": 3, "mine": [1]}, "models": {"pack": "größer"}}
    config.write_text(json.dumps(before))

    assert cluster.set_up(config).returncode == 0

    after = json.loads(config.read_text())
    assert after["models"] == before["models"]
    assert after["database"]["pool_size"] == 3
    assert after["database"]["mine"] == [1]
    assert after["database"]["max_overflow"] == 40
    assert list(after) == ["database", "models"]


def test_a_replaced_url_is_named_without_its_password(cluster: Cluster, config: Path) -> None:
    config.write_text(json.dumps({"database": {"url": "postgresql://someone:hidden@elsewhere:6432/faces"}}))

    done = cluster.set_up(config)

    assert done.returncode == 0, done.stderr
    assert "before: postgresql://someone@elsewhere:6432/faces" in done.stdout
    assert "hidden" not in done.stdout


def test_passwords_of_the_environment_are_used_whatever_is_in_them(cluster: Cluster, config: Path) -> None:
    given = {"FACEWARD_APP_PASSWORD": "a:b@c/d?e#f%g 'h\"\\", "FACEWARD_OWNER_PASSWORD": "owner&=+"}

    done = cluster.set_up(config, **given)

    assert done.returncode == 0, done.stderr
    passwords = [psycopg.conninfo.conninfo_to_dict(url)["password"] for url in urls(config)]
    assert passwords == list(given.values())
    for url in urls(config):
        psycopg.connect(url).close()


def test_a_dry_run_tells_and_changes_nothing(cluster: Cluster, config: Path) -> None:
    done = cluster.set_up(config, "--dry-run")

    assert done.returncode == 0, done.stderr
    for change in ("role faceward_owner", "role faceward_app", f"database {DATABASE}", "extension vector"):
        assert f"would create {change}" in done.stdout
    assert cluster.is_untouched()
    assert not config.exists()


def test_an_interrupted_run_is_taken_up_again(cluster: Cluster, config: Path) -> None:
    assert cluster.set_up(config).returncode == 0
    cluster.ask(f"DROP DATABASE {DATABASE}")
    passwords = cluster.passwords()

    done = cluster.set_up(config)

    assert done.returncode == 0, done.stderr
    assert f"create database {DATABASE}" in done.stdout
    assert cluster.passwords() == passwords
    psycopg.connect(urls(config)[0]).close()


def test_a_lost_config_is_no_reason_to_change_passwords(cluster: Cluster, config: Path) -> None:
    assert cluster.set_up(config).returncode == 0
    kept, passwords = config.read_text(), cluster.passwords()
    config.unlink()

    done = cluster.set_up(config)

    assert done.returncode == 1
    assert "faceward_owner exists, and its password does not stand in" in done.stderr
    assert "FACEWARD_OWNER_PASSWORD=" in done.stderr
    assert "--reset-passwords" in done.stderr
    assert cluster.passwords() == passwords
    assert not config.exists()

    config.write_text(kept)
    old = urls(config)
    assert cluster.set_up(config, "--reset-passwords").returncode == 0
    assert set(urls(config)).isdisjoint(old)
    assert cluster.passwords() != passwords
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(old[0])
    psycopg.connect(urls(config)[0]).close()


def test_an_administrator_who_is_no_superuser(cluster: Cluster, config: Path, extensions: Path) -> None:
    """As on managed servers, where pgvector is a trusted extension."""
    cluster.ask("CREATE ROLE limited LOGIN CREATEROLE CREATEDB PASSWORD 'known'")
    with (extensions / "vector.control").open("a") as control:
        control.write("\ntrusted = true\n")

    done = cluster.run("--superuser", "limited", "--config", config, PGPASSWORD="known")

    assert done.returncode == 0, done.stderr
    psycopg.connect(urls(config)[0]).close()


@pytest.mark.parametrize("version", ["0.7.0", "0.10.0", "1.0"])
def test_pgvector_versions_are_compared_as_numbers(
    cluster: Cluster, config: Path, extensions: Path, version: str
) -> None:
    offer_vector(extensions, version)

    done = cluster.set_up(config)

    assert done.returncode == 0, done.stderr
    assert cluster.ask("SELECT extversion FROM pg_extension WHERE extname = 'vector'", DATABASE) == [(version,)]


def test_an_old_extension_in_the_database_is_updated(cluster: Cluster, config: Path, extensions: Path) -> None:
    newest = offer_vector(extensions, "0.6.2")
    (extensions / f"vector--0.6.2--{newest}.sql").write_text("SELECT 1;\n")
    cluster.ask("CREATE ROLE faceward_owner LOGIN PASSWORD 'known'")
    cluster.ask(f"CREATE DATABASE {DATABASE} OWNER faceward_owner TEMPLATE template0 ENCODING 'UTF8'")
    cluster.ask("CREATE EXTENSION vector", DATABASE)
    control = extensions / "vector.control"
    control.write_text(control.read_text().replace("0.6.2", newest))

    done = cluster.set_up(config, FACEWARD_OWNER_PASSWORD="known")

    assert done.returncode == 0, done.stderr
    assert f"update extension vector to {newest}" in done.stdout
    assert cluster.ask("SELECT extversion FROM pg_extension WHERE extname = 'vector'", DATABASE) == [(newest,)]
