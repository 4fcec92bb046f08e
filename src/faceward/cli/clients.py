"""`faceward clients`: the clients (tenants) of this deployment."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from faceward.cli import output
from faceward.cli.invocation import invocation
from faceward.cli.keys import create_command
from faceward.cli.options import (
    AsJson,
    ClearRetention,
    ClearThreshold,
    Existing,
    NewRetention,
    NewThreshold,
    OwnThreshold,
    Yes,
    new_retention,
    new_threshold,
)
from faceward.cli.retention import confirm_existing, say_existing

ClientId = Annotated[str, typer.Argument(metavar="CLIENT", help="The client's id.")]


def clients_app() -> typer.Typer:
    app = typer.Typer(help="List and make clients, and set their thresholds and retention.", no_args_is_help=True)
    app.command("list")(list_clients)
    app.command("create")(create)
    app.command("set-threshold")(set_threshold)
    app.command("set-retention")(set_retention)
    return app


def list_clients(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Clients on a page.")] = 50,
    after: Annotated[str | None, typer.Option("--after", help="Begin after this client: the next page.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the clients, a page at a time."""
    with invocation(ctx).open_records() as records:
        page = records.administration.list_clients(after=after, limit=limit)
    if as_json:
        output.print_json({"clients": page.clients, "next_after": page.next_after})
        return
    if not page.clients:
        output.tell("There is no client yet; `faceward clients create` makes one, and so does enrolling a person.")
        return
    numbers = ("threshold", "retention")
    table = output.new_table("client", "name", *numbers, "made", right=numbers)
    for client in page.clients:
        threshold = "" if client.threshold is None else f"{client.threshold:g}"
        retention = output.days(client.retention_days)
        table.add_row(client.client_id, client.name, threshold, retention, output.when(client.created_at))
    output.print_table(table)
    if page.next_after is not None:
        output.tell(f"There are more: the next page with --after {shlex.quote(page.next_after)}")


def create(
    ctx: typer.Context,
    client: ClientId,
    name: Annotated[str | None, typer.Option("--name", help="What people call it; left out: its id.")] = None,
    threshold: OwnThreshold = None,
    as_json: AsJson = False,
) -> None:
    """Make a client before its first person does."""
    with invocation(ctx).open_records() as records:
        made = records.administration.create_client(client, name=name, threshold=threshold)
    if as_json:
        output.print_json(made)
    else:
        output.say(f"Client {made.client_id} is there now. `{create_command(made.client_id)}` makes its key.")


def set_threshold(
    ctx: typer.Context,
    client: ClientId,
    threshold: NewThreshold = None,
    clear: ClearThreshold = False,
    as_json: AsJson = False,
) -> None:
    """Give a client a threshold of its own, or take it away; a region's or a request's own outranks it."""
    value = new_threshold(threshold, clear)
    with invocation(ctx).open_records() as records:
        changed = records.administration.update_client(client, threshold=value)
    if as_json:
        output.print_json(changed)
    elif value is None:
        output.say(f"Client {client} has no threshold of its own now.")
    else:
        output.say(f"The threshold of client {client} is {value:g} now.")


def set_retention(
    ctx: typer.Context,
    client: ClientId,
    days: NewRetention = None,
    clear: ClearRetention = False,
    existing: Existing = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Let people whom a client enrolls from now on expire after some days; a region's own retention outranks it."""
    value = new_retention(days, clear)
    with invocation(ctx).open_records() as records:
        clients = records.administration
        confirm_existing(existing, yes, value, lambda days: clients.count_existing(client, days))
        changed = clients.update_client(client, retention_days=value, apply_to_existing=existing)
    if as_json:
        output.print_json(changed)
    elif value is None:
        output.say(f"Client {client} has no retention now.")
    else:
        output.say(f"People whom client {client} enrolls from now on expire after {output.days(value)}.")
        say_existing(changed.existing)
