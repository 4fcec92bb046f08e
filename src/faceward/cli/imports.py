"""`faceward import-sqlite`, `import-csv`, `import-compreface` and `import-deepface`: the people of older systems."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from faceward.cli.import_options import (
    DefaultRegion,
    DryRun,
    ImagesFolder,
    ImportOptions,
    ModelId,
    OfModel,
    ReEmbed,
    RegionOfAll,
    RegionsFile,
    SameModel,
    SourceName,
    Workers,
    run,
)
from faceward.cli.invocation import invocation
from faceward.cli.options import AsJson, EnrollingClient, Largest

if TYPE_CHECKING:
    from faceward.importers import CsvSource, PostgresSource, SqliteSource

Url = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        help="postgresql://user@host:5432/database; the password may be in PGPASSWORD or ~/.pgpass.",
        show_default=False,
    ),
]


def import_sqlite(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="OLD.db", help="The SQLite file; it is only read.", show_default=False)
    ],
    region: RegionOfAll = None,
    regions: RegionsFile = None,
    default_region: DefaultRegion = None,
    client: EnrollingClient = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="ROLE=TABLE.COLUMN", help="As persons.name=users.full_name; may be repeated."),
    ] = None,
    same_model: SameModel = False,
    model_id: ModelId = None,
    reembed: ReEmbed = False,
    images: ImagesFolder = None,
    largest: Largest = False,
    workers: Workers = None,
    source: SourceName = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Import the people of an older system's SQLite file.

    Can be stopped and run again: who was imported is left as it is. The exit status is 1 where a row was refused.
    """
    options = ImportOptions(
        region,
        regions,
        default_region,
        client,
        same_model,
        reembed,
        images,
        largest,
        workers,
        dry_run,
        as_json,
        source,
        model_id,
    )

    def opened() -> SqliteSource:
        from faceward.importers import SqliteSource, parse_mappings

        most = invocation(ctx).settings().images.max_bytes
        return SqliteSource(file, parse_mappings(mapping or []), images_do=reembed, max_image=most)

    run(ctx, options, opened)


def import_csv(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE.csv", help="Its first line names the columns.", show_default=False)
    ],
    region: RegionOfAll = None,
    regions: RegionsFile = None,
    default_region: DefaultRegion = None,
    client: EnrollingClient = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="ROLE=COLUMN", help="As external_id=Number; may be repeated."),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option("--encoding", help="Of the text, as cp1252; left out: UTF-8, or as the file says.")
    ] = None,
    same_model: SameModel = False,
    model_id: ModelId = None,
    reembed: ReEmbed = False,
    images: ImagesFolder = None,
    largest: Largest = False,
    workers: Workers = None,
    source: SourceName = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Import a CSV file: a face a line, with external id, name, region, and an embedding or the path of a photo.

    Can be stopped and run again: who was imported is left as it is. The exit status is 1 where a line was refused.
    """
    options = ImportOptions(
        region,
        regions,
        default_region,
        client,
        same_model,
        reembed,
        images,
        largest,
        workers,
        dry_run,
        as_json,
        source,
        model_id,
    )

    def opened() -> CsvSource:
        from faceward.importers import CsvSource, parse_columns

        return CsvSource(file, parse_columns(mapping or []), encoding=encoding)

    run(ctx, options, opened)


def import_compreface(
    ctx: typer.Context,
    url: Url,
    region: RegionOfAll = None,
    regions: RegionsFile = None,
    default_region: DefaultRegion = None,
    client: EnrollingClient = None,
    service: Annotated[
        str | None,
        typer.Option("--service", help="Whose subjects are meant: a service's name, or its key's beginning."),
    ] = None,
    model: OfModel = None,
    same_model: SameModel = False,
    model_id: ModelId = None,
    reembed: ReEmbed = False,
    largest: Largest = False,
    workers: Workers = None,
    source: SourceName = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Import the subjects of a CompreFace, from its PostgreSQL database, which is only read.

    Can be stopped and run again: who was imported is left as it is. The exit status is 1 where a row was refused.
    """
    options = ImportOptions(
        region,
        regions,
        default_region,
        client,
        same_model,
        reembed,
        None,
        largest,
        workers,
        dry_run,
        as_json,
        source,
        model_id,
    )

    def opened() -> PostgresSource:
        from faceward.importers import PostgresSource, compreface

        most = invocation(ctx).settings().images.max_bytes
        return PostgresSource(url, compreface(service), model=model, any_model=reembed, max_image=most)

    run(ctx, options, opened)


def import_deepface(
    ctx: typer.Context,
    url: Url,
    region: RegionOfAll = None,
    regions: RegionsFile = None,
    default_region: DefaultRegion = None,
    client: EnrollingClient = None,
    table: Annotated[
        str | None, typer.Option("--table", help="Of several tables with faces the one that is meant.")
    ] = None,
    person: Annotated[
        Literal["name", "folder", "file"],
        typer.Option("--person", help="What of img_name tells the person: all of it, the folder, or the file's name."),
    ] = "name",
    model: OfModel = None,
    same_model: SameModel = False,
    model_id: ModelId = None,
    reembed: ReEmbed = False,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Where img_name begins, for --re-embed.")
    ] = None,
    largest: Largest = False,
    workers: Workers = None,
    source: SourceName = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Import the faces that DeepFace registered in PostgreSQL, with pgvector or without; they are only read.

    Can be stopped and run again: who was imported is left as it is. The exit status is 1 where a row was refused.
    """
    options = ImportOptions(
        region,
        regions,
        default_region,
        client,
        same_model,
        reembed,
        images,
        largest,
        workers,
        dry_run,
        as_json,
        source,
        model_id,
    )

    def opened() -> PostgresSource:
        from faceward.importers import PostgresSource, deepface

        return PostgresSource(url, deepface(table, person), model=model, any_model=reembed)

    run(ctx, options, opened)
