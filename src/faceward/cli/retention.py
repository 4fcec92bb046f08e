"""What is asked before people's time is over: by a retention that comes to people who are there, by an expiry in the past."""

from __future__ import annotations

import datetime as dt
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


def confirm_past(expires_at: dt.datetime | None, yes: bool, whom: Callable[[], str]) -> None:
    """Ask before a person gets an expiry that is over already."""
    if expires_at is None or yes or expires_at > dt.datetime.now(dt.UTC):
        return
    question = (
        f"{output.when(expires_at)} is past: {whom()} is matched no more, and the next purge erases the record. Go on?"
    )
    typer.confirm(question, abort=True, err=True)


def say_existing(effect: RetentionEffect | None) -> None:
    if effect is not None:
        output.say(
            f"{effect.people} people who are there got an expiry or a nearer one; {effect.expired} of them have expired."
        )
    if effect is not None and effect.expired:
        output.tell("Who has expired is matched no more, and erased by the next `faceward purge`.")
