"""`faceward photos`: the photos that are stored, and the keys they are encrypted with."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from faceward.cli import output
from faceward.cli.invocation import invocation
from faceward.cli.options import AsJson, OneClient, Yes
from faceward.cli.purge import clients_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from faceward.factory import Records
    from faceward.photo_upkeep import PhotoTally

OneRegion = Annotated[str | None, typer.Option("--region", help="Only of this region; left out: of all.")]


def photos_app() -> typer.Typer:
    app = typer.Typer(help="Count, encrypt, cut and drop the photos that are stored.", no_args_is_help=True)
    app.command("status")(status)
    app.command("rotate")(rotate)
    app.command("crop")(crop)
    app.command("drop")(drop)
    return app


def status(ctx: typer.Context, client: OneClient = None, as_json: AsJson = False) -> None:
    """Say how many photos are stored, of which kind, and under which keys, and under which uploads of imports wait.

    While the model is changed a photo is stored twice, and counts once under each key that it is under. Exit status 1 where a
    key is missing, or does not open one photo that is tried.
    """
    with invocation(ctx).open_records(there=True) as records:
        photos = records.photos.photos
        vault = photos.vault
        found = {each: photos.counts(each) for each in clients_of(records, client)}
        uploads = {each: photos.uploads(each) for each in found}
        in_use = {key_id for each in found for key_id in photos.key_ids(each)}
        wrong = sorted({key_id for each in found for key_id in photos.wrong_keys(each)})
    missing = sorted(key_id for key_id in in_use if key_id is not None and key_id not in vault.key_ids)
    if as_json:
        clients = [
            {"client_id": each, "photos": [output.plain(count) for count in counts], "uploads": uploads[each]}
            for each, counts in found.items()
            if counts or uploads[each]
        ]
        output.print_json({"key": vault.current, "missing_keys": missing, "wrong_keys": wrong, "clients": clients})
    else:
        numbers = ("photos", "faces alone", "MB")
        table = output.new_table("client", "key", *numbers, right=numbers)
        for each, counts in found.items():
            for count in counts:
                key = "not encrypted" if count.key_id is None else count.key_id
                table.add_row(each, key, str(count.photos), str(count.crops), f"{count.bytes / 1e6:.1f}")
        output.print_table(table)
        current = "are not encrypted" if vault.current is None else f"are encrypted with the key {vault.current}"
        output.tell(f"New photos {current}.")
        waiting = _under(_sum(uploads.values()))
        if waiting:
            output.tell(f"Uploads of imports that wait or run: {waiting}.")
    if missing:
        output.fail(
            f"These keys are missing in images.keys: {', '.join(missing)}. Photos and uploads under them can't be read."
        )
    if wrong:
        output.fail(_wrong(wrong))
    if missing or wrong:
        raise typer.Exit(1)


def rotate(
    ctx: typer.Context,
    client: OneClient = None,
    decrypt: Annotated[
        bool, typer.Option("--decrypt", help="There is no images.key any more: store all photos unencrypted.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Encrypt all stored photos with the current key, images.key; afterwards no other key is needed for them.

    Uploads of imports that wait keep theirs, and are counted. Can be stopped and run again, while the service works.
    Exit status 1 where photos could not be opened.
    """
    with invocation(ctx).open_records(there=True) as records:
        current = records.photos.photos.vault.current
        if (current is None) != decrypt:
            raise typer.BadParameter(
                "images.key is not set: set it, or say --decrypt"
                if current is None
                else "images.key is set: unset it first",
                param_hint="--decrypt",
            )
        doing = "Encrypting" if current else "Decrypting"
        tally = _work(clients_of(records, client), doing, records.photos.rotate)
        photos = records.photos.photos
        uploads = _sum(photos.uploads(each) for each in clients_of(records, client))
        wrong = {
            key_id for each in clients_of(records, client) for key_id in photos.wrong_keys(each) if key_id == current
        }
    del uploads[current or ""]
    if as_json:
        output.print_json(
            {"key": current, "changed": tally.done, "unopened": dict(tally.unopened), "uploads": dict(uploads)}
        )
    else:
        under = "without encryption" if current is None else f"under the key {current}"
        output.say(f"{tally.done} photos were brought {under}.")
    if uploads:
        output.tell(
            f"Uploads of imports that wait or run are not brought along: {_under(uploads)}. Keep these keys until "
            "`faceward photos status` names them no more."
        )
    if wrong:
        output.fail(_wrong(wrong))
    if tally.unopened:
        output.fail(_unopened(tally))
    if wrong or tally.unopened:
        raise typer.Exit(1)


