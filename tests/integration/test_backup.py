"""A backup holds everything of all clients or is refused, and comes back whole or not at all, under running services."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import faceward
from faceward import FaceService, PersonRecord
from faceward.errors import (
    AccessDeniedError,
    BackupFailedError,
    BackupFileError,
    BusyError,
    DatabaseNotEmptyError,
    JobLostError,
    ProgramMissingError,
    RestoreFailedError,
    SchemaMissingError,
    UnknownPersonError,
)
from faceward.receipts import ReceiptSigner
from faceward.service.privacy import Privacy
from faceward.settings import load_settings
from faceward.store import backup as backup_module
from faceward.store.backup import Backups
from faceward.store.bulk import BulkWriter, NewPerson
from faceward.store.carried_over import ChangedExpiry
from faceward.store.contents import Contents, differences, read_contents
from faceward.store.database import Database, parse_url
from faceward.store.embedded import BUNDLED_PROGRAMS, EmbeddedServer
from faceward.store.erasure import Eraser
from faceward.store.gallery import Gallery
from faceward.store.job_queue import JobProgress, JobQueue
from faceward.store.jobs import JobStore
from faceward.store.libpq import connected
from faceward.store.personal_data import PersonalDataStore
from faceward.store.programs import find_programs
from faceward.store.restore import Restoration
from faceward.store.schema import HEAD, Schema
from faceward.store.scratch_server import locked, scratch_server
from faceward.vision import ModelPack
from older_versions import stand_at
from searching import Searching
from synthetic import MODEL, new_face, unit

PROGRAMS = [BUNDLED_PROGRAMS]
CLIENTS = ("acme", "globex")


@pytest.fixture
def open_on(home: Path, pack: ModelPack) -> Callable[[str], FaceService]:
    def open_on(url: str) -> FaceService:
        given = load_settings(database={"url": url}, search={"hnsw_index": False}, home=home)
        return faceward.open_service(given)

    return open_on


@pytest.fixture
def service(database_url: str, open_on: Callable[[str], FaceService]) -> Iterator[FaceService]:
    """Forty persons of two clients."""
    with open_on(database_url) as service:
        for client in CLIENTS:
            service.import_embeddings(records(client, *range(20)), client_id=client)
        yield service


@pytest.fixture
def filled(database: Database) -> None:
    """Forty persons of two clients, and no model."""
    writer = BulkWriter(database, Gallery(database, MODEL), MODEL)
    for client in CLIENTS:
        persons = [NewPerson(f"{n}", "A", f"{client} {n}", (unit(n),)) for n in range(20)]
        writer.write(client, persons)


@pytest.fixture
def scratch(server_directories: Callable[[], Path]) -> Path:
    return server_directories()


@pytest.fixture
def backups(database_url: str, scratch: Path) -> Backups:
    return Backups(database_url, PROGRAMS, scratch)


@pytest.fixture
def restoration(database_url: str) -> Restoration:
    return Restoration(database_url, PROGRAMS)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "faces.backup"


@pytest.fixture
def others(server: EmbeddedServer, database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """What else may be in the database: another application's tables, and who may read faceward's."""
    with psycopg.connect(database_url, autocommit=True) as owner:
        for statement in OTHERS:
            owner.execute(statement)
        try:
            yield owner
        finally:
            owner.execute("DROP OWNED BY reporting, second_reader")
            owner.execute("DROP ROLE reporting, second_reader")


OTHERS = (
    "CREATE TABLE badge_log (id serial PRIMARY KEY, note text)",
    "CREATE INDEX ON badge_log (note)",
    "INSERT INTO badge_log (note) VALUES ('old')",
    "CREATE SCHEMA app",
    "CREATE TABLE app.visits (id int PRIMARY KEY)",
    "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'",
    "CREATE TRIGGER touched BEFORE UPDATE ON clients FOR EACH ROW EXECUTE FUNCTION touch()",
    "CREATE ROLE reporting",
    "CREATE ROLE second_reader",
    "GRANT SELECT ON decisions TO reporting",
    "GRANT SELECT (id, region), UPDATE (region) ON persons TO second_reader WITH GRANT OPTION",
    "CREATE POLICY everything ON decisions TO reporting USING (true)",
)


def records(client: str, *numbers: int) -> Iterator[PersonRecord]:
    for n in numbers:
        yield PersonRecord(f"{n}", "A", f"{client} {n}", unit(n + (0 if client == "acme" else 500)))


def names(service: FaceService, number: int, client: str = "acme") -> list[str]:
    probe = unit(number + (0 if client == "acme" else 500))
    found = service.search(probe, region="A", threshold=0.9, strategy="sketch", client_id=client)
    return [candidate.name for candidate in found]


def contents(url: str) -> Any:
    with connected(parse_url(url), "test") as connection, connection.transaction():
        return read_contents(connection)


def privileges(connection: psycopg.Connection[Any]) -> list[Any]:
    """On all tables, columns, sequences and functions in the schema of faceward's, but for those of others."""
    return connection.execute(
        "SELECT table_name, NULL, grantee, privilege_type, is_grantable FROM information_schema.role_table_grants "
        "WHERE table_schema = 'public' AND table_name <> 'badge_log' "
        "UNION SELECT table_name, column_name, grantee, privilege_type, is_grantable "
        "FROM information_schema.role_column_grants WHERE table_schema = 'public' AND table_name <> 'badge_log' "
        "UNION SELECT relname, NULL, relacl::text, NULL, NULL FROM pg_class "
        "WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace AND relname NOT LIKE 'badge%' "
        "UNION SELECT proname, NULL, proacl::text, NULL, NULL FROM pg_proc WHERE proname LIKE 'faceward%' "
        "ORDER BY 1, 2, 3, 4"
    ).fetchall()


