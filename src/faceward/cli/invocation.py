"""What every command begins with: the settings that the user named, and a service on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from faceward.cli import output

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from faceward.factory import Records
    from faceward.service import FaceService
    from faceward.settings import Settings
    from faceward.vision import PackManifest


@dataclass(frozen=True, slots=True)
class Invocation:
    """config: the file of --config; None where it was left out."""

    config: Path | None

    def settings(self, **overrides: Any) -> Settings:
        from faceward.settings import load_settings

        return load_settings(self.config, **overrides)

    def open_service(self, **overrides: Any) -> FaceService:
        """A service. The first one on a machine fetches the model pack, and tells its licence."""
        from faceward.factory import open_service, pack_store

        settings = self.settings(**overrides)
        with output.download_bar("Fetching the models") as download:
            pack_store(settings, download.tell).get(settings.model.pack, progress=download.progress)
        return open_service(settings, notify=output.tell)

    def open_records(self) -> AbstractContextManager[Records]:
        """Clients, keys and regions; no model is fetched or loaded."""
        from faceward.factory import open_records

        settings = self.settings()
        return open_records(settings, manifest_in_use(settings))


def invocation(ctx: typer.Context) -> Invocation:
    found = ctx.find_object(Invocation)
    assert found is not None, "the application's callback sets it"
    return found


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
