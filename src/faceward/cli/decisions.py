"""`faceward decisions`: what was decided about whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from faceward.cli import output
from faceward.cli.invocation import invocation
from faceward.cli.options import AsJson, Before, Client, OnlyPerson, Since, moment

if TYPE_CHECKING:
    from faceward.store.decision_log import StoredDecision


def list_decisions(
    ctx: typer.Context,
    client: Client = None,
    person: OnlyPerson = None,
    decision: Annotated[
        str | None,
        typer.Option("--decision", help="Only this outcome: match, ambiguous, unknown, verified or rejected."),
    ] = None,
    since: Since = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Decisions on a page.")] = 50,
    before: Before = None,
    as_json: AsJson = False,
) -> None:
    """List who was recognised, found or verified as whom, the newest first. None where audit.decisions is off."""
    from_then = None if since is None else moment(since, "--since")
    with invocation(ctx).open_records() as records:
        page = records.journal.list_decisions(
            client_id=client, person_id=person, decision=decision, since=from_then, before=before, limit=limit
        )
    if as_json:
        output.print_json({"decisions": page.decisions, "next_before": page.next_before})
        return
    if not page.decisions:
        output.tell("There is no such decision.")
        return
    numbers = ("decision", "threshold")
    table = output.new_table(
        "decision", "when", "who", "of", "regions", "threshold", "outcome", "nearest persons", right=numbers
    )
    for each in page.decisions:
        table.add_row(
            str(each.id),
            output.when(each.at),
            each.actor,
            each.kind,
            ", ".join(each.regions),
            f"{each.threshold:g}",
            each.decision,
            _nearest(each),
        )
    output.print_table(table)
    if page.next_before is not None:
        output.tell(f"There are more: the next page with --before {page.next_before}")


def _nearest(decision: StoredDecision) -> str:
    return ", ".join(f"{each.person_id} at {each.similarity:.3f}" for each in decision.candidates)
