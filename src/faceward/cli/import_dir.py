"""`faceward import-dir`, which was `enroll-dir` before and answers to that name too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from faceward.cli import output
from faceward.cli.import_options import DryRun, SourceName, Workers, ended_early, photo_workers, print_account
from faceward.cli.invocation import invocation
from faceward.cli.options import AsJson, EnrollingClient, Largest


def import_dir(
    ctx: typer.Context,
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Holds REGION/PERSON/photo.jpg (or png, webp, bmp).", show_default=False),
    ],
    client: EnrollingClient = None,
    largest: Largest = False,
    workers: Workers = None,
    source: SourceName = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Enroll a folder of people, DIR/REGION/PERSON/photo.jpg.

    The folder's name is the person's name (_ stands for a space) and external id. Photos that are enrolled already
    are skipped, so a run that was stopped goes on where it was. The exit status is 1 where a photo was refused.
    """
    from faceward.cli.photo_folder import FolderTally, PhotoFolder
    from faceward.importers import check_source
    from faceward.photo_import import PhotoResult

    folder = PhotoFolder.find(directory, None if source is None else check_source(source))
    workers = photo_workers(workers)
    tally = FolderTally(folder)
    if dry_run:
        tally.plan()
    else:
        with (
            invocation(ctx).open_enrolling(client, model={"threads": workers}) as parts,
            ended_early(tally.so_far),
            output.counting_bar() as bar,
        ):
            task = bar.add_task("Enrolling", total=folder.photos)

            def done(result: PhotoResult) -> None:
                tally.add(result)
                bar.advance(task)

            parts.service.import_photos(
                folder.records(),
                client_id=client,
                workers=workers,
                several_faces="largest" if largest else "error",
                on_result=done,
            )
    account = tally.account(dry_run=dry_run)
    if as_json:
        # enrolled, skipped and refused: what `enroll-dir` told before, and its callers read.
        refused = sorted(tally.refused, key=lambda each: each.photo)
        before = {"enrolled": tally.enrolled, "skipped": tally.skipped, "refused": refused}
        output.print_json({**before, **output.plain(account)})
    else:
        print_account(account)
        enrolled = "would be enrolled" if dry_run else "enrolled"
        output.say(
            f"{tally.enrolled} photos {enrolled}, {tally.skipped} were enrolled already, {len(tally.refused)} refused."
        )
    if tally.refused:
        raise typer.Exit(1)
