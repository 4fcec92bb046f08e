"""`faceward doctor` on what goes wrong slowly: room, connections, clocks, vacuum."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from faceward.cli import output
from faceward.cli.points import Point
from faceward.errors import StoreError

if TYPE_CHECKING:
    from faceward.settings import Settings
    from faceward.store.database import Database
    from faceward.store.reembeddings import Reembedding
    from faceward.store.server_health import ServerHealth

SERVER_POINTS = (
    "connections",
    "clock",
    "vacuum of the faces",
    "logs in the database",
    "change of model",
    "expired people",
    "people without a face",
)

_MIN_FREE_BYTES = 1 << 30
_MOST_CLOCK_SECONDS = 2.0
_FEW_PAGES = 10_000  # 80 MB, read in no time
_MOST_LOG_BYTES = 10 << 30
_PURGED_WITHIN = dt.timedelta(days=2)
_LONG_AGO: Mapping[str, dt.timedelta] = {
    "filling": dt.timedelta(days=2),
    "ready": dt.timedelta(days=14),
    "cut_over": dt.timedelta(days=30),
}
"""From when on a change of the model counts as forgotten, by the state it was left in."""


def room(name: str, directory: Path, setting: str) -> Point:
    """Whether a directory, or the one that it will be made in, can be written and has some room to grow."""
    standing = directory
    while not standing.exists() and standing != standing.parent:
        standing = standing.parent
    elsewhere = f"set {setting} to a directory that can be written"
    if not standing.is_dir() or not os.access(standing, os.W_OK | os.X_OK):
        return Point(name, "failed", f"{directory}: {standing} can't be written.", elsewhere)
    free = shutil.disk_usage(standing).free
    if free < _MIN_FREE_BYTES:
        return Point(name, "failed", f"{directory}: {free / 1e6:.0f} MB are free.", f"free 1 GB there, or {elsewhere}")
    return Point(name, "ok", f"{directory}, {free / 1e9:.0f} GB free")


def spool(settings: Settings) -> Point:
    """Where uploads of imports are kept while they run."""
    return room("spool of imports", settings.imports.spool or Path(tempfile.gettempdir()), "imports.spool")


def server_points(settings: Settings, database: Database) -> Iterator[Point]:
    from faceward.store.reembeddings import latest
    from faceward.store.server_health import expired_people, people_without_face, server_health

    try:
        found, change, (expired, since) = server_health(database), latest(database), expired_people(database)
        faceless = people_without_face(database)
    except StoreError as exc:
        yield Point(SERVER_POINTS[0], "failed", str(exc), "./setup_postgres.sh")
        return
    yield _connections(settings, found)
    yield _clock(found)
    yield _vacuum(found)
    yield _logs(settings, found)
    yield _change(change)
    yield _expired(expired, since)
    yield _faceless(faceless)


def _connections(settings: Settings, found: ServerHealth) -> Point:
    given = settings.database
    of_one = given.pool_size + given.max_overflow
    wanted = of_one * settings.api.workers
    detail = f"up to {wanted} ({settings.api.workers} x {of_one}), of {found.connections} that the server has for them"
    if wanted <= found.connections:
        return Point(SERVER_POINTS[0], "ok", detail)
    mend = "lower database.max_overflow, database.pool_size or api.workers, or raise max_connections of the server"
    return Point(SERVER_POINTS[0], "failed", detail, mend)


def _clock(found: ServerHealth) -> Point:
    detail = f"the server's is {found.clock_ahead:+.1f} s from this machine's"
    if abs(found.clock_ahead) <= _MOST_CLOCK_SECONDS:
        return Point(SERVER_POINTS[1], "ok", detail)
    mend = "let both machines follow a time server: timedatectl set-ntp true"
    return Point(SERVER_POINTS[1], "failed", detail, mend)


def _vacuum(found: ServerHealth) -> Point:
    name = SERVER_POINTS[2]
    last = "never" if found.last_vacuum is None else output.when(found.last_vacuum)
    covered = found.visible_pages / found.face_pages if found.face_pages else 1.0
    detail = f"last {last}, covers {covered:.0%} of the table"
    if not found.autovacuum:
        return Point(
            name, "failed", "The server's autovacuum is off.", "as a superuser: ALTER SYSTEM RESET autovacuum;"
        )
    if covered < 0.5 and found.face_pages > _FEW_PAGES:
        mend = "wait for autovacuum after a large import; else, as the owner, in psql: VACUUM (ANALYZE) face_encodings;"
        return Point(name, "failed", f"{detail}: exact searches read all of it", mend)
    return Point(name, "ok", detail)


def _logs(settings: Settings, found: ServerHealth) -> Point:
    """Decisions above all: one for each face that a camera sees."""
    name, kept = SERVER_POINTS[3], settings.audit
    detail = (
        f"decisions of {kept.decision_days} days: {found.decision_bytes / 1e6:,.0f} MB, audit log of {kept.log_days} days: "
        f"{found.audit_bytes / 1e6:,.0f} MB"
    )
    if found.decision_bytes + found.audit_bytes <= _MOST_LOG_BYTES:
        return Point(name, "ok", detail)
    return Point(name, "failed", detail, "lower audit.decision_days or audit.log_days, or set audit.decisions to off")


def _change(change: Reembedding | None) -> Point:
    """A second table of faces takes as much room as the first, and every deletion has to reach it too."""
    name = SERVER_POINTS[4]
    if change is None or change.state not in _LONG_AGO:
        return Point(name, "ok", "none under way")
    since = change.cut_over_at or change.ready_at or change.started_at
    detail = f"{change.model_from} to {change.model_to}: {change.state} since {output.when(since)}"
    if dt.datetime.now(dt.UTC) - since <= _LONG_AGO[change.state]:
        return Point(name, "ok", detail)
    mend = {
        "filling": "faceward reembed goes on with it; faceward reembed abandon gives it up",
        "ready": "faceward reembed cut-over, or faceward reembed abandon",
        "cut_over": "faceward reembed finish, or faceward reembed roll-back",
    }
    return Point(name, "failed", detail, mend[change.state])


def _expired(count: int, since: dt.datetime | None) -> Point:
    """They are matched no more from the moment on; what is kept of them still is for nobody."""
    name = SERVER_POINTS[5]
    if since is None:
        return Point(name, "ok", "none waits to be erased")
    detail = f"{count} wait to be erased, the first since {output.when(since)}"
    if dt.datetime.now(dt.UTC) - since <= _PURGED_WITHIN:
        return Point(name, "ok", detail)
    return Point(name, "failed", detail, "faceward purge; for always: retention.purge_seconds, or cron")


def _faceless(count: int) -> Point:
    name = SERVER_POINTS[6]
    if not count:
        return Point(name, "ok", "none")
    mend = "faceward people list shows them with 0 photos: people add-photo, or import them again"
    return Point(name, "warning", f"{count:,} are enrolled and can't be found", mend)
