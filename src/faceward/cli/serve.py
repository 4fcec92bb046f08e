"""`faceward serve`."""

from __future__ import annotations

import datetime as dt
import secrets
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from faceward.cli import output
from faceward.cli.invocation import database_of, invocation, manifest_in_use

if TYPE_CHECKING:
    from faceward.administration import Administration

_TRIAL = dt.timedelta(hours=24)


def serve(
    ctx: typer.Context,
    host: Annotated[str | None, typer.Option("--host", help="The address to listen on; left out: api.host.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="The port to listen on; left out: api.port.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, max=256, help="Processes that serve the port; left out: api.workers."),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", help="The certificate's chain, PEM, for HTTPS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="The certificate's private key, PEM.")] = None,
    trial: Annotated[
        bool, typer.Option("--trial", help="Make a key for 24 hours, and show three calls to try the service with.")
    ] = False,
) -> None:
    """Serve the REST API. The first start on a database makes an admin key and shows it once."""
    from faceward.api.opening import log_to
    from faceward.api.serving import listening, serve_here, until_stopped, url_of
    from faceward.api.workers import serve_by_workers
    from faceward.factory import open_records, pack_store
    from faceward.vision import fetch_sample_photos

    given = invocation(ctx)
    options: dict[str, Any] = {
        name: value
        for name, value in {
            "host": host,
            "port": port,
            "workers": workers,
            "tls_certificate": tls_certificate,
            "tls_key": tls_key,
        }.items()
        if value is not None
    }
    settings = given.settings(api=options)
    with until_stopped():
        with output.download_bar("Fetching the models") as download:
            pack_store(settings, download.tell).get(settings.model.pack, progress=download.progress)
            photos = fetch_sample_photos(settings.home, download.progress, notify=download.tell) if trial else {}
        # The port before the database: a key that is shown only once must not be made by a start that then fails.
        # The database for as long as the service runs: an embedded server stays up for all of its processes.
        with listening(settings.api) as listener, open_records(settings, manifest_in_use(settings)) as records:
            administration = records.administration
            first = administration.ensure_first_key(settings.api.first_key)
            if first is not None and settings.api.first_key is None:
                output.say("The first admin key, shown this once and stored nowhere:")
                output.say(f"  {first.secret}")
            key = _trial_key(administration) if trial else None
            url = url_of(listener, settings.api)

            def announce() -> None:
                if key is not None:
                    _show_calls(url, key, photos)
                output.say(f"The database: {database_of(settings)}.")
                output.say(f"faceward serves {url}, and describes itself at {url}/docs. Ctrl-C ends it.")

            run = serve_here if settings.api.workers == 1 else serve_by_workers
            run(settings, listener, log_to(sys.stderr), announce)


def _trial_key(administration: Administration) -> str:
    from faceward.checks import DEFAULT_CLIENT

    expires_at = dt.datetime.now(dt.UTC) + _TRIAL
    return administration.create_key(DEFAULT_CLIENT, "manager", name="trial", expires_at=expires_at).secret


def _show_calls(url: str, key: str, photos: Mapping[str, Path]) -> None:
    """Three calls that can be pasted: enroll, recognise, list. The region is new, so that they work every time."""
    region = f"trial-{secrets.token_hex(3)}"
    call = f"curl -sS -H 'x-api-key: {key}'"
    enrolled, probe = (shlex.quote(f"@{photos[name]}") for name in ("obama.jpg", "obama2.jpg"))
    output.say("A key to try it with, for 24 hours, and three calls:")
    output.say(f"  {call} -F name='Barack Obama' -F region={region} -F images={enrolled} {url}/v1/persons")
    output.say(f"  {call} -F region={region} -F image={probe} {url}/v1/recognize")
    output.say(f"  {call} '{url}/v1/persons?region={region}'")
