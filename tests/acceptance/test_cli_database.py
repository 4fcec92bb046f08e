"""`faceward db` and `faceward doctor`, on sound databases and on broken ones."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from command_line import CommandLine

from faceward.cli import server_points
from faceward.cli.doctor import DATABASE_POINTS
from faceward.store.embedded import EmbeddedServer
from faceward.store.schema import HEAD


@pytest.fixture
def sql(database_url: str) -> Any:
    """Runs statements in this test's database, as its superuser."""

    def run(*statements: str) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    return run


@pytest.fixture
def empty(server: EmbeddedServer, faceward: CommandLine) -> Any:
    """The command line on a database without anything in it."""
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE bare")
        faceward.config.write_text(json.dumps({"database": {"url": server.url_of("bare")}}))
        yield faceward
        admin.execute("DROP DATABASE bare WITH (FORCE)")


def states(faceward: CommandLine) -> dict[str, tuple[str, str]]:
    """What the doctor found: the state and the mending words of each point."""
    return {point["name"]: (point["state"], point["mend"]) for point in faceward("doctor", "--json").json}


def failed(faceward: CommandLine) -> dict[str, str]:
    return {name: mend for name, (state, mend) in states(faceward).items() if state == "failed"}


def test_status_describes_the_database_without_its_password(faceward: CommandLine) -> None:
    status = faceward.succeeds("db", "status", "--json").json
    assert (status["revision"], status["current"], status["newest_revision"]) == (HEAD, True, HEAD)
    assert {"idx_embedding_hnsw", "idx_person_region_client"} <= set(status["indexes"])
    assert f"version {HEAD} (newest: {HEAD})" in faceward.succeeds("db", "status").stdout


def test_upgrade_makes_the_tables_once(empty: CommandLine) -> None:
    assert empty.succeeds("db", "status", "--json").json["revision"] is None
    assert f"at version {HEAD} now" in empty.succeeds("db", "upgrade").stdout
    assert f"at version {HEAD} already" in empty.succeeds("db", "upgrade").stdout
    assert empty.succeeds("db", "status", "--json").json["current"] is True


