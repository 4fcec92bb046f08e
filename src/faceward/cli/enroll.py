"""`faceward enroll` and `faceward enroll-dir`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from faceward.cli import output
from faceward.cli.invocation import invocation
from faceward.cli.options import AllowDuplicate, AsJson, Client, Expires, Images, Largest, Region, moment


def enroll(
    ctx: typer.Context,
    images: Images,
    name: Annotated[str, typer.Option("--name", help="The person's name.")],
    region: Region,
    client: Client = None,
    description: Annotated[str | None, typer.Option("--description", help="Anything worth knowing.")] = None,
    external_id: Annotated[
        str | None, typer.Option("--external-id", help="Your own number of the person, once in each region.")
    ] = None,
    expires: Expires = None,
    largest: Largest = False,
    allow_duplicate: AllowDuplicate = False,
    as_json: AsJson = False,
) -> None:
    """Enroll a person with one or more photos in a region: all of the photos, or none.

    With --expires the person is matched until then; left out, the retention of the region or client decides.
    """
    with invocation(ctx).open_service() as service:
        stored = service.enroll(
            list(images),
            name=name,
            region=region,
            client_id=client,
            description=description,
            external_id=external_id,
            expires_at=None if expires is None else moment(expires, "--expires"),
            several_faces="largest" if largest else "error",
            allow_duplicate=allow_duplicate,
        )
    if as_json:
        output.print_json(stored)
        return
    person, quality = stored.person, ", ".join(f"{photo.score:.2f}" for photo in stored.quality)
    output.say(f"Enrolled {person.name} as person {person.id} in region {person.region} of client {person.client_id}.")
    output.say(f"Photos: {len(stored.face_ids)}, of quality {quality} (0 to 1).")
    output.tell_duplicates(stored)


def enroll_dir(
    ctx: typer.Context,
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Holds REGION/PERSON/photo.jpg (or png, webp, bmp).", show_default=False),
    ],
    client: Client = None,
    largest: Largest = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, max=256, help="Photos worked on at once; left out: up to 4.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Enroll a folder of people, DIR/REGION/PERSON/photo.jpg.

    The folder's name is the person's name (_ stands for a space) and external id. Photos that are enrolled already
    are skipped, so a run that was stopped goes on where it was. The exit status is 1 where a photo was refused.
    """
    from faceward.cli.enrolment_run import EnrolmentTally, find_people, records
    from faceward.photo_import import PhotoResult

    people = find_people(directory)
    workers = workers or min(4, os.cpu_count() or 1)
    total = sum(len(person.photos) for person in people)
    tally = EnrolmentTally()
    with invocation(ctx).open_service(model={"threads": workers}) as service:
        try:
            with output.counting_bar() as bar:
                task = bar.add_task("Enrolling", total=total)

                def done(result: PhotoResult) -> None:
                    tally.add(result)
                    bar.advance(task)

                service.import_photos(
                    records(people),
                    client_id=client,
                    workers=workers,
                    several_faces="largest" if largest else "error",
                    on_result=done,
                )
        except BaseException:
            output.tell(
                f"{tally.enrolled} of {total} photos were enrolled, {tally.skipped} had been already. What is done is kept; "
                "the same command goes on from there."
            )
            raise
    refused = sorted(tally.refused, key=lambda each: each.photo)
    if as_json:
        output.print_json({"enrolled": tally.enrolled, "skipped": tally.skipped, "refused": refused})
    else:
        if refused:
            table = output.new_table("refused photo", "why")
            for each in refused:
                table.add_row(str(each.photo.relative_to(directory)), each.reason)
            output.print_table(table)
        output.say(f"{tally.enrolled} photos enrolled, {tally.skipped} were enrolled already, {len(refused)} refused.")
    if refused:
        raise typer.Exit(1)
