"""What the retentions of a region and of a client have in common: how they come to people who are there already."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from faceward.cli import output

if TYPE_CHECKING:
    from faceward.types import RetentionEffect


def confirm_existing(existing: bool, yes: bool, days: int | None, count: Callable[[int], RetentionEffect]) -> None:
    """Ask before people who are there get an expiry. count: says whom a retention of so many days would change."""
    if existing and days is None:
        raise typer.BadParameter("give a number of days with it", param_hint="--existing")
    if days is None or not existing or yes:
        return
    found = count(days)
    if found.people:
        question = (
            f"{found.people} people who are there get an expiry or a nearer one. {found.expired} of them have expired by it: "
            "they are matched no more, and the next purge erases them. Go on?"
        )
        typer.confirm(question, abort=True, err=True)


def say_existing(effect: RetentionEffect | None) -> None:
    if effect is not None:
        output.say(
            f"{effect.people} people who are there got an expiry or a nearer one; {effect.expired} of them have expired."
        )
    if effect is not None and effect.expired:
        output.tell("Who has expired is matched no more, and erased by the next `faceward purge`.")
