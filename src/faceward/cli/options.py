"""Options that several commands share, each worded once."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from faceward.cli.invocation import existing_client

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
Client: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--client",
        help="The client (tenant) to work in; left out: the client `default`.",
        callback=existing_client,
    ),
]
OneClient: TypeAlias = Annotated[
    str | None, typer.Option("--client", help="Only of this client; left out: of all.", callback=existing_client)
]
EnrollingClient: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--client",
        help="The client (tenant) to work in, made where it is absent; left out: the client `default`.",
    ),
]
Region: TypeAlias = Annotated[str, typer.Option("--region", help="The region of the client.")]
Regions: TypeAlias = Annotated[
    list[str], typer.Option("--region", help="A region of the client to search; may be given several times.")
]
Largest: TypeAlias = Annotated[
    bool,
    typer.Option("--largest", help="Of a photo that shows several faces, take the largest instead of refusing it."),
]
AllowDuplicate: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--allow-duplicate", help="Also where enroll.duplicates refuses who looks like another person of the region."
    ),
]
OwnThreshold: TypeAlias = Annotated[
    float | None, typer.Option("--threshold", help="Its own similarity from which on a face is a match, -1 to 1.")
]
NewThreshold: TypeAlias = Annotated[
    float | None,
    typer.Argument(metavar="[THRESHOLD]", help="The similarity from which on a face is a match, -1 to 1."),
]
ClearThreshold: TypeAlias = Annotated[bool, typer.Option("--clear", help="Have no threshold of its own.")]
NewRetention: TypeAlias = Annotated[
    int | None,
    typer.Argument(metavar="[DAYS]", help="Days after which people who are enrolled from now on expire.", min=1),
]
ClearRetention: TypeAlias = Annotated[bool, typer.Option("--clear", help="Have no retention of its own.")]
Existing: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--existing",
        help="Also for the people who are there, counted from their enrolment; nobody is kept longer by it.",
    ),
]
Replace: TypeAlias = Annotated[bool, typer.Option("--replace", help="Replace an older file of that name.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", help="Don't ask.")]
Expires: TypeAlias = Annotated[
    str | None,
    typer.Option("--expires", metavar="TIME", help="When it ends, as 2030-01-31T12:00:00Z; in UTC without a zone."),
]
Threshold: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        help="The similarity from which on a face is a match, -1 to 1; left out: the region's own, else the client's, else the "
        "settings'.",
    ),
]
OnlyPerson: TypeAlias = Annotated[int | None, typer.Option("--person", min=1, help="Only of this person.")]
Since: TypeAlias = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="From then on, as 2030-01-31T12:00:00Z; in UTC without a zone."),
]
Before: TypeAlias = Annotated[
    int | None, typer.Option("--before", min=1, help="Only those before this number: the next page.")
]
PersonId: TypeAlias = Annotated[
    int, typer.Argument(metavar="ID", help="The person's number, as `people list` shows it.")
]
Images: TypeAlias = Annotated[
    list[Path], typer.Argument(metavar="IMAGE...", help="Photos: JPEG, PNG, WebP or BMP.", show_default=False)
]


def moment(text: str, option: str) -> dt.datetime:
    """A time as a user writes it; in UTC without a zone. Not digits alone, which may be seconds: Python would read a date."""
    try:
        given = dt.datetime.fromisoformat("" if text.isdigit() else text)
    except ValueError as exc:
        raise typer.BadParameter(f"{text!r} is no time; write it as 2030-01-31T12:00:00Z", param_hint=option) from exc
    return given if given.tzinfo else given.replace(tzinfo=dt.UTC)


def new_retention(days: int | None, clear: bool) -> int | None:
    """Of a command that sets a retention, or clears it."""
    if (days is None) != clear:
        raise typer.BadParameter("give a number of days, or --clear", param_hint="DAYS")
    return days


def new_threshold(value: float | None, clear: bool) -> float | None:
    """Of a command that sets a threshold, or clears it."""
    if (value is None) != clear:
        raise typer.BadParameter("give a threshold, or --clear", param_hint="THRESHOLD")
    return value