def crop(
    ctx: typer.Context, client: OneClient = None, region: OneRegion = None, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Keep of every whole photo the face with its surroundings, and nothing else. Can be stopped and run again.

    Exit status 1 where photos stay whole: such as can't be opened or read, or whose face's place is not known.
    """
    with invocation(ctx).open_records(there=True) as records:
        places = _places(records, client, region)
        if not yes:
            question = f"Cut every stored photo of {_named(client, region)} to its face, for good?"
            typer.confirm(question, abort=True, err=True)
        crop_one = records.photos.crop
        tally = _work(places, "Cutting", lambda each, progress: crop_one(each, places[each], progress))
    if as_json:
        output.print_json({"changed": tally.done, "unopened": dict(tally.unopened), "unchanged": tally.unchanged})
    else:
        output.say(f"{tally.done} photos were cut to the face.")
    if tally.unopened:
        output.fail(_unopened(tally))
    if tally.unchanged:
        output.fail(
            f"{tally.unchanged} photos stay whole: they can't be read, or the face's place in them is not known."
        )
    if tally.unopened or tally.unchanged:
        raise typer.Exit(1)


def drop(
    ctx: typer.Context, client: OneClient = None, region: OneRegion = None, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Forget stored photos; people, faces and embeddings stay. Without photos the model can't be changed."""
    with invocation(ctx).open_records(there=True) as records:
        places = _places(records, client, region)
        if not yes:
            typer.confirm(f"Drop the stored photos of {_named(client, region)}, for good?", abort=True, err=True)
        drop_one = records.photos.drop
        tally = _work(places, "Dropping", lambda each, progress: drop_one(each, places[each], progress))
    if as_json:
        output.print_json({"changed": tally.done})
    else:
        output.say(f"{tally.done} photos were dropped.")


def _places(records: Records, client: str | None, region: str | None) -> dict[str, str | None]:
    """The clients to work on, each with its name of the region. Raises NotFoundError where there is no such region."""
    from faceward.errors import NotFoundError, UnknownRegionError

    clients = clients_of(records, client)
    if region is None:
        return dict.fromkeys(clients)
    places: dict[str, str | None] = {}
    for each in clients:
        try:
            places[each] = records.regions.get_region(region, client_id=each).name
        except UnknownRegionError:
            if client is not None:
                raise
    if not places:
        raise NotFoundError(f"No client has a region {region!r}.")
    return places


def _named(client: str | None, region: str | None) -> str:
    clients = f"client {client}" if client else "all clients"
    return clients if region is None else f"region {region} of {clients}"


def _work(clients: Iterable[str], doing: str, work: Callable[[str, Callable[[int], None]], PhotoTally]) -> PhotoTally:
    from faceward.photo_upkeep import PhotoTally

    whole = PhotoTally()
    with output.counting_bar() as bar:
        task = bar.add_task(doing, total=None)
        for each in clients:
            one = work(each, lambda looked: bar.advance(task, looked))
            whole.done += one.done
            whole.unopened.update(one.unopened)
            whole.unchanged += one.unchanged
    return whole


def _sum(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    """Of all clients, by key."""
    return sum(map(Counter, counts), Counter())


def _under(by_key: Mapping[str, int]) -> str:
    return ", ".join(f"{count} under {key_id}" for key_id, count in sorted(by_key.items()))


def _unopened(tally: PhotoTally) -> str:
    return (
        f"Photos that did not open were left as they are: {_under(tally.unopened)}. Add the right keys to images.keys."
    )


def _wrong(key_ids: Iterable[str]) -> str:
    return (
        f"The keys in images.keys do not open the photos under these ids: {', '.join(sorted(key_ids))}. Give each the key that "
        "it had when they were stored."
    )
