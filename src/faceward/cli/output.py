"""What the commands print: answers on stdout, everything meant for a reader only on stderr."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress

    from faceward.types import Enrollment

_WIDTH_WITHOUT_TERMINAL = 120


def stdout() -> Console:
    return _console(stderr=False)


def stderr() -> Console:
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    # Names and paths are shown as they are: "[red]" or ":smile:" in one is no mark-up.
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH_WITHOUT_TERMINAL)
    return console


def say(line: str) -> None:
    """The answer of a command that has no table."""
    stdout().print(line, soft_wrap=True)


def tell(line: str) -> None:
    """A line for the reader."""
    stderr().print(line, soft_wrap=True)


def fail(message: str) -> None:
    """An error for the reader."""
    stderr().print(Text.assemble(("Error: ", "bold red"), (message, "red")), soft_wrap=True)


def print_json(value: object) -> None:
    """The only thing that a command with --json writes to stdout."""
    print(json.dumps(value, indent=2, default=plain))  # noqa: T201 - Rich would wrap it


def plain(value: object) -> Any:
    """What JSON has no form of its own for."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)


def new_table(*columns: str, right: Sequence[str] = (), title: str | None = None) -> Table:
    """An empty table; a long text is folded, never cut."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in right else "left")
    return table


def print_table(table: Table) -> None:
    stdout().print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """Names and values below each other; what has no value is left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields.items():
        if value is not None and value != "":
            table.add_row(name, str(value))
    stdout().print(table)


def percent(similarity: float) -> str:
    return f"{100 * similarity:.1f} %"


def when(moment: dt.datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def days(count: int | None) -> str:
    return "" if count is None else f"{count} day{'' if count == 1 else 's'}"


def tell_duplicates(stored: Enrollment) -> None:
    """Who of the region may be the one just enrolled."""
    from faceward.commands import merge_command

    for each in stored.likely_duplicates:
        merge = merge_command(stored.person.id, each.person_id, client_id=stored.person.client_id)
        tell(
            f"This may be {each.name} (person {each.person_id}), at {percent(each.similarity)}. If they are one person: {merge}"
        )


def counting_bar() -> Progress:
    """On stderr, and gone when it is done; nothing where stderr is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = stderr()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@dataclasses.dataclass(frozen=True, slots=True)
class Download:
    """Shows how far a download is. progress: receives the bytes done and in all. stage: what is being done now, and the
    bytes done of nobody knows how many. tell: prints a line above the bar.
    """

    progress: Callable[[int, int], None]
    stage: Callable[[str, int], None]
    tell: Callable[[str], None]


@contextmanager
def download_bar(description: str) -> Iterator[Download]:
    """Shown from the first byte on, so not at all where nothing is fetched or stderr is no terminal."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    console = stderr()
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None, visible=False)
        yield Download(
            progress=lambda done, total: bar.update(task, completed=done, total=total, visible=True),
            stage=lambda text, done: bar.update(task, description=text, completed=done, visible=True),
            tell=lambda line: console.print(line, soft_wrap=True),
        )
