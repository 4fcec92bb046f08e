"""`faceward models`: the model packs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from faceward.cli import output
from faceward.cli.evaluate import evaluate
from faceward.cli.invocation import invocation
from faceward.cli.options import AsJson

_Name: TypeAlias = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="The pack; left out: the one in use.", show_default=False)
]


def models_app() -> typer.Typer:
    app = typer.Typer(help="List, fetch, add, verify and evaluate model packs.", no_args_is_help=True)
    app.command("list")(list_packs)
    app.command("pull")(pull)
    app.command("add")(add)
    app.command("verify")(verify)
    app.command("evaluate")(evaluate)
    return app


def list_packs(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the packs: which one is in use, which are on the disk, and their licences."""
    from faceward.factory import pack_store

    settings = invocation(ctx).settings()
    packs = pack_store(settings).list()
    if as_json:
        output.print_json([_as_json(pack, in_use=pack.manifest.name == settings.model.pack) for pack in packs])
        return
    table = output.new_table("pack", "in use", "on the disk", "licence", "dimension", "threshold", "description")
    for pack in packs:
        manifest = pack.manifest
        table.add_row(
            manifest.name,
            "yes" if manifest.name == settings.model.pack else "",
            "yes" if pack.present else "no",
            manifest.licence.name,
            str(manifest.embedding.dimension),
            f"{manifest.threshold:.2f}",
            manifest.description,
        )
    output.print_table(table)


def pull(ctx: typer.Context, name: _Name = None) -> None:
    """Fetch what a pack lacks, and verify all of it."""
    from faceward.factory import pack_store

    settings = invocation(ctx).settings()
    name = name or settings.model.pack
    with output.download_bar("Fetching the models") as download:
        store = pack_store(settings, download.tell)
        store.pull(name, progress=download.progress)  # also a file that is there but damaged
        pack = store.get(name)
    output.say(f"Model pack {pack.name} is complete and verified.")


def add(
    ctx: typer.Context,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Holds the models and faceward-pack.json.", show_default=False)
    ],
) -> None:
    """Add a pack from a folder with a manifest: a model of your own choice, with its own licence."""
    from faceward.factory import pack_store

    manifest = pack_store(invocation(ctx).settings()).add(directory)
    output.say(
        f"Added model pack {manifest.name} (licence {manifest.licence.name}). To use it, in config.json: "
        f'"model": {{"pack": "{manifest.name}"}}. A gallery that exists is changed to it: `faceward reembed --pack '
        f"{manifest.name}`."
    )


def verify(ctx: typer.Context, name: _Name = None, as_json: AsJson = False) -> None:
    """Compare each file of a pack with its SHA-256."""
    from faceward.factory import pack_store

    settings = invocation(ctx).settings()
    name = name or settings.model.pack
    files = pack_store(settings).verify(name)
    if as_json:
        output.print_json({"pack": name, "verified": files})
    else:
        output.say(f"Model pack {name}: {len(files)} files, all as its manifest says.")


def _as_json(pack: Any, *, in_use: bool) -> dict[str, object]:
    manifest = pack.manifest
    return {
        "name": manifest.name,
        "in_use": in_use,
        "present": pack.present,
        "directory": pack.directory,
        "licence": {"name": manifest.licence.name, "allows": manifest.licence.allows},
        "dimension": manifest.embedding.dimension,
        "threshold": manifest.threshold,
        "description": manifest.description,
        "fetched_from": pack.fetched_from,
    }
