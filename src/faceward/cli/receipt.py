"""`faceward receipt`: the proof of an erasure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from faceward.cli import output
from faceward.cli.invocation import invocation
from faceward.cli.options import AsJson

_LONGEST = 1 << 20


def receipt_app() -> typer.Typer:
    app = typer.Typer(help="Verify receipts of erasures.", no_args_is_help=True)
    app.command("verify")(verify)
    app.command("public-key")(public_key)
    return app


def verify(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The receipt, as `people erase --receipt` wrote it.")],
    key: Annotated[
        str | None,
        typer.Option("--public-key", help="Of the service that issued it, in base64; left out: this service's own."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that a receipt was signed by this service, or the one of --public-key, and was not changed since."""
    from faceward.errors import InvalidReceiptError
    from faceward.factory import receipt_signer
    from faceward.receipts import Receipt

    with file.open("rb") as opened:
        content = opened.read(_LONGEST + 1)
    if len(content) > _LONGEST:
        raise InvalidReceiptError(f"{file} is too large to be a receipt.")
    receipt = Receipt.parse(content.decode("utf-8", "replace"))
    receipt.verify(key or receipt_signer(invocation(ctx).settings()).public_key)
    if as_json:
        output.print_json({**receipt.content, "verified": True})
        return
    output.print_fields(
        {
            "receipt": receipt.content["id"],
            "client": receipt.content["client_id"],
            "erased at": receipt.content["erased_at"],
            "by": receipt.content["actor"],
            "removed": ", ".join(
                f"{name.replace('_', ' ')} {count}" for name, count in receipt.content["removed"].items()
            ),
            "nothing left": _nothing_left(receipt.content),
        }
    )
    output.say("The receipt is genuine.")


def _nothing_left(content: Mapping[str, Any]) -> str:
    if not content.get("checked", True):  # an older faceward signed none that was not
        return "not known: the check did not finish"
    return "yes" if content["complete"] else "no"


def public_key(ctx: typer.Context) -> None:
    """Print the public key of this service's receipts, for whoever verifies them elsewhere."""
    from faceward.factory import receipt_signer

    output.say(receipt_signer(invocation(ctx).settings()).public_key)
