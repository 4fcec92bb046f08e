"""`faceward backup` and `faceward restore`."""

from __future__ import annotations

import contextlib
import datetime as dt
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from faceward.cli import output
from faceward.cli.invocation import database_of, invocation, manifest_in_use
from faceward.cli.options import AsJson, Replace


def backup(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; its owner's alone (mode 600).")],
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Restore it into a server made for that, and compare.")
    ] = True,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Back up faceward's tables, of all clients, into one file, while the services go on. It is pg_dump's custom format."""
    from faceward.factory import Deployment

    settings = invocation(ctx).settings()
    with (
        _ended_cleanly(),
        contextlib.closing(Deployment(settings)) as deployment,
        output.download_bar("Backing up") as bar,
    ):
        report = deployment.backups().write(file, check=check, replace=replace, progress=bar.stage)
    if as_json:
        output.print_json(report)
        return
    output.print_fields(
        {
            "backup": report.file,
            "of": database_of(settings),
            "size": f"{report.bytes / 1e6:,.1f} MB in {report.seconds:.1f} s",
            "SHA-256": report.sha256,
            "tables": f"version {report.version}",
            "checked": f"restored: {_rows(report.rows)}, {report.searches} searches, all alike"
            if report.checked
            else "no (--no-check)",
        }
    )
    if report.checked and not _count(report.rows, "persons"):
        output.tell(
            "Nobody is enrolled in this database. Is it the one you mean? --config or FACEWARD_CONFIG names another."
        )


def restore(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `faceward backup` made.")],
    replace: Annotated[bool, typer.Option("--replace", help="Replace what the database holds of faceward.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring a backup into the database: all of it, or nothing. Services that run wait meanwhile, then go on with it."""
    from faceward.factory import Deployment
    from faceward.store.carried_over import HOLD_DAYS

    settings = invocation(ctx).settings()
    dimension = manifest_in_use(settings).embedding.dimension
    with (
        _ended_cleanly(),
        contextlib.closing(Deployment(settings)) as deployment,
        output.download_bar("Restoring") as bar,
    ):
        bar.stage("Restoring the backup", 0)
        report = deployment.restoration().run(file, replace=replace, dimension=dimension)
        bar.stage("Building the HNSW index", 0)
        deployment.schema.apply_graph(deployment.graph)
    if as_json:
        output.print_json(report)
        return
    output.print_fields(
        {
            "restored": report.file,
            "into": database_of(settings),
            "rows": _rows(report.rows),
            "tables": f"version {report.version}",
            "expired": f"{report.expired:,} persons; for {HOLD_DAYS} days only `faceward purge --after-restore` erases them",
        }
    )
    for changed in report.changed_expiries:
        output.say(
            f"{changed.client_id}: person {changed.person_id} expires {_expiry(changed.restored)} again, not "
            f"{_expiry(changed.before)} as before the restore."
        )
    if report.left_out:
        output.tell(
            f"Left out, as faceward did not make it or this server has no such role: {'; '.join(report.left_out)}."
        )


def _expiry(moment: dt.datetime | None) -> str:
    return "never" if moment is None else output.when(moment)


def _rows(rows: Mapping[str, int]) -> str:
    return f"{_count(rows, 'persons'):,} persons, {_count(rows, 'face_encodings'):,} faces"


def _count(rows: Mapping[str, int], table: str) -> int:
    return sum(count for name, count in rows.items() if name.partition(".")[2] == table)


@contextlib.contextmanager
def _ended_cleanly() -> Iterator[None]:
    """A SIGTERM ends it as Ctrl-C does: what it started is ended too, and no half file stays."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
