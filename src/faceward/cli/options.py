"""Options that several commands share, each worded once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
Client: TypeAlias = Annotated[
    str | None, typer.Option("--client", help="The client (tenant) to work in; left out: the client `default`.")
]
Region: TypeAlias = Annotated[str, typer.Option("--region", help="The region of the client.")]
Regions: TypeAlias = Annotated[
    list[str], typer.Option("--region", help="A region of the client to search; may be given several times.")
]
Largest: TypeAlias = Annotated[
    bool,
    typer.Option("--largest", help="Of a photo that shows several faces, take the largest instead of refusing it."),
]
Threshold: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--threshold", help="The similarity from which on a face is a match, -1 to 1; left out: the settings'."
    ),
]
PersonId: TypeAlias = Annotated[
    int, typer.Argument(metavar="ID", help="The person's number, as `people list` shows it.")
]
Images: TypeAlias = Annotated[
    list[Path], typer.Argument(metavar="IMAGE...", help="Photos: JPEG, PNG, WebP or BMP.", show_default=False)
]