def test_a_checked_backup_makes_the_database_anew_in_another_place(
    service: FaceService,
    backups: Backups,
    file: Path,
    database_url: str,
    new_database: Callable[[], contextlib.AbstractContextManager[str]],
    open_on: Callable[[str], FaceService],
    scratch: Path,
    others: psycopg.Connection[Any],
) -> None:
    stages: set[str] = set()
    report = backups.write(file, progress=lambda stage, _: stages.add(stage))
    assert (report.checked, report.version, report.searches) == (True, HEAD, 8)
    assert (report.rows["public.persons"], report.rows["public.face_encodings"]) == (40, 40)
    assert (report.bytes, file.stat().st_mode & 0o777) == (file.stat().st_size, 0o600)
    assert "Checking the backup" in stages
    assert list(scratch.iterdir()) == []
    with new_database() as elsewhere:
        with psycopg.connect(elsewhere, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
            connection.execute("CREATE TABLE badge_log AS SELECT 7 AS id, 'precious' AS note")
        restored = Restoration(elsewhere, PROGRAMS).run(file)
        assert restored.rows == report.rows
        with psycopg.connect(elsewhere) as connection:
            assert connection.execute("SELECT * FROM badge_log").fetchall() == [(7, "precious")]
            assert privileges(connection) == privileges(others)
        assert contents(elsewhere) == contents(database_url)
        with open_on(elsewhere) as other:
            assert names(other, 7) == ["acme 7"]
            assert names(other, 7, "globex") == ["globex 7"]
            stored = other.import_embeddings(records("acme", 5, 900), client_id="acme")
            assert (stored.persons, stored.present) == (1, 1)  # numbers go on where they were


def test_running_services_go_on_with_what_was_restored(
    service: FaceService, backups: Backups, restoration: Restoration, file: Path
) -> None:
    assert service.warm("A", client_id="acme")
    backups.write(file, check=False)
    (gone,) = service.list_persons(external_id="3", client_id="acme").persons
    service.delete_person(gone.id, client_id="acme")
    service.import_embeddings(records("acme", 100), client_id="acme")
    assert service.warm("A", client_id="acme")
    assert (names(service, 3), names(service, 100)) == ([], ["acme 100"])
    restoration.run(file, replace=True)
    assert (names(service, 3), names(service, 100), names(service, 7)) == (["acme 3"], [], ["acme 7"])
    service.import_embeddings(records("acme", 101), client_id="acme")
    assert (names(service, 101), names(service, 3)) == (["acme 101"], ["acme 3"])


def test_nothing_of_others_is_restored_from_a_file_of_the_whole_database(
    filled: None, others: psycopg.Connection[Any], restoration: Restoration, file: Path, database_url: str
) -> None:
    """As backups of faceward were once made; and no grant to somebody whom this server does not know."""
    others.execute("CREATE VIEW everybody AS SELECT name FROM persons")
    with find_programs(18, PROGRAMS).running("pg_dump", "-Fc", f"--file={file}", f"--dbname={database_url}") as running:
        running.finish(BackupFailedError)
    others.execute("DROP VIEW everybody")
    others.execute("UPDATE badge_log SET id = 7, note = 'precious'")
    others.execute("REVOKE SELECT (id, region), UPDATE (region) ON persons FROM second_reader")
    others.execute("ALTER ROLE second_reader RENAME TO third_reader")
    try:
        before = contents(database_url)
        left_out = restoration.run(file, replace=True).left_out
        assert set(left_out) == {
            "TABLE app visits",
            "TABLE public badge_log",
            "VIEW public everybody",
            "FUNCTION public touch()",
            "TRIGGER public clients touched",
            "POLICY public decisions everything",
            "GRANT to the role second_reader",
        }
        assert contents(database_url) == before
        assert others.execute("SELECT * FROM badge_log").fetchall() == [(7, "precious")]
        assert others.execute("SELECT has_table_privilege('reporting', 'decisions', 'SELECT')").fetchone() == (True,)
    finally:
        others.execute("ALTER ROLE third_reader RENAME TO second_reader")


def test_a_worker_of_before_loses_its_job_and_another_goes_on_where_the_backup_was(
    database: Database, database_url: str, backups: Backups, restoration: Restoration, file: Path
) -> None:
    """Its counts are of people who are gone."""
    jobs = JobStore(database)
    queue = JobQueue(database, jobs)
    for _ in range(3):
        jobs.finish_upload("acme", jobs.begin("acme", "embeddings").id)
    begun = queue.claim()
    assert begun is not None
    queue.report(begun, JobProgress(done=32, stored_persons=32))
    backups.write(file, check=False)
    other = queue.claim()
    assert other is not None
    queue.report(begun, JobProgress(done=800, stored_persons=800))
    with psycopg.connect(database_url) as owner:
        before = dict(owner.execute("SELECT id, attempt FROM jobs").fetchall())
    restoration.run(file, replace=True)
    for job in (begun, other):
        with pytest.raises(JobLostError):
            queue.report(job, JobProgress(done=832, stored_persons=832))
    again = {job.id: job for job in iter(queue.claim, None)}
    assert len(again) == 3
    assert (again[begun.id].done, again[other.id].done) == (32, 0)
    assert all(job.attempt > max(before.values()) for job in again.values())
    for job in (begun, other):
        with pytest.raises(JobLostError):
            queue.renew(job)


def test_numbers_are_not_given_again(
    filled: None, database: Database, backups: Backups, restoration: Restoration, file: Path
) -> None:
    gallery = Gallery(database, MODEL)
    backups.write(file, check=False)
    xavier, _ = gallery.create_person("acme", "A", "Xavier", [new_face(200)])
    restoration.run(file, replace=True)
    yvonne, _ = gallery.create_person("acme", "A", "Yvonne", [new_face(201)])
    assert yvonne.id > xavier.id


def test_nobody_is_purged_by_the_expiry_that_a_backup_had(
    filled: None,
    database: Database,
    database_url: str,
    backups: Backups,
    restoration: Restoration,
    file: Path,
    tmp_path: Path,
) -> None:
    privacy = Privacy(Eraser(database), ReceiptSigner(tmp_path / "key"), PersonalDataStore(database))
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    with psycopg.connect(database_url, autocommit=True) as owner:
        enroll = (
            "INSERT INTO persons (client_id, name, region, expires_at) VALUES ('acme', 'Joe', 'A', %s) RETURNING id"
        )
        (extended,), (_,) = (owner.execute(enroll, (past,)).fetchall()[0] for _ in range(2))
        backups.write(file, check=False)
        owner.execute("UPDATE persons SET expires_at = NULL WHERE id = %s", (extended,))
        report = restoration.run(file, replace=True)
        assert report.expired == 2
        assert report.changed_expiries == [ChangedExpiry("acme", extended, None, past)]
        assert privacy.purge_held_until() is not None
        assert privacy.purge_expired(client_id="acme") == 0
        eraser = Eraser(database)
        with pytest.raises(UnknownPersonError):  # of a purge that had begun before
            eraser.erase_expired("acme", extended, eraser.survey("acme", [extended]))
        owner.execute("UPDATE persons SET expires_at = NULL WHERE id = %s", (extended,))
        assert privacy.purge_expired(client_id="acme", after_restore=True) == 1
        owner.execute("COMMENT ON TABLE persons IS 'restored by faceward at 2020-01-01T00:00:00Z'")
        assert privacy.purge_held_until() is None


class TestWhatIsRefused:
    """And leaves the database as it is."""

    @pytest.fixture(autouse=True)
    def unchanged(self, filled: None, database_url: str) -> Iterator[None]:
        before = contents(database_url)
        yield
        assert contents(database_url) == before

    def test_a_database_that_holds_data(self, backups: Backups, restoration: Restoration, file: Path) -> None:
        backups.write(file, check=False)
        with pytest.raises(DatabaseNotEmptyError, match=r"face_encodings.*--replace"):
            restoration.run(file)

    def test_what_others_made_of_faceward_s_tables(
        self, backups: Backups, restoration: Restoration, file: Path, others: psycopg.Connection[Any]
    ) -> None:
        others.execute("CREATE VIEW everybody AS SELECT name FROM persons")
        others.execute("ALTER TABLE app.visits ADD client_id varchar(100), ADD person_id bigint")
        others.execute(
            "ALTER TABLE app.visits ADD FOREIGN KEY (client_id, person_id) REFERENCES persons (client_id, id)"
        )
        backups.write(file, check=False)
        with pytest.raises(
            DatabaseNotEmptyError, match=r"view everybody depends on table persons; constraint \w+ on"
        ) as told:
            restoration.run(file, replace=True)
        assert "Drop it, restore, and make it anew" in str(told.value)
        assert others.execute("SELECT count(*) FROM everybody").fetchone() == (40,)

    def test_a_table_of_another_application_by_a_name_of_faceward_s(
        self,
        backups: Backups,
        file: Path,
        new_database: Callable[[], contextlib.AbstractContextManager[str]],
    ) -> None:
        backups.write(file, check=False)
        with new_database() as elsewhere, psycopg.connect(elsewhere, autocommit=True) as theirs:
            theirs.execute("DROP SCHEMA public CASCADE")
            theirs.execute("CREATE SCHEMA public")
            theirs.execute("CREATE TABLE clients AS SELECT 'theirs' AS name")
            with pytest.raises(DatabaseNotEmptyError, match=r"not faceward's .*: clients\."):
                Restoration(elsewhere, PROGRAMS).run(file, replace=True)
            assert theirs.execute("SELECT * FROM clients").fetchall() == [("theirs",)]

    @pytest.mark.parametrize(
        "content", [b"", b"PGDMP", b"\x89PNG\r\n" + bytes(5000), b"--\n-- PostgreSQL database dump\n--\nSELECT 1;\n"]
    )
    def test_a_file_that_is_no_backup(self, restoration: Restoration, file: Path, content: bytes) -> None:
        file.write_bytes(content)
        with pytest.raises(BackupFileError, match="no backup, or a damaged one"):
            restoration.run(file, replace=True)

    @pytest.mark.parametrize("share", [0.2, 0.6, 0.999])
    def test_a_backup_that_ends_early(
        self, backups: Backups, restoration: Restoration, file: Path, share: float
    ) -> None:
        backups.write(file, check=False)
        with file.open("r+b") as opened:
            opened.truncate(int(file.stat().st_size * share))
        with pytest.raises(BackupFileError, match="no backup, or a damaged one"):
            restoration.run(file, replace=True)

    def test_a_backup_with_a_flipped_bit(self, backups: Backups, restoration: Restoration, file: Path) -> None:
        backups.write(file, check=False)
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 4  # among the embeddings
        file.write_bytes(data)
        with pytest.raises((BackupFileError, RestoreFailedError)):
            restoration.run(file, replace=True)

    def test_a_backup_of_something_else(
        self, server: EmbeddedServer, backups: Backups, restoration: Restoration, file: Path
    ) -> None:
        with (
            file.open("wb") as opened,
            find_programs(18, PROGRAMS).running(
                "pg_dump", "-Fc", f"--dbname={server.url_of('template1')}", stdout=opened
            ) as running,
        ):
            running.finish(BackupFailedError)
        with pytest.raises(BackupFileError, match="not of faceward: it has no table alembic_version"):
            restoration.run(file, replace=True)

    def test_a_backup_of_a_newer_faceward(
        self, backups: Backups, restoration: Restoration, file: Path, database_url: str
    ) -> None:
        with psycopg.connect(database_url, autocommit=True) as owner:
            owner.execute("UPDATE alembic_version SET version_num = '9999'")
            backups.write(file, check=False)
            owner.execute("UPDATE alembic_version SET version_num = %s", (HEAD,))
        with pytest.raises(BackupFileError, match=r"of version 9999\. A newer faceward made it"):
            restoration.run(file, replace=True)

    def test_tables_that_are_in_use_for_too_long(
        self,
        backups: Backups,
        restoration: Restoration,
        file: Path,
        database_url: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        backups.write(file, check=False)
        monkeypatch.setattr("faceward.store.restore._LOCK_SECONDS", 1)
        with psycopg.connect(database_url) as user:
            user.execute("SELECT count(*) FROM persons")
            with pytest.raises(BusyError, match="stop them"):
                restoration.run(file, replace=True)

    def test_a_file_that_is_there(self, backups: Backups, file: Path) -> None:
        file.write_text("mine")
        with pytest.raises(FileExistsError):
            backups.write(file)
        assert file.read_text() == "mine"
        assert backups.write(file, check=False, replace=True).bytes > 1000

    def test_what_is_no_regular_file(self, backups: Backups, file: Path, tmp_path: Path) -> None:
        os.mkfifo(file)
        for place in (file, tmp_path):
            with pytest.raises(FileExistsError, match="no regular file"):
                backups.write(place, check=False, replace=True)
        assert file.is_fifo()

    def test_a_file_that_another_backup_is_writing(self, backups: Backups, file: Path) -> None:
        part = file.with_name("faces.backup.part")
        with locked(part, "mine"), pytest.raises(BusyError, match="Another backup"):
            backups.write(file)
        assert backups.write(file, check=False).bytes > 1000  # what was left there is nobody's
        assert not part.exists()

    def test_a_login_that_row_level_security_binds(
        self, server: EmbeddedServer, database_url: str, file: Path, tmp_path: Path
    ) -> None:
        with psycopg.connect(server.url_of("postgres"), autocommit=True) as admin:
            admin.execute("CREATE ROLE bound LOGIN IN ROLE pg_read_all_data")
            try:
                url = database_url.replace("postgres:@", "bound@", 1)
                with pytest.raises(AccessDeniedError, match=r"BYPASSRLS.*database\.backup_url"):
                    Backups(url, PROGRAMS, tmp_path).write(file)
            finally:
                admin.execute("DROP ROLE bound")
        assert list(tmp_path.glob("faces*")) == []

    def test_a_backup_that_lacks_a_row(
        self, backups: Backups, file: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def one_more(connection: Any) -> Any:
            found = read_contents(connection)
            return found if connection.info.dbname != parse_url(database_url).database else with_one_more(found)

        monkeypatch.setattr(backup_module, "read_contents", one_more)
        with pytest.raises(BackupFailedError, match=r"public\.persons has 40 rows, not 41"):
            backups.write(file)
        assert list(file.parent.glob("faces*")) == []

    def test_programs_that_are_absent(self, database_url: str, file: Path, tmp_path: Path) -> None:
        with pytest.raises(ProgramMissingError, match="postgresql-client-18"):
            Backups(database_url, [tmp_path], tmp_path).write(file)
        assert list(tmp_path.glob("faces*")) == []


def with_one_more(found: Contents) -> Contents:
    return dataclasses.replace(found, rows={**found.rows, "public.persons": found.rows["public.persons"] + 1})


def test_tables_whose_rows_were_deleted_hold_none(
    filled: None, database_url: str, backups: Backups, restoration: Restoration, file: Path
) -> None:
    """Their files are as large as before."""
    backups.write(file, check=False)
    with psycopg.connect(database_url) as owner:
        owner.execute("DELETE FROM persons")
    with pytest.raises(DatabaseNotEmptyError, match=r"audit_log.*--replace") as refused:
        restoration.run(file)
    assert "persons" not in str(refused.value)
    assert "face_encodings" not in str(refused.value)


def test_a_backup_of_an_older_faceward_is_brought_up_to_date(
    filled: None, backups: Backups, restoration: Restoration, file: Path, database_url: str
) -> None:
    stand_at(database_url, "0003")
    assert backups.write(file, check=False).version == "0003"
    Schema(database_url).upgrade()
    before = contents(database_url)
    assert restoration.run(file, replace=True).version == HEAD
    after = contents(database_url)
    assert (after.revision, after.rows, after.probes) == (HEAD, before.rows, before.probes)


def test_a_database_without_tables_is_nothing_to_back_up(server: EmbeddedServer, file: Path, tmp_path: Path) -> None:
    with pytest.raises(SchemaMissingError, match="nothing to back up"):
        Backups(server.url_of("postgres"), PROGRAMS, tmp_path).write(file)


def test_an_owner_who_is_no_superuser_restores_what_a_backup_login_wrote(
    server: EmbeddedServer, file: Path, tmp_path: Path
) -> None:
    """As setup_postgres.sh makes a server: the owner of the tables is bound by their policies."""
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as admin:
        admin.execute("CREATE ROLE owning LOGIN")
        admin.execute("GRANT faceward_app TO owning")
        admin.execute("CREATE ROLE backing LOGIN BYPASSRLS IN ROLE pg_read_all_data")
        admin.execute("CREATE DATABASE owned OWNER owning")
        try:
            url = server.url_of("owned").replace("postgres:@", "owning@", 1)
            with psycopg.connect(server.url_of("owned"), autocommit=True) as superuser:
                superuser.execute("CREATE EXTENSION vector")
            Schema(url).upgrade()
            with Database(url) as database:
                searching = Searching.on(database)
                searching.fill([unit(n) for n in range(10)])
                Backups(url.replace("owning@", "backing@", 1), PROGRAMS, tmp_path).write(file, check=False)
                searching.enroll("later", unit(100))
                Restoration(url, PROGRAMS).run(file, replace=True)
                assert searching.names(unit(7))[:1] == ["p7"]
                assert searching.names(unit(100))[:1] != ["later"]
                searching.keeper.close()
            status = Schema(url).status()
            assert (status.current, status.unforced) == (True, frozenset())
        finally:
            admin.execute("DROP DATABASE owned WITH (FORCE)")
            admin.execute("DROP ROLE backing")
            admin.execute("DROP ROLE owning")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("DELETE FROM persons WHERE id = (SELECT min(id) FROM persons)", "public.persons has 9 rows, not 10"),
        ("UPDATE persons SET id = id + 1000 WHERE external_id = 'p3'", "public.persons has other rows"),
        (
            "UPDATE face_encodings SET embedding = (SELECT embedding FROM face_encodings ORDER BY id LIMIT 1)",
            "public.face_encodings has other rows",
        ),
        ("UPDATE alembic_version SET version_num = '0001'", f"the tables are of version 0001, not {HEAD}"),
        ("DROP TABLE request_tokens", "the table public.request_tokens is missing"),
        ("DROP POLICY tenant ON face_encodings", "a search finds other faces"),
    ],
)
def test_each_difference_of_two_databases_is_told(
    database: Database, database_url: str, change: str, told: str
) -> None:
    searching = Searching.on(database)
    searching.fill([unit(n) for n in range(10)])
    before = contents(database_url)
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("ALTER TABLE face_encodings DROP CONSTRAINT fk_face_person")
        owner.execute(change)
    with connected(parse_url(database_url), "test") as connection:
        assert told in differences(before, contents(database_url), connection)


def test_what_a_killed_check_has_left_is_removed_by_the_next(scratch: Path) -> None:
    (scratch / "scratch-server-dead").mkdir()
    for suffix in ("busy", "lock", "users"):
        (scratch / f"scratch-server-dead.{suffix}").touch()
    (scratch / "scratch-server-live").mkdir()
    live = {scratch / "scratch-server-live", scratch / "scratch-server-live.busy"}
    with locked(scratch / "scratch-server-live.busy", "in use"):
        with scratch_server(scratch) as server, psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
            assert not (scratch / "scratch-server-dead").exists()
        assert set(scratch.iterdir()) == live
