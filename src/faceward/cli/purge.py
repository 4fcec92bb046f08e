"""`faceward purge`: those whose time is over."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from faceward.cli import output
from faceward.cli.invocation import database_of, invocation
from faceward.cli.options import AsJson, OneClient

if TYPE_CHECKING:
    from faceward.errors import FacewardError
    from faceward.factory import Records


def clients_of(records: Records, client: str | None) -> list[str]:
    """The client that was named, or all of them."""
    if client is not None:
        return [client]
    found: list[str] = []
    after: str | None = None
    while True:
        page = records.administration.list_clients(after=after, limit=1000)
        found += [each.client_id for each in page.clients]
        after = page.next_after
        if after is None:
            return found


def purge(
    ctx: typer.Context,
    client: OneClient = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many of each client would be erased; erase nobody.")
    ] = False,
    after_restore: Annotated[
        bool, typer.Option("--after-restore", help="Also within seven days of a restore. Look at the expiries before.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Erase the people who have expired, with every trace, for good.

    As `people erase` does, one after the other: what was stopped is simply run again. Exit status 1 where somebody could not
    be erased, as one whom another transaction holds; all others are.
    """
    given = invocation(ctx)
    with given.open_records(there=True) as records, output.counting_bar() as bar:
        privacy = records.privacy
        expired = {each: privacy.count_expired(client_id=each) for each in clients_of(records, client)}
        expired = {each: count for each, count in expired.items() if count}
        held = None if after_restore else privacy.purge_held_until()
        erased = 0
        left: dict[str, list[int]] = {}
        reasons: dict[str, None] = {}

        def leave(client_id: str, person_id: int, why: FacewardError) -> None:
            left.setdefault(client_id, []).append(person_id)
            reasons[str(why)] = None

        if not dry_run and held is None:
            task = bar.add_task("Erasing", total=sum(expired.values()))
            for each in expired:
                erased += privacy.purge_expired(
                    client_id=each,
                    on_erased=lambda: bar.advance(task),
                    on_left=partial(leave, each),
                    after_restore=after_restore,
                )
    if held is not None and not dry_run:
        output.tell(
            f"A backup was restored: until {output.when(held)} nobody is erased, for expiries that were changed since the "
            "backup are as before. Look at them; then `faceward purge --after-restore`."
        )
    if as_json:
        output.print_json({"expired": expired, "erased": erased, "left": left})
    elif dry_run:
        for each, count in expired.items():
            output.say(f"{each}: {count} would be erased.")
        output.tell(f"{sum(expired.values())} people have expired.")
    else:
        output.say(f"Erased {erased} people who had expired. The database: {database_of(given.settings())}.")
    if left:
        for each, numbers in left.items():
            output.tell(f"Not erased of {each}: person {', '.join(map(str, numbers))}.")
        output.fail(f"{sum(map(len, left.values()))} people were left, and can be purged again. {' '.join(reasons)}")
        raise typer.Exit(1)
