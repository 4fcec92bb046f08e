"""`faceward people`: who is enrolled where."""

from __future__ import annotations

import datetime as dt
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faceward.cli import output
from faceward.cli.files import new_file
from faceward.cli.invocation import invocation
from faceward.cli.options import (
    AllowDuplicate,
    AsJson,
    Client,
    Expires,
    Images,
    Largest,
    PersonId,
    Replace,
    Yes,
    moment,
)
from faceward.cli.retention import confirm_past

if TYPE_CHECKING:
    from faceward.factory import Records
    from faceward.receipts import Receipt
    from faceward.types import Person


def people_app() -> typer.Typer:
    app = typer.Typer(
        help="List, show, move, merge, suspend, export, delete and erase enrolled people.", no_args_is_help=True
    )
    app.command("list")(list_people)
    app.command("show")(show)
    app.command("add-photo")(add_photo)
    app.command("delete-photo")(delete_photo)
    app.command("move")(move)
    app.command("merge")(merge)
    app.command("suspend")(suspend)
    app.command("resume")(resume)
    app.command("expire")(expire)
    app.command("delete")(delete)
    app.command("export")(export)
    app.command("erase")(erase)
    return app


def list_people(
    ctx: typer.Context,
    region: Annotated[str | None, typer.Option("--region", help="Only of this region.")] = None,
    prefix: Annotated[str | None, typer.Option("--prefix", help="Only names that begin with this.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="People on a page.")] = 50,
    after: Annotated[int, typer.Option("--after", min=0, help="Begin after this person's number: the next page.")] = 0,
    client: Client = None,
    as_json: AsJson = False,
) -> None:
    """List the people of a client, a page at a time."""
    with invocation(ctx).open_records() as records:
        page = records.people.list_persons(
            region=region, name_prefix=prefix, client_id=client, after=after, limit=limit
        )
    if as_json:
        output.print_json({"people": page.persons, "next_after": page.next_after})
        return
    if not page.persons:
        output.tell("Nobody is enrolled here.")
        return
    table = output.new_table(
        "person", "name", "region", "photos", "external id", "enrolled", "state", right=("person", "photos")
    )
    for person in page.persons:
        table.add_row(
            str(person.id),
            person.name,
            person.region,
            str(person.face_count),
            person.external_id or "",
            output.when(person.created_at),
            _state(person),
        )
    output.print_table(table)
    if page.next_after is not None:
        output.tell(f"There are more: the next page with --after {page.next_after}")


def show(ctx: typer.Context, person_id: PersonId, client: Client = None, as_json: AsJson = False) -> None:
    """Show a person and the enrolled photos."""
    with invocation(ctx).open_records() as records:
        person = records.people.get_person(person_id, client_id=client)
        faces = records.people.list_faces(person_id, client_id=client)
    if as_json:
        output.print_json({**output.plain(person), "faces": faces})
        return
    _print_person(person)
    table = output.new_table("face", "photo", "quality", "enrolled", right=("face", "quality"))
    for face in faces:
        quality = "" if face.quality is None else f"{face.quality:.2f}"
        table.add_row(str(face.id), face.image_path or "", quality, output.when(face.created_at))
    output.print_table(table)


def add_photo(
    ctx: typer.Context,
    person_id: PersonId,
    images: Images,
    client: Client = None,
    largest: Largest = False,
    allow_duplicate: AllowDuplicate = False,
    as_json: AsJson = False,
) -> None:
    """Add photos to a person: all of them, or none."""
    with invocation(ctx).open_service() as service:
        stored = service.add_face(
            person_id,
            list(images),
            client_id=client,
            several_faces="largest" if largest else "error",
            allow_duplicate=allow_duplicate,
        )
    if as_json:
        output.print_json(stored)
    else:
        output.say(f"{stored.person.name} (person {person_id}) has {stored.person.face_count} photos now.")
        output.tell_duplicates(stored)


def delete_photo(
    ctx: typer.Context,
    person_id: PersonId,
    face_id: Annotated[int, typer.Argument(metavar="FACE", help="The photo's number, as `people show` shows it.")],
    client: Client = None,
    as_json: AsJson = False,
) -> None:
    """Delete one photo of a person."""
    with invocation(ctx).open_records() as records:
        records.people.delete_face(person_id, face_id, client_id=client)
        person = records.people.get_person(person_id, client_id=client)
    if as_json:
        output.print_json(person)
    else:
        output.say(f"{person.name} (person {person_id}) has {person.face_count} photos now.")


def move(
    ctx: typer.Context,
    person_id: PersonId,
    region: Annotated[str, typer.Argument(metavar="REGION", help="Where to; made where it is absent.")],
    client: Client = None,
    as_json: AsJson = False,
) -> None:
    """Move a person with all photos to another region of the same client."""
    with invocation(ctx).open_records() as records:
        person = records.people.move_region(person_id, region, client_id=client)
    if as_json:
        output.print_json(person)
    else:
        output.say(f"{person.name} (person {person.id}) is in region {person.region} now.")


def merge(
    ctx: typer.Context,
    person_id: PersonId,
    into_id: Annotated[int, typer.Argument(metavar="INTO_ID", help="The number of the person that stays.")],
    client: Client = None,
    across_regions: Annotated[
        bool,
        typer.Option("--across-regions", help="They may be of different regions; the photos move to that of INTO_ID."),
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Make two records of one person one: INTO_ID gets all photos of ID, which is deleted."""
    with invocation(ctx).open_records() as records:
        if not yes:
            gone, into = (records.people.get_person(each, client_id=client) for each in (person_id, into_id))
            question = (
                f"Give the {gone.face_count} photos of {gone.name} (person {person_id}, region {gone.region}) to {into.name} "
                f"(person {into_id}, region {into.region}) and delete person {person_id}?"
            )
            typer.confirm(question, abort=True, err=True)
        merged = records.people.merge_persons(person_id, into_id, across_regions=across_regions, client_id=client)
    if as_json:
        output.print_json(merged)
        return
    person = merged.person
    output.say(
        f"Merged person {person_id} into {person.name} (person {person.id}, region {person.region}), who has "
        f"{person.face_count} photos now."
    )
    if merged.faces_dropped:
        output.say(f"{merged.faces_dropped} photos were of both, and are kept once.")
    if merged.external_id_dropped:
        output.tell(
            f"Person {person_id} had an external id of its own, which is gone: an import that names it makes that person anew."
        )


def suspend(ctx: typer.Context, person_id: PersonId, client: Client = None, as_json: AsJson = False) -> None:
    """Stop matching a person, and keep the record with all photos."""
    with invocation(ctx).open_records() as records:
        person = records.people.update_person(person_id, state="suspended", client_id=client)
    if as_json:
        output.print_json(person)
    else:
        output.say(f"{person.name} (person {person.id}) is suspended: kept, and matched no more.")


def resume(ctx: typer.Context, person_id: PersonId, client: Client = None, as_json: AsJson = False) -> None:
    """Match a suspended person again."""
    with invocation(ctx).open_records() as records:
        person = records.people.update_person(person_id, state="active", client_id=client)
    if as_json:
        output.print_json(person)
    else:
        output.say(f"{person.name} (person {person.id}) is active again.")


def expire(
    ctx: typer.Context,
    person_id: PersonId,
    expires: Expires = None,
    never: Annotated[bool, typer.Option("--never", help="Keep the person for good.")] = False,
    client: Client = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Say when a person expires: not matched from then on, and erased by the next `faceward purge`. In the past it asks."""
    if (expires is None) != never:
        raise typer.BadParameter("give --expires TIME, or --never", param_hint="--expires")
    expires_at = None if expires is None else moment(expires, "--expires")
    with invocation(ctx).open_records() as records:

        def whom() -> str:
            return f"{records.people.get_person(person_id, client_id=client).name} (person {person_id})"

        confirm_past(expires_at, yes, whom)
        person = records.people.update_person(person_id, expires_at=expires_at, client_id=client)
    if as_json:
        output.print_json(person)
    elif person.expires_at is None:
        output.say(f"{person.name} (person {person.id}) is kept for good.")
    else:
        output.say(f"{person.name} (person {person.id}) expires {output.when(person.expires_at)}.")


def delete(
    ctx: typer.Context,
    person_id: PersonId,
    client: Client = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete a person with all photos, for good."""
    with invocation(ctx).open_records() as records:
        if not yes:
            person = records.people.get_person(person_id, client_id=client)
            question = (
                f"Delete {person.name} (person {person_id}, region {person.region}) and {person.face_count} photos?"
            )
            typer.confirm(question, abort=True, err=True)
        faces = records.people.delete_person(person_id, client_id=client)
    if as_json:
        output.print_json({"person_id": person_id, "faces_deleted": faces})
    else:
        output.say(f"Deleted person {person_id} and {faces} photos.")


def export(
    ctx: typer.Context,
    person_id: PersonId,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.zip", help="Where to write it, for your eyes only.")],
    client: Client = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Write all that is held of a person into a zip: JSON and photos. The audit log tells of it.

    Exit status 1 where a photo could not be opened; the rest is there.
    """
    with invocation(ctx).open_records() as records, new_file(out, replace=replace) as file:
        unopened = records.privacy.export_person(person_id, file, client_id=client)
        size = file.tell()
    if as_json:
        output.print_json({"person_id": person_id, "file": out, "bytes": size, "unopened": unopened})
    else:
        held = "All that is held" if not unopened else "What could be read"
        output.say(f"{held} of person {person_id} is in {out} ({size:,} bytes).")
    if unopened:
        output.fail(
            f"The photos of these faces did not open and are not in it: {', '.join(map(str, unopened))}. "
            "`faceward photos status` tells which key is missing."
        )
        raise typer.Exit(1)


def erase(
    ctx: typer.Context,
    person_id: PersonId,
    client: Client = None,
    yes: Yes = False,
    receipt: Annotated[
        Path | None, typer.Option("--receipt", metavar="FILE", help="Where to write the signed receipt.")
    ] = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Erase a person, also one deleted before, with every trace, for good; a signed receipt says what was removed.

    Exit status 1 where something was left, that could not be checked, or the receipt could not be written: then it is printed.
    """
    signed: Receipt | None = None
    unwritten: OSError | None = None
    try:
        with ExitStack() as stack:
            # The file first: a receipt that can't be written must not cost the person's data its proof.
            file = None if receipt is None else stack.enter_context(new_file(receipt, replace=replace))
            records = stack.enter_context(invocation(ctx).open_records())
            if not yes:
                typer.confirm(f"Erase {_whose(records, person_id, client)}, for good?", abort=True, err=True)
            signed = records.privacy.erase_person(person_id, client_id=client)
            if file is not None:
                file.write(json.dumps(signed.as_json(), indent=2).encode() + b"\n")
    except OSError as exc:
        if signed is None:
            raise
        unwritten = exc
    removed, complete = signed.content["removed"], signed.content["complete"]
    if as_json:
        output.print_json(signed.as_json())
    else:
        counts = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in removed.items() if count)
        output.say(f"Erased person {person_id}: {counts}. Receipt {signed.content['id']}.")
    jobs = ", ".join(map(str, signed.content["jobs_under_way"]))
    if jobs:
        output.tell(
            f"Imports that wait or run were not looked into, and may bring the person again: jobs {jobs}. Cancel those that "
            "would (POST /v1/jobs/ID/cancel)."
        )
    if not signed.content["checked"]:
        output.fail(
            f"Person {person_id} is erased; whether anything was left was not found out: the check did not finish."
        )
    elif not complete:
        left = ", ".join(f"{count} in {where}" for where, count in signed.content["left"].items())
        output.fail(f"Rows that name the person are left: {left}. Erase the person again.")
    if unwritten is not None:
        output.fail(
            f"{receipt}: {unwritten.strerror}. Person {person_id} is erased all the same, and no other receipt is made: save "
            f"this one, {'on stdout' if as_json else 'below'}."
        )
        if not as_json:
            output.tell(json.dumps(signed.as_json(), indent=2))
    if unwritten is not None or not complete:
        raise typer.Exit(1)


def _whose(records: Records, person_id: int, client: str | None) -> str:
    from faceward.errors import UnknownPersonError

    try:
        person = records.people.get_person(person_id, client_id=client)
    except UnknownPersonError:
        return f"what is left of person {person_id}, who is not enrolled any more"
    return f"{person.name} (person {person_id}, region {person.region}, {person.face_count} photos) and every trace"


def _state(person: Person) -> str:
    if person.state == "suspended" or person.expires_at is None:
        return person.state
    over = person.expires_at <= dt.datetime.now(dt.UTC)
    return f"{'expired' if over else 'expires'} {output.when(person.expires_at)}"


def _print_person(person: Person) -> None:
    output.print_fields(
        {
            "person": person.id,
            "name": person.name,
            "client": person.client_id,
            "region": person.region,
            "external id": person.external_id,
            "description": person.description,
            "state": _state(person),
            "enrolled": output.when(person.created_at),
            "changed": output.when(person.updated_at),
        }
    )
