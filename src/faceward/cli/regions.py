"""`faceward regions`: the regions of a client."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from faceward.cli import output
from faceward.cli.invocation import invocation
from faceward.cli.options import (
    AsJson,
    ClearRetention,
    ClearThreshold,
    Client,
    Existing,
    NewRetention,
    NewThreshold,
    OwnThreshold,
    Yes,
    new_retention,
    new_threshold,
)
from faceward.cli.retention import confirm_existing, say_existing

Name = Annotated[str, typer.Argument(metavar="REGION", help="The name of the region.")]


def regions_app() -> typer.Typer:
    app = typer.Typer(help="List the regions of a client, or make, rename and delete one.")
    app.callback(invoke_without_command=True)(list_regions)
    app.command("create")(create)
    app.command("rename")(rename)
    app.command("set-threshold")(set_threshold)
    app.command("set-retention")(set_retention)
    app.command("delete")(delete)
    return app


def list_regions(
    ctx: typer.Context,
    client: Client = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Regions on a page.")] = 100,
    after: Annotated[str | None, typer.Option("--after", help="Begin after this region: the next page.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the regions of a client, with their people and photos, a page at a time; or make, rename and delete one."""
    if ctx.invoked_subcommand is not None:
        if client is not None or as_json:
            raise typer.BadParameter(f"give --client and --json after {ctx.invoked_subcommand}")
        return
    with invocation(ctx).open_records() as records:
        page = records.regions.list_regions(client_id=client, after=after, limit=limit)
    if as_json:
        output.print_json({"regions": page.regions, "next_after": page.next_after})
        return
    if not page.regions:
        output.tell("This client has no region yet; enrolling a person makes one.")
        return
    numbers = ("people", "photos", "threshold", "retention")
    table = output.new_table("region", *numbers, "made", right=numbers)
    for region in page.regions:
        threshold = "" if region.threshold is None else f"{region.threshold:g}"
        retention = output.days(region.retention_days)
        counts = str(region.persons), str(region.faces)
        table.add_row(region.name, *counts, threshold, retention, output.when(region.created_at))
    output.print_table(table)
    if page.next_after is not None:
        output.tell(f"There are more: the next page with --after {shlex.quote(page.next_after)}")


def create(
    ctx: typer.Context, region: Name, client: Client = None, threshold: OwnThreshold = None, as_json: AsJson = False
) -> None:
    """Make a region before its first person does."""
    with invocation(ctx).open_records() as records:
        made = records.regions.create_region(region, threshold=threshold, client_id=client)
    if as_json:
        output.print_json(made)
    else:
        output.say(f"Region {made.name} is there now.")


def rename(
    ctx: typer.Context,
    region: Name,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its new name.")],
    client: Client = None,
    as_json: AsJson = False,
) -> None:
    """Rename a region; its people, and the keys that may work in it, come along."""
    with invocation(ctx).open_records() as records:
        changed = records.regions.rename_region(region, name, client_id=client)
    if as_json:
        output.print_json(changed)
    else:
        output.say(f"Region {region} is named {changed.name} now, with {changed.persons} people.")


def set_threshold(
    ctx: typer.Context,
    region: Name,
    threshold: NewThreshold = None,
    clear: ClearThreshold = False,
    client: Client = None,
    as_json: AsJson = False,
) -> None:
    """Give a region a threshold of its own, or take it away; a request's own still outranks it."""
    value = new_threshold(threshold, clear)
    with invocation(ctx).open_records() as records:
        changed = records.regions.update_region(region, threshold=value, client_id=client)
    if as_json:
        output.print_json(changed)
    elif value is None:
        output.say(f"Region {region} has no threshold of its own now.")
    else:
        output.say(f"The threshold of region {region} is {value:g} now.")


def set_retention(
    ctx: typer.Context,
    region: Name,
    days: NewRetention = None,
    clear: ClearRetention = False,
    existing: Existing = False,
    client: Client = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Let people who are enrolled in a region from now on expire after some days, or take that back."""
    value = new_retention(days, clear)
    with invocation(ctx).open_records() as records:
        regions = records.regions
        confirm_existing(existing, yes, value, lambda days: regions.count_existing(region, days, client_id=client))
        changed = regions.update_region(region, retention_days=value, apply_to_existing=existing, client_id=client)
    if as_json:
        output.print_json(changed)
    elif value is None:
        output.say(f"Region {region} has no retention of its own now.")
    else:
        output.say(f"People enrolled in region {region} from now on expire after {output.days(value)}.")
        say_existing(changed.existing)


def delete(ctx: typer.Context, region: Name, client: Client = None, as_json: AsJson = False) -> None:
    """Delete a region that has no people."""
    with invocation(ctx).open_records() as records:
        records.regions.delete_region(region, client_id=client)
    if as_json:
        output.print_json({"region": region})
    else:
        output.say(f"Deleted region {region}.")
