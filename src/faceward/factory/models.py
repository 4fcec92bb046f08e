"""Which model pack is in use, and what its settings make of it."""

from __future__ import annotations

import os
from collections.abc import Callable

from faceward.errors import UnknownPackError
from faceward.settings import Settings
from faceward.store.database import Database
from faceward.store.embedding_models import models_in_use
from faceward.store.reembeddings import models_known
from faceward.vision import FaceAnalyzer, ImageLimits, ModelPack, PackManifest, PackStore


def pack_store(settings: Settings, notify: Callable[[str], None] | None = None) -> PackStore:
    return PackStore(settings.home, notify=notify)


def pack_of(model_id: str) -> str:
    """The name of the pack whose model that is."""
    return model_id.partition(":")[0]


def pack_in_use(settings: Settings, database: Database, notify: Callable[[str], None] | None = None) -> PackManifest:
    """Of the pack that works with this database: that of the settings, but where the model was changed since they were
    written, that of the gallery. notify: told so.

    Raises UnknownPackError.
    """
    packs = pack_store(settings)
    given = packs.manifest(settings.model.pack)
    models = models_in_use(database)
    if len(models) != 1 or given.model_id in models:
        return given
    (active,) = models
    if not {given.model_id, active} <= models_known(database):
        return given
    if pack_of(active) not in packs.names():
        raise UnknownPackError(
            f"The gallery was changed to the model {active}, and its pack is not on this machine. Bring it here: "
            "`faceward models add DIR`."
        )
    manifest = packs.manifest(pack_of(active))
    if notify is not None and manifest.model_id == active:
        notify(
            f"The gallery was changed to the model pack {manifest.name}: it is used. config.json should name it too: "
            f'"model": {{"pack": "{manifest.name}"}}.'
        )
    return manifest


def open_analyzer(settings: Settings, pack: ModelPack, threads: int | None = None) -> FaceAnalyzer:
    """threads: images worked on at once; None takes the settings'."""
    return FaceAnalyzer.open(
        pack,
        runtime=settings.model.runtime,
        threads=threads or settings.model.threads or os.cpu_count() or 1,
        limits=image_limits(settings),
        cache_dir=settings.home / "compiled",
    )


def image_limits(settings: Settings) -> ImageLimits:
    return ImageLimits(max_bytes=settings.images.max_bytes, max_pixels=settings.images.max_pixels)


def threshold_of(settings: Settings, manifest: PackManifest) -> float:
    own = settings.search.threshold
    return manifest.threshold if own is None else own
