"""`faceward audit`: who did what to whom."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from faceward.cli import output
from faceward.cli.invocation import invocation
from faceward.cli.options import AsJson, Before, Client, OnlyPerson, Since, moment

if TYPE_CHECKING:
    from faceward.store.audit_log import AuditEntry


def audit_app() -> typer.Typer:
    app = typer.Typer(help="Read the audit log, and delete what is old enough.", no_args_is_help=True)
    app.command("list")(list_entries)
    app.command("expire")(expire)
    return app


def list_entries(
    ctx: typer.Context,
    client: Client = None,
    person: OnlyPerson = None,
    actor: Annotated[
        str | None, typer.Option("--actor", help="Only of this actor, as key:PREFIX, cli:USER or import:JOB.")
    ] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only this action, as person.erase.")] = None,
    since: Since = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Entries on a page.")] = 50,
    before: Before = None,
    as_json: AsJson = False,
) -> None:
    """List what was done in a client, the newest first."""
    from_then = None if since is None else moment(since, "--since")
    with invocation(ctx).open_records() as records:
        page = records.journal.list_audit(
            client_id=client,
            person_id=person,
            actor=actor,
            action=action,
            since=from_then,
            before=before,
            limit=limit,
        )
    if as_json:
        output.print_json({"entries": page.entries, "next_before": page.next_before})
        return
    if not page.entries:
        output.tell("The audit log has no such entry.")
        return
    table = output.new_table("entry", "when", "who", "action", "person", "details", right=("entry", "person"))
    for entry in page.entries:
        table.add_row(
            str(entry.id), output.when(entry.at), entry.actor, entry.action, _person(entry), json.dumps(entry.details)
        )
    output.print_table(table)
    if page.next_before is not None:
        output.tell(f"There are more: the next page with --before {page.next_before}")


def expire(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Delete entries and decisions older than audit.log_days and audit.decision_days, and idempotency keys of a week ago, of
    all clients.

    `faceward serve` does it by itself, every hour.
    """
    with invocation(ctx).open_records(there=True) as records:
        gone = records.journal.expire()
    if as_json:
        output.print_json(gone)
    else:
        output.say(
            f"Deleted {gone.audit_entries} entries of the audit log, {gone.decisions} decisions and {gone.idempotency_keys} "
            "idempotency keys."
        )


def _person(entry: AuditEntry) -> str:
    if entry.person_id is None:
        return ""
    return str(entry.person_id) if entry.other_person_id is None else f"{entry.person_id} → {entry.other_person_id}"
