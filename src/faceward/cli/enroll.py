"""`faceward enroll`."""

from __future__ import annotations

from typing import Annotated

import typer

from faceward.cli import output
from faceward.cli.invocation import invocation
from faceward.cli.options import AllowDuplicate, AsJson, EnrollingClient, Expires, Images, Largest, Region, moment


def enroll(
    ctx: typer.Context,
    images: Images,
    name: Annotated[str, typer.Option("--name", help="The person's name.")],
    region: Region,
    client: EnrollingClient = None,
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
    expires_at = None if expires is None else moment(expires, "--expires")
    with invocation(ctx).open_enrolling(client) as parts:
        stored = parts.service.enroll(
            list(images),
            name=name,
            region=region,
            client_id=client,
            description=description,
            external_id=external_id,
            expires_at=expires_at,
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
