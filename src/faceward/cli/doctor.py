"""`faceward doctor`: each point that must hold for faceward to work, and the command that mends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import typer

from faceward.cli import output
from faceward.cli.invocation import Invocation, invocation, manifest_in_use, shown_url
from faceward.cli.options import AsJson
from faceward.cli.photo_points import PHOTO_KEYS, photo_keys
from faceward.cli.points import Point
from faceward.cli.server_points import SERVER_POINTS, room, server_points, spool
from faceward.errors import (
    AccessDeniedError,
    DatabaseFullError,
    ModelError,
    ModelMismatchError,
    SettingsError,
    StoreError,
    UnknownPackError,
)

if TYPE_CHECKING:
    from faceward.factory import Deployment
    from faceward.settings import Settings
    from faceward.store.schema import SchemaStatus

DATABASE_POINTS = (
    "server",
    "login",
    "pgvector",
    "tables",
    "index idx_embedding_hnsw",
    "index idx_person_region_client",
    "role faceward_app",
    "row-level security",
    "login of backups",
    "work as faceward_app",
    "gallery's model",
    *SERVER_POINTS,
    PHOTO_KEYS,
)
"""The points that need a database, each of them reached only where those before it let it be."""

_MAKE_PERSON_INDEX = (
    "as the owner, in psql: DROP INDEX IF EXISTS idx_person_region_client; "
    "CREATE INDEX idx_person_region_client ON persons (client_id, region, id);"
)


def doctor(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Check everything that faceward needs, and say what mends what is wrong. Exit status 1 if anything is.

    Warnings are of what the service does without, as a backup; they leave the exit status 0.
    """
    points = list(_examine(invocation(ctx)))
    if as_json:
        output.print_json(points)
    else:
        _report(points)
    if any(point.state in ("failed", "not reached") for point in points):
        raise typer.Exit(1)


def _examine(given: Invocation) -> Iterator[Point]:
    try:
        settings = given.settings()
        url = shown_url(settings.database.url)
    except SettingsError as exc:
        yield Point("settings", "failed", str(exc), "mend that file, or name another with --config PATH")
        for name in ("runtime", "model pack", "spool of imports", *DATABASE_POINTS):
            yield _not_reached(name)
        return
    yield Point("settings", "ok", f"database.url is {url}")
    yield _runtime(settings)
    yield _model_pack(settings)
    yield spool(settings)
    embedded = settings.database.url == "embedded"
    if embedded:
        directory = room("data directory", settings.database_directory, "FACEWARD_DATA")
        yield directory
        if directory.state != "ok":
            yield from map(_not_reached, DATABASE_POINTS)
            return
    with ExitStack() as open_things:
        reached = []
        for point in _database(settings, open_things, embedded=embedded):
            reached.append(point.name)
            yield point
        yield from (_not_reached(name) for name in DATABASE_POINTS if name not in reached)


def _runtime(settings: Settings) -> Point:
    from faceward.vision.runtimes import choose_runtime

    try:
        return Point("runtime", "ok", choose_runtime(settings.model.runtime))
    except ModelError as exc:
        return Point("runtime", "failed", str(exc), "pip install openvino (x86-64), or: pip install onnxruntime")


def _model_pack(settings: Settings) -> Point:
    from faceward.factory import pack_store

    name = settings.model.pack
    try:
        files = pack_store(settings).verify(name)
    except UnknownPackError as exc:
        return Point("model pack", "failed", str(exc), "faceward models list")
    except ModelError as exc:
        return Point("model pack", "failed", str(exc), f"faceward models pull {name}")
    return Point("model pack", "ok", f"{name}: {len(files)} files, all verified")


def _database(settings: Settings, open_things: ExitStack, *, embedded: bool) -> Iterator[Point]:
    """The points from the server on, up to the first that the later ones need."""
    from faceward.factory import Deployment
    from faceward.store.schema import CONTRACT_INDEXES, HEAD, MIN_PGVECTOR, version_tuple

    start = (
        "set FACEWARD_DATA to another directory"
        if embedded
        else (
            "start it (Debian, Ubuntu: sudo systemctl start postgresql), or correct database.url; where the database is "
            "missing: ./setup_postgres.sh"
        )
    )
    try:
        deployment = open_things.enter_context(closing(Deployment(settings)))
        status = deployment.schema.status()
    except (AccessDeniedError, DatabaseFullError) as exc:
        yield Point("server", "ok", "it answers")
        yield Point("login", "failed", str(exc), "correct user and password in database.url, or: ./setup_postgres.sh")
        return
    except (StoreError, SettingsError) as exc:
        yield Point("server", "failed", str(exc), start)
        return
    yield Point("server", "ok", f"PostgreSQL {status.server_version}")
    yield Point("login", "ok", shown_url(settings.database.url))

    needed = ".".join(map(str, MIN_PGVECTOR))
    if status.pgvector is None:
        detail = "It is installed on the server, but not in this database."
        mend = (
            "faceward db upgrade; where its login may not: as a superuser, in that database: CREATE EXTENSION vector;"
        )
        if status.pgvector_available is None:
            detail = "It is not installed on the server."
            mend = "./setup_postgres.sh (it says which package carries pgvector)"
        yield Point("pgvector", "failed", detail, mend)
        return
    if version_tuple(status.pgvector) < MIN_PGVECTOR:
        detail = f"{status.pgvector} is too old: faceward needs {needed} or newer."
        yield Point("pgvector", "failed", detail, "install a newer package, then: ALTER EXTENSION vector UPDATE;")
        return
    yield Point("pgvector", "ok", f"{status.pgvector} (needs {needed})")

    if status.revision != HEAD:
        found = "There are none." if status.revision is None else f"They are at version {status.revision}."
        yield Point("tables", "failed", f"{found} This faceward needs version {HEAD}.", "faceward db upgrade")
        return
    yield Point("tables", "ok", f"version {HEAD}")
    for name in CONTRACT_INDEXES:
        yield _index(name, status, settings)
    yield _role(status)
    yield _row_security(status)
    yield _backup_login(deployment)
    yield from _as_service(settings, deployment)