def test_index_makes_the_hnsw_index_as_the_settings_say(faceward: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "already" in faceward.succeeds("db", "index").stdout
    monkeypatch.setenv("FACEWARD_SEARCH__HNSW_INDEX", "false")
    assert "now" in faceward.succeeds("db", "index").stdout
    assert "idx_embedding_hnsw" not in faceward.succeeds("db", "status", "--json").json["indexes"]
    assert "idx_embedding_hnsw" not in str(failed(faceward))  # absent, but wanted so


def test_nothing_fails_where_all_is_well(faceward: CommandLine) -> None:
    answer = faceward.succeeds("doctor")
    assert "Everything is in order." in answer.stdout
    assert "✗" not in answer.stdout
    found = states(faceward)
    assert {state for state, _ in found.values()} == {"ok"}
    assert set(DATABASE_POINTS) < set(found)


def test_a_server_that_is_down_leaves_the_later_points_unreached(without_database: CommandLine) -> None:
    answer = without_database("doctor")
    assert answer.status == 1
    assert "✗" in answer.stdout
    assert "not reached" in answer.stdout
    assert "sEcReT" not in answer.stdout
    found = states(without_database)
    assert found["model pack"][0] == "ok"
    assert found["server"][0] == "failed"
    assert "systemctl start postgresql" in found["server"][1]
    assert [name for name, (state, _) in found.items() if state == "not reached"] == list(DATABASE_POINTS[1:])


def test_a_login_that_is_refused_is_told_from_a_server_that_is_down(
    faceward: CommandLine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEWARD_DATABASE__URL", database_url.replace("postgres:@", "nobody:@", 1))
    found = states(faceward)
    assert found["server"][0] == "ok"
    assert found["login"][0] == "failed"
    assert "user and password" in found["login"][1]


def test_a_database_that_is_missing_is_told_what_makes_it(
    faceward: CommandLine, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEWARD_DATABASE__URL", server.url_of("nowhere"))
    assert "./setup_postgres.sh" in failed(faceward)["server"]


def test_a_database_without_anything_is_told_what_makes_it(empty: CommandLine) -> None:
    assert "faceward db upgrade" in failed(empty)["pgvector"]
    empty.succeeds("db", "upgrade")
    assert failed(empty) == {}


@pytest.mark.parametrize(
    ("statements", "point", "mend"),
    [
        (["DROP TABLE alembic_version"], "tables", "faceward db upgrade"),
        (["DROP INDEX idx_embedding_hnsw"], "index idx_embedding_hnsw", "faceward db index"),
        (["DROP INDEX idx_person_region_client"], "index idx_person_region_client", "CREATE INDEX"),
        (
            ["UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_embedding_hnsw'::regclass"],
            "index idx_embedding_hnsw",
            "faceward db index",
        ),
        (["DROP EXTENSION vector CASCADE"], "pgvector", "CREATE EXTENSION vector"),
        (["REVOKE ALL ON alembic_version FROM faceward_app"], "work as faceward_app", "./setup_postgres.sh"),
        (
            ["INSERT INTO embedding_models (client_id, model_id) VALUES ('acme', 'another-model')"],
            "gallery's model",
            "model.pack",
        ),
    ],
)
def test_each_broken_point_is_told_what_mends_it(
    faceward: CommandLine, sql: Any, statements: list[str], point: str, mend: str
) -> None:
    sql(*statements)
    found = failed(faceward)
    assert list(found) == [point]
    assert mend in found[point]


def test_a_role_that_row_level_security_does_not_bind_is_told_how_to_bind_it(faceward: CommandLine, sql: Any) -> None:
    sql("ALTER ROLE faceward_app BYPASSRLS")
    try:
        found = failed(faceward)
    finally:
        sql("ALTER ROLE faceward_app NOBYPASSRLS")  # roles belong to the whole server
    assert list(found) == ["role faceward_app"]
    assert "NOBYPASSRLS" in found["role faceward_app"]


def test_the_hnsw_index_is_mended_by_the_command_named(faceward: CommandLine, sql: Any) -> None:
    sql("DROP INDEX idx_embedding_hnsw")
    assert failed(faceward) == {"index idx_embedding_hnsw": "faceward db index"}
    faceward.succeeds("db", "index")
    assert failed(faceward) == {}


def test_settings_that_cant_be_read_come_first(tmp_path: Path) -> None:
    found = states(CommandLine(tmp_path / "nowhere.json"))
    assert found.pop("settings")[0] == "failed"
    assert {state for state, _ in found.values()} == {"not reached"}


def test_a_pack_that_is_absent_is_told_what_fetches_it(
    faceward: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEWARD_HOME", str(tmp_path / "home"))
    assert failed(faceward) == {"model pack": "faceward models pull faceplugin-0.0.1"}
    monkeypatch.setenv("FACEWARD_MODEL__PACK", "none-such")
    assert failed(faceward)["model pack"] == "faceward models list"


def test_a_runtime_that_is_absent_is_told_what_installs_it(
    faceward: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    monkeypatch.setenv("FACEWARD_MODEL__RUNTIME", "onnxruntime")
    assert "pip install" in failed(faceward)["runtime"]


def test_a_data_directory_that_cant_be_made_is_named(
    faceward: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    monkeypatch.setenv("FACEWARD_DATA", str(in_the_way / "data"))
    monkeypatch.setenv("FACEWARD_DATABASE__URL", "embedded")
    assert "FACEWARD_DATA" in failed(faceward)["data directory"]


def test_row_security_that_is_not_forced_is_told(faceward: CommandLine, sql: Any) -> None:
    sql("ALTER TABLE persons NO FORCE ROW LEVEL SECURITY")
    mend = failed(faceward)["row-level security"]
    sql(mend.removeprefix("as the owner: "))
    assert not failed(faceward)


def test_more_connections_than_the_server_has_are_told(faceward: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEWARD_API__WORKERS", "3")
    assert "connections" not in failed(faceward)
    monkeypatch.setenv("FACEWARD_DATABASE__MAX_OVERFLOW", "80")
    assert "max_connections" in failed(faceward)["connections"]


def test_a_login_that_can_not_back_up_is_a_warning(
    faceward: CommandLine, sql: Any, server: EmbeddedServer, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a server of one's own: the owner of the tables is no superuser, and database.backup_url is not set."""
    sql("CREATE ROLE owning LOGIN IN ROLE pg_read_all_data")  # roles belong to the whole server
    try:
        monkeypatch.setenv("FACEWARD_DATABASE__MIGRATION_URL", database_url.replace("postgres:@", "owning:@", 1))
        state, mend = states(faceward)["login of backups"]
        assert state == "warning"
        assert "CREATE ROLE faceward_backup LOGIN BYPASSRLS" in mend
        said = faceward.succeeds("doctor").stdout
        assert "owning is bound by row-level security" in " ".join(said.replace("│", " ").split())
        assert "Points to look at: 1" in said
        assert "Everything is in order" not in said

        sql("ALTER ROLE owning BYPASSRLS")
        assert states(faceward)["login of backups"][0] == "ok"
        monkeypatch.setenv("FACEWARD_DATABASE__BACKUP_URL", database_url.replace("postgres:@", "nobody:@", 1))
        assert states(faceward)["login of backups"] == ("warning", "correct database.backup_url")
    finally:
        sql("DROP ROLE owning")


def test_a_clock_that_is_wrong_is_told(faceward: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 60)
    answer = faceward("doctor", "--json")
    (clock,) = [point for point in answer.json if point["name"] == "clock"]
    assert (clock["state"], clock["detail"]) == ("failed", "the server's is -60.0 s from this machine's")
    assert "set-ntp" in clock["mend"]


def test_faces_that_no_vacuum_has_seen_are_told(
    faceward: CommandLine, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_points, "_FEW_PAGES", 0)
    rows = "INSERT INTO regions (name) VALUES ('A'); INSERT INTO persons (id, region, name) VALUES (1, 'A', 'Joe');"
    face = "INSERT INTO face_encodings (person_id, region, model_id, embedding) SELECT 1, 'A', 'm', "
    sql(f"{rows} {face} array_prepend(1.0, array_fill(0.0, ARRAY[511]))::vector FROM generate_series(1, 3)")
    assert "VACUUM (ANALYZE) face_encodings;" in failed(faceward)["vacuum of the faces"]
    sql("VACUUM face_encodings")
    assert not failed(faceward)


def test_logs_that_have_grown_large_are_told(faceward: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_points, "_MOST_LOG_BYTES", 1000)
    assert "audit.decision_days" in failed(faceward)["logs in the database"]


def test_a_change_of_model_that_was_forgotten_is_told(faceward: CommandLine, sql: Any) -> None:
    row = "INSERT INTO reembeddings (model_from, model_to, state, started_at) VALUES ('a', 'b', 'filling', now())"
    sql(row)
    assert not failed(faceward)
    sql("UPDATE reembeddings SET started_at = now() - interval '3 days'")
    assert failed(faceward) == {
        "change of model": "faceward reembed goes on with it; faceward reembed abandon gives it up"
    }


def test_expired_people_whom_nobody_erases_are_told(faceward: CommandLine, sql: Any) -> None:
    sql(
        "INSERT INTO clients (client_id, name) VALUES ('acme', 'Acme')",
        "INSERT INTO regions (client_id, name) VALUES ('acme', 'A')",
        "INSERT INTO persons (client_id, region, name, expires_at) VALUES ('acme', 'A', 'Joe', now() - interval '1 hour')",
    )
    assert not failed(faceward)
    sql("UPDATE persons SET expires_at = now() - interval '3 days'")
    assert list(failed(faceward)) == ["expired people"]
    faceward.succeeds("purge")
    assert not failed(faceward)


def test_people_whom_nobody_can_find_are_told(faceward: CommandLine, enrolled: int, sql: Any) -> None:
    assert states(faceward)["people without a face"] == ("ok", "")
    sql("DELETE FROM face_encodings")  # as a change of the model leaves who has no photo behind
    state, mend = states(faceward)["people without a face"]
    assert (state, "people list" in mend) == ("warning", True)
    assert not failed(faceward)
    assert "1 are enrolled and can't be found" in faceward.succeeds("doctor").stdout.replace("\n", " ")


def test_a_spool_that_cant_be_written_is_told(
    faceward: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FACEWARD_IMPORTS__SPOOL", str(tmp_path / "file"))
    assert "imports.spool" in failed(faceward)["spool of imports"]
