"""`faceward gallery`: is everybody filed as they should be?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from faceward.cli import output
from faceward.cli.invocation import invocation
from faceward.cli.options import AsJson, Client

if TYPE_CHECKING:
    from faceward.evaluation.gallery_check import GalleryReport
    from faceward.evaluation.suspicions import Finding, FindingKind

_TITLES: dict[FindingKind, str] = {
    "wrong_person": "Photos that seem to be another person's",
    "enrolled_twice": "Persons who seem to be enrolled twice",
    "alike": "Persons who may pass for each other",
    "poor_photo": "Photos too poor to find their person by",
}


def gallery_app() -> typer.Typer:
    app = typer.Typer(help="Look after the gallery.", no_args_is_help=True)
    app.callback()(_gallery)
    app.command("check")(check)
    return app


def _gallery() -> None:
    """Look after the gallery."""


def check(
    ctx: typer.Context,
    regions: Annotated[
        list[str] | None, typer.Option("--region", help="A region of the client; several times; left out: all.")
    ] = None,
    client: Client = None,
    across_regions: Annotated[
        bool,
        typer.Option(
            "--across-regions",
            help="Compare the regions with each other too; who has one external id in several is one person.",
        ),
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="The most to name of each kind.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Look for photos filed under the wrong person, people enrolled twice, people who pass for each other, poor photos.

    Nothing is changed. The exit status is 1 where anything is found.
    """
    from faceward.checks import check_client_id, check_regions

    with invocation(ctx).open_gallery_check() as checker, output.counting_bar() as bar:
        task = bar.add_task("", total=None)
        report = checker.run(
            check_client_id(client),
            check_regions(regions) if regions else None,
            across_regions=across_regions,
            most=limit,
            progress=lambda what, done, of: bar.update(task, description=what, completed=done, total=of),
        )
    if as_json:
        output.print_json({**output.plain(report), "found": report.found})
    else:
        _print(report)
    if report.found:
        raise typer.Exit(1)


def _print(report: GalleryReport) -> None:
    from faceward.service.decisions import shown

    for kind, title in _TITLES.items():
        found = [each for each in report.findings if each.kind == kind]
        if found:
            more = f", the worst {len(found)} of {report.counts[kind]:,}" if len(found) < report.counts[kind] else ""
            _print_findings(f"{title}{more}", found)
    for region in report.regions:
        by_chance = f"; strangers reach {region.by_chance:.2f} by chance" if region.by_chance is not None else ""
        output.say(
            f"Region {region.name}: {region.persons:,} people, {region.faces:,} photos, threshold "
            f"{shown(region.threshold)}{by_chance}."
        )
    if not report.regions:
        output.tell("This client has no region yet; enrolling a person makes one.")
    elif not report.found:
        output.say("Nothing was found.")


def _print_findings(title: str, found: list[Finding]) -> None:
    table = output.new_table(
        "region", "person", "photo", "against", "similarity", "why", title=title, right=("photo", "similarity")
    )
    for each in found:
        similarity = each.own_similarity if each.other_person_id is None else each.similarity
        table.add_row(
            each.region,
            f"{each.name} ({each.person_id})",
            str(each.face_id),
            f"{each.other_name} ({each.other_person_id})" if each.other_person_id is not None else "",
            "" if similarity is None else f"{similarity:.3f}",
            f"{each.reason} {each.proposal}",
        )
    output.print_table(table)
