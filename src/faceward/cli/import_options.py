"""What all imports take, and how one is run and told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from faceward.cli import output
from faceward.cli.advice import advised_words
from faceward.cli.invocation import invocation, manifest_in_use
from faceward.errors import IndexMissingError, ModelMismatchError, StoreError

if TYPE_CHECKING:
    from faceward.bulk_import import ImportReport
    from faceward.factory import Parts
    from faceward.importers import Account, ImportAccount, Source

_SHOWN = 40

RegionOfAll: TypeAlias = Annotated[str | None, typer.Option("--region", help="The region of everybody.")]
RegionsFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--regions", metavar="FILE.csv", help="Columns: region, and id or name of the person."),
]
DefaultRegion: TypeAlias = Annotated[
    str | None, typer.Option("--default-region", help="Of those whom --regions leaves out; else they are refused.")
]
SameModel: TypeAlias = Annotated[
    bool, typer.Option("--same-model", help="The embeddings were made by the model pack in use.")
]
ModelId: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model-id", metavar="ID", help="With --same-model: which model that is; needed once it was changed here."
    ),
]
ReEmbed: TypeAlias = Annotated[bool, typer.Option("--re-embed", help="Make the embeddings anew, from the images.")]
ImagesFolder: TypeAlias = Annotated[
    Path | None, typer.Option("--images", metavar="DIR", help="Where paths of images begin; else beside the file.")
]
Workers: TypeAlias = Annotated[
    int | None, typer.Option("--workers", min=1, max=256, help="Images worked on at once; left out: up to 4.")
]
SourceName: TypeAlias = Annotated[
    str | None,
    typer.Option("--source", metavar="NAME", help="Begins its external ids: for a second source with the same ids."),
]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and import nothing.")]
OfModel: TypeAlias = Annotated[
    str | None,
    typer.Option("--model", help="Of embeddings by several models, those that are meant; the others are refused."),
]


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """As the options of these names."""

    region: str | None
    regions: Path | None
    default_region: str | None
    client: str | None
    same_model: bool
    reembed: bool
    images: Path | None
    largest: bool
    workers: int | None
    dry_run: bool
    as_json: bool
    source: str | None = None
    model_id: str | None = None

    def __post_init__(self) -> None:
        if self.model_id is not None and not self.same_model:
            raise typer.BadParameter("--model-id says of --same-model which model that is: say both.")
        if self.same_model and self.reembed:
            raise typer.BadParameter("--same-model keeps the embeddings, --re-embed makes them anew: one of the two.")


def photo_workers(given: int | None) -> int:
    return given or min(4, os.cpu_count() or 1)


def run(ctx: typer.Context, options: ImportOptions, opened: Callable[[], AbstractContextManager[Source]]) -> None:
    """Import what `opened` opens, tell what became of it, and exit with status 1 where a row was refused."""
    from faceward.errors import ImportSourceError
    from faceward.importers import RegionAssignment, SourceImport, plan_import, require_model, run_import

    given, workers = invocation(ctx), photo_workers(options.workers)
    settings = given.settings(model={"threads": workers})
    with opened() as source, output.counting_bar() as bar:
        if options.same_model and not source.has_embeddings:
            raise ImportSourceError(f"{source.faces_table} holds no embeddings: leave out --same-model.")
        wanted = SourceImport(
            RegionAssignment.build(options.region, options.regions, options.default_region, told=source.has_regions),
            client_id=options.client,
            images=options.images,
            same_model=options.same_model,
            reembed=options.reembed or not source.has_embeddings,
            several_faces="largest" if options.largest else "error",
            store_images=settings.images.store == "original",
            workers=workers,
            source_name=options.source,
        )
        task = bar.add_task("Reading" if options.dry_run else "Importing", total=source.count())

        def advance(read: int) -> None:
            bar.update(task, completed=read)

        if options.dry_run:
            manifest = manifest_in_use(settings)
            if options.model_id is not None:
                require_model(options.model_id, manifest.model_id)
            if not wanted.reembed:
                output.tell(
                    f"Checked for {manifest.model_id}, the model of the settings: {manifest.embedding.dimension} numbers an "
                    "embedding. The gallery was not asked; if it was changed to another, name its pack in config.json first."
                )
            account = plan_import(wanted, source, manifest.embedding.dimension, advance)
        else:
            people = 0

            def written(report: ImportReport) -> None:
                nonlocal people
                people = report.persons

            with (
                given.open_enrolling(options.client, model={"threads": workers}) as parts,
                ended_early(lambda: f"At least {people:,} people were imported by this run." if people else ""),
            ):
                if not wanted.reembed:
                    wanted = replace(wanted, model_id=_model_of(options, parts))
                account = run_import(wanted, source, parts.service, advance, written=written)
    problems = (replace(each, reason=advised_words(each.code, each.reason)) for each in account.problems)
    account = replace(account, problems=tuple(problems))
    for warning in account.warnings:
        output.tell(warning)
    if options.as_json:
        output.print_json(account)
    else:
        print_account(account)
    if account.persons.left_out or account.faces.left_out:
        raise typer.Exit(1)


def _model_of(options: ImportOptions, parts: Parts) -> str | None:
    """The model whose embeddings --same-model means: another one than today's where the gallery's was changed since the
    command was written down, which nothing but its name tells. Raises ModelMismatchError.
    """
    if not options.same_model or options.model_id is not None:
        return options.model_id
    model_id = parts.service.model_id
    if parts.model_was_changed():
        raise ModelMismatchError(
            f"The model of this gallery was changed once; it is {model_id} now. That all embeddings of the source were made by "
            f"this one must be said by its name: --same-model --model-id {model_id}. Those of an earlier one would fit nobody: "
            "have them made anew from the photos, with --re-embed."
        )
    return model_id


@contextmanager
def ended_early(done: Callable[[], str]) -> Iterator[None]:
    """Tells of an import that does not come to its end what it stored, and that the same command goes on, unless the model
    was changed meanwhile.

    done: says what is stored; empty where nothing is. An error of the database is of one transaction, of which nothing was
    stored: it is told of the import.
    """
    kept = "What is imported is kept; the same command goes on from there."
    try:
        yield
    except IndexMissingError as exc:  # of an import that is at its end: its report follows
        output.tell(str(exc))
    except StoreError as exc:
        stored = done()
        reason = str(exc).replace("Nothing was stored", "Nothing more was stored") if stored else str(exc)
        exc.args = (" ".join(filter(None, (reason, stored, kept))),)
        raise
    except ModelMismatchError as exc:
        if stored := done():
            rest = "What is imported is kept. The rest has to be made anew from the photos, by the gallery's model: --re-embed."
            exc.args = (f"{exc} {stored} {rest}",)
        raise
    except BaseException as exc:
        if (stored := done()) or isinstance(exc, KeyboardInterrupt):
            output.tell(" ".join(filter(None, (stored, kept))))
        raise


def print_account(account: ImportAccount) -> None:
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
            "faces that hold or name an image": account.images,
            "images left out": _counts(account.images_left_out),
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


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(counts.items()))
