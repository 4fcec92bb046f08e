"""The application: its global options, its commands, and what a user sees of an error."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from faceward.actors import acting_as
from faceward.cli import output
from faceward.cli.advice import advised
from faceward.cli.audit import audit_recall
from faceward.cli.audit_log import audit_app
from faceward.cli.backup import backup, restore
from faceward.cli.clients import clients_app
from faceward.cli.database import database_app
from faceward.cli.decisions import list_decisions
from faceward.cli.demo import demo
from faceward.cli.doctor import doctor
from faceward.cli.enroll import enroll
from faceward.cli.gallery import gallery_app
from faceward.cli.import_dir import import_dir
from faceward.cli.imports import import_compreface, import_csv, import_deepface, import_sqlite
from faceward.cli.invocation import Invocation
from faceward.cli.keys import keys_app
from faceward.cli.models import models_app
from faceward.cli.people import people_app
from faceward.cli.photos import photos_app
from faceward.cli.purge import purge
from faceward.cli.receipt import receipt_app
from faceward.cli.recognize import recognize, verify
from faceward.cli.reembed import reembed_app
from faceward.cli.regions import regions_app
from faceward.cli.serve import serve
from faceward.errors import FacewardError


class _Commands(TyperGroup):
    """Shows an error that a user can meet as one line, with exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except FacewardError as exc:
            output.fail(advised(exc))
            raise typer.Exit(1) from exc
        except BrokenPipeError:  # the reader of stdout has left: Typer ends the process quietly
            raise
        except OSError as exc:
            name = f"{exc.filename}: " if exc.filename else ""
            output.fail(f"{name}{exc.strerror or exc}.")
            raise typer.Exit(1) from exc
        except KeyboardInterrupt:
            output.tell("Stopped.")
            raise typer.Exit(130) from None


def build_app() -> typer.Typer:
    app = typer.Typer(
        name="faceward",
        cls=_Commands,
        help="Face recognition inside a region, inside a client, in PostgreSQL.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    app.command("demo")(demo)
    app.command("enroll")(enroll)
    app.command("enroll-dir", help="The older name of import-dir.")(import_dir)
    app.command("import-dir")(import_dir)
    app.command("import-sqlite")(import_sqlite)
    app.command("import-csv")(import_csv)
    app.command("import-compreface")(import_compreface)
    app.command("import-deepface")(import_deepface)
    app.command("recognize")(recognize)
    app.command("verify")(verify)
    app.add_typer(people_app(), name="people")
    app.add_typer(photos_app(), name="photos")
    app.command("purge")(purge)
    app.add_typer(gallery_app(), name="gallery")
    app.add_typer(regions_app(), name="regions")
    app.add_typer(clients_app(), name="clients")
    app.add_typer(keys_app(), name="keys")
    app.add_typer(models_app(), name="models")
    app.add_typer(reembed_app(), name="reembed")
    app.add_typer(database_app(), name="db")
    app.command("backup")(backup)
    app.command("restore")(restore)
    app.command("serve")(serve)
    app.add_typer(audit_app(), name="audit")
    app.command("decisions")(list_decisions)
    app.add_typer(receipt_app(), name="receipt")
    app.command("audit-recall")(audit_recall)
    app.command("doctor")(doctor)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"faceward {version('faceward')}")
        raise typer.Exit


def _options(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="PATH",
            help="The settings file; left out: the one that FACEWARD_CONFIG names, else ./config.json, else defaults.",
        ),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    ctx.obj = Invocation(config)
    ctx.with_resource(acting_as(f"cli:{_user()}"))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a number without a name, as containers have
        return str(os.getuid())
