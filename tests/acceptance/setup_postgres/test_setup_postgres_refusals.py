"""What setup_postgres.sh refuses, with what words, and that it has changed nothing then."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import psycopg
import pytest
from real_server import DATABASE, Cluster, Installation, free_port, offer_vector, running, urls


def test_a_password_outside_ascii_is_refused(cluster: Cluster, config: Path) -> None:
    done = cluster.set_up(config, FACEWARD_APP_PASSWORD="pässword")

    assert done.returncode == 1
    assert "FACEWARD_APP_PASSWORD must be printable ASCII" in done.stderr
    assert "pässword" not in done.stderr
    assert cluster.is_untouched()


def test_another_password_in_the_config_than_on_the_server(cluster: Cluster, config: Path) -> None:
    assert cluster.set_up(config).returncode == 0
    cluster.ask("ALTER ROLE faceward_app PASSWORD 'another'")

    done = cluster.set_up(config)
    assert done.returncode == 1
    assert f"faceward_app exists, and has another password than {config} says" in done.stderr

    done = cluster.set_up(config, FACEWARD_APP_PASSWORD="wrong")
    assert done.returncode == 1
    assert "another password than FACEWARD_APP_PASSWORD says" in done.stderr

    assert cluster.set_up(config, FACEWARD_APP_PASSWORD="another").returncode == 0
    psycopg.connect(urls(config)[0]).close()


def test_no_server(cluster: Cluster, config: Path) -> None:
    port = free_port()

    done = cluster.run("--superuser", "postgres", "--port", str(port), "--config", config)

    assert done.returncode == 1
    assert f"No PostgreSQL server answers at 127.0.0.1, port {port}." in done.stderr
    assert "Connection refused" in done.stderr
    assert not config.exists()


def test_an_unknown_host(cluster: Cluster, config: Path) -> None:
    done = cluster.run("--superuser", "postgres", "--host", "nowhere.invalid", "--config", config)

    assert done.returncode == 1
    assert "No PostgreSQL server answers at nowhere.invalid" in done.stderr
    assert "--host, --port" in done.stderr


@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_wrong_superuser_password(cluster: Cluster, config: Path, password: str) -> None:
    done = cluster.run("--superuser", "postgres", "--config", config, PGPASSWORD=password)

    assert done.returncode == 1
    assert f"The server at 127.0.0.1, port {cluster.port} refused the password of postgres." in done.stderr
    assert "PGPASSWORD=" in done.stderr


def test_a_superuser_that_the_server_does_not_let_in(cluster: Cluster, config: Path) -> None:
    cluster.ask("CREATE ROLE limited NOLOGIN PASSWORD 'known'")

    done = cluster.run("--superuser", "limited", "--config", config, PGPASSWORD="known")

    assert done.returncode == 1
    assert "did not let limited in" in done.stderr
    assert "not permitted to log in" in done.stderr


def test_an_administrator_who_may_not_create(cluster: Cluster, config: Path) -> None:
    cluster.ask("CREATE ROLE limited LOGIN PASSWORD 'known'")

    done = cluster.run("--superuser", "limited", "--config", config, PGPASSWORD="known")

    assert done.returncode == 1
    assert "limited may not create roles and databases" in done.stderr
    assert cluster.is_untouched()


def test_an_extension_that_the_server_will_not_create(cluster: Cluster, config: Path) -> None:
    cluster.ask("CREATE ROLE limited LOGIN CREATEROLE CREATEDB PASSWORD 'known'")

    done = cluster.run("--superuser", "limited", "--config", config, PGPASSWORD="known")

    assert done.returncode == 1
    assert "The server would not create extension vector" in done.stderr
    assert "permission denied" in done.stderr
    # The passwords are not lost: a superuser finishes what was begun.
    assert cluster.set_up(config).returncode == 0


def test_a_server_without_pgvector(cluster: Cluster, config: Path, extensions: Path) -> None:
    (extensions / "vector.control").unlink()

    done = cluster.set_up(config)

    assert done.returncode == 1
    assert "has no pgvector" in done.stderr
    for way in ("postgresql-18-pgvector", "make install", '"url": "embedded"', "Debian 12"):
        assert way in done.stderr
    assert cluster.is_untouched()
    assert not config.exists()


def test_a_pgvector_that_is_too_old(cluster: Cluster, config: Path, extensions: Path) -> None:
    offer_vector(extensions, "0.6.2")

    done = cluster.set_up(config)

    assert done.returncode == 1
    assert "has pgvector 0.6.2, which is too old" in done.stderr
    assert "0.7 or newer" in done.stderr
    assert cluster.is_untouched()


def test_a_standby(installation: Installation, config: Path) -> None:
    for standby in running(installation, "standby", standby=True):
        done = standby.set_up(config)

        assert done.returncode == 1
        assert "is a standby" in done.stderr
        assert "--host" in done.stderr


def test_a_database_of_somebody_else(cluster: Cluster, config: Path) -> None:
    cluster.ask(f"CREATE DATABASE {DATABASE}")

    done = cluster.set_up(config)

    assert done.returncode == 1
    assert f"{DATABASE} exists and belongs to postgres, not to faceward_owner" in done.stderr
    assert not cluster.passwords()


def test_a_database_that_cannot_hold_every_name(cluster: Cluster, config: Path) -> None:
    cluster.ask("CREATE ROLE faceward_owner LOGIN PASSWORD 'known'")
    cluster.ask(f"CREATE DATABASE {DATABASE} OWNER faceward_owner TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")

    done = cluster.set_up(config, FACEWARD_OWNER_PASSWORD="known")

    assert done.returncode == 1
    assert "has the encoding LATIN1; names of people need UTF8" in done.stderr
    assert not config.exists()


@pytest.mark.parametrize(
    ("damage", "message", "mend"),
    [
        ("ALTER ROLE faceward_app SUPERUSER", "faceward_app is a superuser", "NOSUPERUSER"),
        ("ALTER ROLE faceward_app BYPASSRLS", "or has BYPASSRLS", "NOBYPASSRLS"),
        ("ALTER ROLE faceward_owner NOLOGIN", "faceward_owner may not log in", "LOGIN"),
        ("GRANT faceward_owner TO faceward_app", "is a member of faceward_owner", "REVOKE"),
    ],
)
def test_roles_that_would_not_keep_clients_apart(
    cluster: Cluster, config: Path, damage: str, message: str, mend: str
) -> None:
    assert cluster.set_up(config).returncode == 0
    cluster.ask(damage)

    done = cluster.set_up(config)

    assert done.returncode == 1
    assert message in done.stderr
    advised = re.search(r"Mend it: (.*)", done.stderr)
    assert advised is not None
    assert mend in advised[1]
    cluster.ask(advised[1])
    assert cluster.set_up(config).returncode == 0


def test_a_server_that_does_not_let_the_service_in(cluster: Cluster, config: Path) -> None:
    rules = cluster.data / "pg_hba.conf"
    kept = rules.read_text()
    rules.write_text(f"host all faceward_app all reject\n{kept}")
    cluster.ask("SELECT pg_reload_conf()")
    try:
        done = cluster.set_up(config)
        again = cluster.set_up(config)
    finally:
        rules.write_text(kept)
        cluster.ask("SELECT pg_reload_conf()")

    for run in (done, again):
        assert run.returncode == 1
        assert "faceward_app can't log in" in run.stderr
        assert f"host  {DATABASE}  faceward_app" in run.stderr
    assert cluster.set_up(config).returncode == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"database": {"url": ', "is not JSON"),
        ("[]", "must be an object"),
        ('{"database": "embedded"}', "must be an object"),
        (b"\xff\xfe\x00", "can't be read"),
    ],
)
def test_a_config_that_is_none(cluster: Cluster, config: Path, text: str | bytes, message: str) -> None:
    config.write_bytes(text.encode() if isinstance(text, str) else text)
    before = config.read_bytes()

    done = cluster.set_up(config)

    assert done.returncode == 1
    assert f"{config} {message}" in done.stderr
    assert config.read_bytes() == before
    assert cluster.is_untouched()


def test_a_config_that_has_no_place(cluster: Cluster, tmp_path: Path) -> None:
    done = cluster.set_up(tmp_path / "absent" / "config.json")

    assert done.returncode == 1
    assert "config.json can't be written in" in done.stderr
    assert cluster.is_untouched()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--port", "70000"), "The port 70000 must be a number from 1 to 65535"),
        (("--database", "a; b"), "The database name 'a; b' must be letters"),
        (("--database", ""), "The database name '' must be letters"),
        (("--superuser", "mysql://root@localhost/"), "must look like postgresql://"),
        (("--superuser", "postgresql://localhost/"), "must look like postgresql://"),
        (("--superuser", "postgresql://a@localhost:none/"), "must look like postgresql://"),
        (("--superuser", "postgresql://a@localhost/?magic=1"), "the parameter 'magic'"),
    ],
)
def test_options_that_make_no_sense(cluster: Cluster, config: Path, arguments: tuple[str, ...], message: str) -> None:
    done = cluster.run("--config", config, *arguments)

    assert done.returncode == 1
    assert message in done.stderr


def test_no_psql(cluster: Cluster, config: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    found = shutil.which("dirname")
    assert found is not None
    (tools / "dirname").symlink_to(found)

    done = cluster.set_up(config, PATH=str(tools))

    assert done.returncode == 1
    assert "psql, PostgreSQL's command line, is not installed" in done.stderr
    assert "--install" in done.stderr
