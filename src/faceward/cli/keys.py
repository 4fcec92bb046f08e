"""`faceward keys`: the keys by which a client's systems call the HTTP service."""

from __future__ import annotations

import datetime as dt
import shlex
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from faceward.cli import output
from faceward.cli.invocation import invocation
from faceward.cli.options import AsJson, Client, Expires, Yes, moment

if TYPE_CHECKING:
    from faceward.factory import Records
    from faceward.types import ApiKey, NewKey

KeyId = Annotated[int, typer.Argument(metavar="KEY", help="The key's number, as `keys list` shows it.")]


class RoleName(StrEnum):
    """Each may do what those after it may."""

    admin = "admin"
    manager = "manager"
    enroller = "enroller"
    recognizer = "recognizer"


def keys_app() -> typer.Typer:
    app = typer.Typer(help="Create, list, rotate and revoke the keys of a client.", no_args_is_help=True)
    app.command("create")(create)
    app.command("list")(list_keys)
    app.command("rotate")(rotate)
    app.command("revoke")(revoke)
    return app


def create_command(client_id: str) -> str:
    """What makes the key by which a client's own systems do all that is theirs."""
    return f"faceward keys create --client {shlex.quote(client_id)} --role {RoleName.manager}"


def create(
    ctx: typer.Context,
    role: Annotated[
        RoleName,
        typer.Option(
            "--role",
            help="recognizer: recognise and look. enroller: also enroll and import. manager: also regions and keys. "
            "admin: also clients, all of them.",
        ),
    ],
    client: Client = None,
    regions: Annotated[
        list[str] | None,
        typer.Option("--region", help="A region that it may work in; may be given several times. Left out: all."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What it is for, as Gate 3.")] = None,
    expires: Expires = None,
    rate_limit: Annotated[
        float | None, typer.Option("--rate-limit", help="Requests a second; left out: the service's setting.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key, and show its text: this once."""
    from faceward.checks import DEFAULT_CLIENT

    expires_at = None if expires is None else moment(expires, "--expires")
    with invocation(ctx).open_records() as records:
        made = records.administration.create_key(
            client or DEFAULT_CLIENT,
            role.value,
            regions=regions or None,
            name=name,
            expires_at=expires_at,
            rate_limit=rate_limit,
        )
        absent = _absent_regions(records, made.key)
    _show_new(made, as_json)
    if absent:
        from faceward.commands import command

        listing = command("regions", client_id=made.key.client_id)
        output.tell(
            f"Client {made.key.client_id!r} has no region {', '.join(map(repr, absent))} yet: until it is made the key opens "
            f"nothing there. `{listing}` lists those that are."
        )


def list_keys(
    ctx: typer.Context,
    client: Client = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Keys on a page.")] = 50,
    after: Annotated[int, typer.Option("--after", min=0, help="Begin after this key's number: the next page.")] = 0,
    as_json: AsJson = False,
) -> None:
    """List the keys of a client, a page at a time, revoked ones too."""
    from faceward.checks import DEFAULT_CLIENT

    with invocation(ctx).open_records() as records:
        page = records.administration.list_keys(client or DEFAULT_CLIENT, after=after, limit=limit)
    if as_json:
        output.print_json({"keys": page.keys, "next_after": page.next_after})
        return
    if not page.keys:
        output.tell(f"This client has no key yet; `{create_command(client or DEFAULT_CLIENT)}` makes one.")
        return
    table = output.new_table("key", "begins with", "role", "regions", "name", "state", "last used", right=("key",))
    for key in page.keys:
        table.add_row(
            str(key.id),
            f"fw_{key.prefix}",
            key.role,
            "all" if key.regions is None else ", ".join(key.regions),
            key.name or "",
            _state(key),
            "never" if key.last_used_at is None else output.when(key.last_used_at),
        )
    output.print_table(table)
    if page.next_after is not None:
        output.tell(f"There are more: the next page with --after {page.next_after}")


def rotate(ctx: typer.Context, key_id: KeyId, client: Client = None, as_json: AsJson = False) -> None:
    """Give a key a new text, and show it: this once. The old text is refused from now on."""
    from faceward.checks import DEFAULT_CLIENT

    with invocation(ctx).open_records() as records:
        made = records.administration.rotate_key(client or DEFAULT_CLIENT, key_id)
    _show_new(made, as_json)
    if not made.key.valid_at(dt.datetime.now(dt.UTC)):
        output.tell(
            f"The new text of key {key_id} is refused as the old one was: it {_state(made.key)}. "
            "`faceward keys create` makes another."
        )


def revoke(ctx: typer.Context, key_id: KeyId, client: Client = None, yes: Yes = False, as_json: AsJson = False) -> None:
    """Refuse a key from now on, for good. Of the last admin key it asks."""
    from faceward.checks import DEFAULT_CLIENT

    client_id = client or DEFAULT_CLIENT
    with invocation(ctx).open_records() as records:
        keys = records.administration
        if not yes and keys.is_last_admin_key(client_id, key_id):
            question = (
                f"Key {key_id} (fw_{keys.get_key(client_id, key_id).prefix}) is the last admin key: without one nobody makes "
                f"clients over HTTP until `faceward keys create --role {RoleName.admin}` makes another. Revoke it?"
            )
            typer.confirm(question, abort=True, err=True)
        key = keys.revoke_key(client_id, key_id)
    if as_json:
        output.print_json(key)
    else:
        output.say(f"Key {key.id} (fw_{key.prefix}) is revoked.")


def _absent_regions(records: Records, key: ApiKey) -> list[str]:
    """Of the regions that a key may work in, those that its client has not: they may be made later, or are misspelt."""
    if key.regions is None:
        return []
    page = records.regions.list_regions(regions=key.regions, client_id=key.client_id, limit=1000)
    there = {region.name for region in page.regions}
    return [name for name in key.regions if name not in there]


def _show_new(made: NewKey, as_json: bool) -> None:
    if as_json:
        output.print_json({**output.plain(made.key), "secret": made.secret})
        return
    output.tell(f"Key {made.key.id} of client {made.key.client_id}, role {made.key.role}. It is shown this once:")
    output.say(made.secret)


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {output.when(key.revoked_at)}"
    if key.expires_at is None:
        return "valid"
    ended = not key.valid_at(dt.datetime.now(dt.UTC))
    return f"{'expired' if ended else 'valid until'} {output.when(key.expires_at)}"
