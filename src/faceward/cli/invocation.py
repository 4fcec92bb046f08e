"""What every command begins with: the settings that the user named, and a service on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from faceward.cli import output

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from faceward.administration import Administration
    from faceward.evaluation.audit import RecallAudit
    from faceward.evaluation.gallery_check import GalleryCheck
    from faceward.factory import Parts, Records
    from faceward.service import FaceService
    from faceward.settings import Settings
    from faceward.vision import PackManifest


_CLIENT = "faceward.client"


@dataclass(frozen=True, slots=True)
class Invocation:
    """config: the file of --config; None where it was left out. client: that of a command that makes none, looked for by all
    that is opened, so that a misspelt one does not pass for one without people.
    """

    config: Path | None
    client: str | None = None

    def settings(self, **overrides: Any) -> Settings:
        from faceward.settings import load_settings

        return load_settings(self.config, **overrides)

    def open_service(self, **overrides: Any) -> FaceService:
        """A service. The first one on a machine fetches the model pack, and tells its licence."""
        return self._open_parts(**overrides).service

    @contextmanager
    def open_enrolling(self, client: str | None, **overrides: Any) -> Iterator[Parts]:
        """For what may make its client, which is told afterwards: who misspelt an id has made another one."""
        from faceward.checks import check_client_id

        client_id = check_client_id(client)
        parts = self._open_parts(**overrides)
        with parts:
            new = client is not None and not _is_there(parts.administration, client_id)
            yield parts
            if new and _is_there(parts.administration, client_id):
                output.tell(f"Client {client_id!r} was not there before, and was made.")

    def open_records(self, *, there: bool = False) -> AbstractContextManager[Records]:
        """Clients, keys and regions; no model is fetched or loaded.

        there: make no embedded database. What keeps house from cron must not do so in an empty one of its own, and succeed.
        """
        from faceward.factory import open_records

        settings = self.settings()
        if there:
            _require_database(settings)
        return open_records(settings, manifest_in_use(settings), client_id=self.client)

    def open_audit(self) -> AbstractContextManager[RecallAudit]:
        from faceward.factory import open_audit

        settings = self.settings()
        return open_audit(settings, manifest_in_use(settings), client_id=self.client)

    def open_gallery_check(self) -> AbstractContextManager[GalleryCheck]:
        from faceward.factory import open_gallery_check

        settings = self.settings()
        return open_gallery_check(settings, manifest_in_use(settings), client_id=self.client)

    def _open_parts(self, **overrides: Any) -> Parts:
        from faceward.factory import open_parts, pack_store

        settings = self.settings(**overrides)
        with output.download_bar("Fetching the models") as download:
            pack_store(settings, download.tell).get(settings.model.pack, progress=download.progress)
        return open_parts(settings, notify=output.tell, client_id=self.client)


def invocation(ctx: typer.Context) -> Invocation:
    found = ctx.find_object(Invocation)
    assert found is not None, "the application's callback sets it"
    return replace(found, client=ctx.meta.get(_CLIENT))


def existing_client(ctx: typer.Context, client: str | None) -> str | None:
    """The callback of each `--client` that has to be there: what the command opens looks for it."""
    ctx.meta[_CLIENT] = client
    return client


def _is_there(clients: Administration, client_id: str) -> bool:
    from faceward.errors import UnknownClientError

    try:
        clients.get_client(client_id)
    except UnknownClientError:
        return False
    return True


def _require_database(settings: Settings) -> None:
    from faceward.errors import SchemaMissingError
    from faceward.settings import EMBEDDED
    from faceward.store.embedded import is_cluster

    if settings.database.url == EMBEDDED and not is_cluster(settings.database_directory):
        raise SchemaMissingError(
            f"There is no embedded database in {settings.database_directory}: nothing was ever stored. Is another one meant? "
            "config.json is read from the working directory; --config or FACEWARD_CONFIG names it from elsewhere."
        )


def manifest_in_use(settings: Settings) -> PackManifest:
    """Of the pack that the settings name; nothing is fetched. Raises UnknownPackError."""
    from faceward.errors import UnknownPackError
    from faceward.factory import pack_store

    packs = {status.manifest.name: status.manifest for status in pack_store(settings).list()}
    if settings.model.pack not in packs:
        raise UnknownPackError(f"There is no model pack {settings.model.pack!r}. There are: {', '.join(packs)}.")
    return packs[settings.model.pack]


def database_of(settings: Settings) -> str:
    """Which database the settings mean: with another working directory it may be another than was meant."""
    from faceward.settings import EMBEDDED

    url = settings.database.url
    return f"embedded, in {settings.database_directory}" if url == EMBEDDED else shown_url(url)


def shown_url(url: str) -> str:
    """A database's URL without its password. Raises SettingsError where it is none."""
    from faceward.settings import EMBEDDED
    from faceward.store.database import parse_url

    return url if url == EMBEDDED else parse_url(url).set(drivername="postgresql").render_as_string(hide_password=True)
