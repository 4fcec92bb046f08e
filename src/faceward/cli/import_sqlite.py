"""`faceward import-sqlite`: the people of an older system."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faceward.cli import output
from faceward.cli.invocation import invocation, manifest_in_use
from faceward.cli.options import AsJson, Client, Largest

if TYPE_CHECKING:
    from faceward.importers import Account, ImportAccount

_SHOWN = 40


def import_sqlite(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="OLD.db", help="The SQLite file; it is only read.", show_default=False)
    ],
    region: Annotated[str | None, typer.Option("--region", help="The region of everybody.")] = None,
    regions: Annotated[
        Path | None,
        typer.Option("--regions", metavar="FILE.csv", help="Columns: region, and id or name of the person."),
    ] = None,
    default_region: Annotated[
        str | None, typer.Option("--default-region", help="Of those whom --regions leaves out; else they are refused.")
    ] = None,
    client: Client = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="ROLE=TABLE.COLUMN", help="As persons.name=users.full_name; may be repeated."),
    ] = None,
    same_model: Annotated[
        bool, typer.Option("--same-model", help="The embeddings were made by the model pack in use.")
    ] = False,
    reembed: Annotated[bool, typer.Option("--re-embed", help="Make the embeddings anew, from the images.")] = False,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Where paths of images begin; else beside OLD.db.")
    ] = None,
    largest: Largest = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, max=256, help="Images worked on at once; left out: up to 4.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and import nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Import the people of an older system's SQLite file.

    Can be stopped and run again: who was imported is left as it is. The exit status is 1 where a row was refused.
    """
    from faceward.importers import RegionAssignment, SqliteImport, SqliteSource, parse_mappings

    if same_model and reembed:
        raise typer.BadParameter("--same-model keeps the embeddings, --re-embed makes them anew: one of the two.")
    given = invocation(ctx)
    workers = workers or min(4, os.cpu_count() or 1)
    settings = given.settings(model={"threads": workers})
    wanted = SqliteImport(
        RegionAssignment.build(region, regions, default_region),
        client_id=client,
        images=images,
        same_model=same_model,
        reembed=reembed,
        several_faces="largest" if largest else "error",
        store_images=settings.images.store == "original",
        workers=workers,
    )
    with SqliteSource(file, parse_mappings(mapping or [])) as source, output.counting_bar() as bar:
        task = bar.add_task("Reading" if dry_run else "Importing", total=source.count())

        def advance(read: int) -> None:
            bar.update(task, completed=read)

        if dry_run:
            account = wanted.plan(source, manifest_in_use(settings).embedding.dimension, advance)
        else:
            with given.open_service(model={"threads": workers}) as service:
                try:
                    account = wanted.run(source, service, advance)
                except KeyboardInterrupt:
                    output.tell("What is imported is kept; the same command goes on from there.")
                    raise
    if as_json:
        output.print_json(account)
    else:
        _print(account)
    if account.persons.left_out or account.faces.left_out:
        raise typer.Exit(1)


def _print(account: ImportAccount) -> None:
    output.print_fields(dict(account.layout))
    done = "would be imported" if account.dry_run else "imported"
    table = output.new_table(
        "rows", "read", done, "there before", "refused", right=("read", done, "there before", "refused")
    )
    for name, each in (("persons", account.persons), ("faces", account.faces)):
        table.add_row(name, str(each.read), str(each.imported), str(each.present), _refused(each))
    output.print_table(table)
    output.print_fields(
        {
            "dimensions": _counts(account.dimensions),
            "encodings": _counts(account.encodings),
            "regions": _counts(account.regions),
            "faces with an image": account.images,
            "one name, several persons": _counts(account.same_name),
            "without a region": ", ".join(account.unmapped[:_SHOWN]) + (" …" if len(account.unmapped) > _SHOWN else ""),
            "compared with their image": f"{account.compared}, {account.agreed} agree" if account.compared else "",
        }
    )
    if account.problems:
        problems = output.new_table("table", "row", "why not", right=("row",))
        for problem in account.problems[:_SHOWN]:
            problems.add_row(problem.table, str(problem.row), f"{problem.code}: {problem.reason}")
        output.print_table(problems)
        if len(account.problems) > _SHOWN:
            output.tell(f"The first {_SHOWN} of the refused rows; --json has up to 1000.")


def _refused(account: Account) -> str:
    return f"{account.left_out} ({_counts(account.refused)})" if account.left_out else "0"


def _counts(counts: object) -> str:
    assert isinstance(counts, dict)
    return ", ".join(f"{name}: {count}" for name, count in sorted(counts.items()))