def _index(name: str, status: SchemaStatus, settings: Settings) -> Point:
    if name in status.indexes:
        return Point(f"index {name}", "ok", "there and valid")
    if name == "idx_embedding_hnsw":
        if not settings.search.hnsw_index:
            return Point(f"index {name}", "ok", "absent, as search.hnsw_index says")
        return Point(f"index {name}", "failed", "It is absent, or was not built to its end.", "faceward db index")
    return Point(f"index {name}", "failed", "It is absent, or was not built to its end.", _MAKE_PERSON_INDEX)


def _role(status: SchemaStatus) -> Point:
    name = "role faceward_app"
    if not status.app_role:
        return Point(name, "failed", "The role is missing.", "./setup_postgres.sh")
    if not status.app_role_is_safe:
        detail = (
            "It is a superuser or may bypass row-level security, so that clients are not kept apart by the database."
        )
        return Point(name, "failed", detail, "as a superuser: ALTER ROLE faceward_app NOSUPERUSER NOBYPASSRLS;")
    return Point(name, "ok", "no superuser, and bound by row-level security")


def _row_security(status: SchemaStatus) -> Point:
    name = "row-level security"
    if not status.unforced:
        return Point(name, "ok", "forced on every table")
    mend = " ".join(
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;" for table in sorted(status.unforced)
    )
    return Point(name, "failed", f"It is not forced on {', '.join(sorted(status.unforced))}.", f"as the owner: {mend}")


def _backup_login(deployment: Deployment) -> Point:
    """A backup that was never tried is missed when it is too late."""
    from faceward.store.backup import MAKE_LOGIN

    name = "login of backups"
    try:
        bound = deployment.backups().bound_login()
    except (StoreError, SettingsError) as exc:
        return Point(name, "warning", str(exc), "correct database.backup_url")
    if bound is None:
        return Point(name, "ok", "not bound by row-level security")
    detail = f"{bound} is bound by row-level security: `faceward backup` would lack rows, and refuses."
    return Point(name, "warning", detail, MAKE_LOGIN)


def _as_service(settings: Settings, deployment: Deployment) -> Iterator[Point]:
    """What a service meets: the login may work as the role, and the gallery was made by the model pack in use."""
    from faceward.factory import pack_in_use
    from faceward.store.schema import check_database

    try:
        given = manifest_in_use(settings)
    except ModelError:
        return  # the point "model pack" says it
    with closing(deployment.connect()) as database:
        try:
            manifest = pack_in_use(settings, database)
            check_database(database, manifest.model_id, manifest.embedding.dimension)
            changed = "" if manifest == given else f"; it was changed to that, config.json still names {given.name}"
            model = Point("gallery's model", "ok", manifest.model_id + changed)
        except UnknownPackError as exc:
            model = Point("gallery's model", "failed", str(exc), "faceward models add DIR")
        except ModelMismatchError as exc:
            model = Point("gallery's model", "failed", str(exc), "set model.pack, or database.url, in config.json")
        except StoreError as exc:
            yield Point("work as faceward_app", "failed", str(exc), "./setup_postgres.sh")
            return
        yield Point("work as faceward_app", "ok", "the login may")
        yield model
        yield from server_points(settings, database)
        yield photo_keys(settings, database)


def _not_reached(name: str) -> Point:
    return Point(name, "not reached", "not reached: a point above comes first")


def _report(points: list[Point]) -> None:
    from rich.text import Text

    marks = {
        "ok": Text("✓", "green"),
        "warning": Text("!", "yellow"),
        "failed": Text("✗", "bold red"),
        "not reached": Text("-", "dim"),
    }
    table = output.new_table("", "point", "what was found", "what mends it")
    for point in points:
        table.add_row(marks[point.state], point.name, point.detail, point.mend)
    output.print_table(table)
    failed, warnings = (sum(point.state == state for point in points) for state in ("failed", "warning"))
    if failed:
        output.say(f"Points to mend: {failed}. Begin with the first.")
    elif warnings:
        output.say(f"faceward can work. Points to look at: {warnings}, marked with !.")
    else:
        output.say("Everything is in order.")
