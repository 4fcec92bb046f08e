"""What every command begins with: the settings that the user named, and a service on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from faceward.cli import output

if TYPE_CHECKING:
    from faceward.service import FaceService
    from faceward.settings import Settings


@dataclass(frozen=True, slots=True)
class Invocation:
    """config: the file of --config; None where it was left out."""

    config: Path | None

    def settings(self, **overrides: Any) -> Settings:
        from faceward.settings import load_settings

        return load_settings(self.config, **overrides)

    def open_service(self, **overrides: Any) -> FaceService:
        """A service; the licence of a model pack is told on its first use."""
        from faceward.factory import open_service

        return open_service(self.settings(**overrides), notify=output.tell)


def invocation(ctx: typer.Context) -> Invocation:
    found = ctx.find_object(Invocation)
    assert found is not None, "the application's callback sets it"
    return found
