"""`faceward audit-recall`: does a search find the people of a region?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, get_args

import typer

from faceward.cli import output
from faceward.cli.invocation import invocation
from faceward.cli.options import AsJson, Client, Region

if TYPE_CHECKING:
    from faceward.evaluation.audit import AuditReport, StrategyAudit
    from faceward.types import Strategy

_ALL = "auto,exact,sketch,hnsw"


def audit_recall(
    ctx: typer.Context,
    region: Region,
    client: Client = None,
    sample: Annotated[int, typer.Option("--sample", min=1, max=100_000, help="The most probes.")] = 500,
    similarity: Annotated[
        float,
        typer.Option(
            "--similarity",
            min=0.41,
            max=1.0,
            help="Of the probes made for people who have no second photo to their first.",
        ),
    ] = 0.58,
    strategies: Annotated[
        str | None,
        typer.Option(
            "--strategies",
            metavar="NAME,...",
            help=f"The strategies to audit; left out: {_ALL}, hnsw only for comparison.",
        ),
    ] = None,
    min_recall: Annotated[
        float, typer.Option("--min-recall", min=0.0, max=1.0, help="Exit status 1 where a strategy finds less.")
    ] = 0.999,
    as_json: AsJson = False,
) -> None:
    """Measure how many people of a region each search strategy finds, against brute force over the full vectors.

    Exit status 1 where auto, exact or sketch, or a strategy that --strategies names, finds less than --min-recall.
    """
    from faceward.checks import check_client_id, check_region

    chosen = _chosen(_ALL if strategies is None else strategies)
    judged = chosen if strategies is not None else [name for name in chosen if name != "hnsw"]
    with invocation(ctx).open_audit() as audit, output.counting_bar() as bar:
        task = bar.add_task("", total=None)
        report = audit.run(
            check_client_id(client),
            check_region(region),
            sample=sample,
            similarity=similarity,
            strategies=chosen,
            progress=lambda what, done, of: bar.update(task, description=what, completed=done, total=of),
        )
    below = report.below(min_recall, judged)
    if as_json:
        output.print_json({**output.plain(report), "min_recall": min_recall, "judged": judged, "passed": not below})
    else:
        _print(report)
    for failed in below:
        if failed.recall is None:
            output.fail(f"The recall of {failed.strategy} is not known: {failed.note or 'no probe counts'}.")
        else:
            output.fail(
                f"{failed.strategy} missed {failed.probes - failed.found} of {failed.probes}: its recall of "
                f"{failed.recall:.4f} is below {min_recall:g}."
            )
    if below:
        raise typer.Exit(1)


def _chosen(names: str) -> list[Strategy]:
    from faceward.errors import InvalidValueError
    from faceward.types import Strategy

    known: tuple[Strategy, ...] = get_args(Strategy)
    chosen: list[Strategy] = []
    for given in names.split(","):
        matching = [name for name in known if name == given.strip()]
        if not matching:
            raise InvalidValueError("--strategies", names, f"names out of {', '.join(known)}, with commas between")
        chosen += matching
    return list(dict.fromkeys(chosen))


def _print(report: AuditReport) -> None:
    table = output.new_table(
        "strategy",
        "recall@1",
        "95 % interval",
        "found",
        "p50 ms",
        "p95 ms",
        "",
        right=("recall@1", "95 % interval", "found", "p50 ms", "p95 ms"),
        title=f"Region {report.region} of client {report.client_id}: {report.faces:,} faces",
    )
    for audit in report.strategies:
        table.add_row(*_row(audit))
    output.print_table(table)
    output.say(
        f"Probes: {report.second_photos} second photos of enrolled people, each searched without its own face, and "
        f"{report.made} made at a similarity of {report.similarity:g}. Of these, "
        f"{max((audit.probes for audit in report.strategies), default=0)} count: their true nearest face is at "
        f"{report.lowest:.2f} or above."
    )


def _row(audit: StrategyAudit) -> tuple[str, ...]:
    if audit.p50_ms is None or audit.p95_ms is None:
        return (audit.strategy, "", "", "", "", "", audit.note)
    times = (f"{audit.p50_ms:.2f}", f"{audit.p95_ms:.2f}", audit.note)
    if audit.recall is None:
        return (audit.strategy, "", "", "0/0", *times)
    return (
        audit.strategy,
        f"{audit.recall:.4f}",
        f"{audit.low:.4f} to {audit.high:.4f}",
        f"{audit.found}/{audit.probes}",
        *times,
    )
