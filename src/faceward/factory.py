"""Puts a FaceService together from settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from faceward.retrieval import RetrievalSettings, Retriever
from faceward.service import FaceService
from faceward.settings import EMBEDDED, Settings, load_settings
from faceward.store.database import Database, PoolSettings
from faceward.store.embedded import EmbeddedServer
from faceward.store.gallery import Gallery
from faceward.store.schema import Schema, check_database
from faceward.store.search import FaceSearch
from faceward.vision import FaceAnalyzer, ImageLimits, PackStore


class Deployment:
    """The database that the settings name, its embedded server started where there is one, until close()."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._server: EmbeddedServer | None = None
        if settings.database.url == EMBEDDED:
            self._server = EmbeddedServer(settings.database_directory)
            self._server.ensure_database()
            self.url = self.migration_url = self._server.url
        else:
            self.url = settings.database.url
            self.migration_url = settings.database.migration_url or settings.database.url

    @property
    def schema(self) -> Schema:
        return Schema(self.migration_url, connect_timeout=self.settings.database.connect_timeout)

    def connect(self) -> Database:
        given = self.settings.database
        return Database(
            self.url,
            pool=PoolSettings(given.pool_size, given.max_overflow, given.pool_timeout, given.pool_recycle),
            connect_timeout=given.connect_timeout,
            statement_timeout=given.statement_timeout,
        )

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


def open_service(
    settings: Settings | None = None,
    *,
    config: str | Path | None = None,
    notify: Callable[[str], None] | None = None,
    **overrides: Any,
) -> FaceService:
    """A service on the database and the models of the settings; the tables are made on first use.

    settings: given, or read from `config` (default ./config.json) with `overrides`, as `load_settings` does. notify: told
    once of each model pack's licence.

    Raises SettingsError, ModelError, StoreError.
    """
    settings = settings or load_settings(config, **overrides)
    packs = pack_store(settings, notify)
    pack = packs.get(settings.model.pack)
    closing: list[Callable[[], None]] = []
    try:
        deployment = Deployment(settings)
        closing.append(deployment.close)
        deployment.schema.upgrade(dimension=pack.dimension)
        database = deployment.connect()
        closing.append(database.close)
        check_database(database, pack.model_id, pack.dimension)
        analyzer = FaceAnalyzer.open(
            pack,
            runtime=settings.model.runtime,
            threads=settings.model.threads,
            limits=ImageLimits(max_bytes=settings.images.max_bytes, max_pixels=settings.images.max_pixels),
            cache_dir=settings.home / "compiled",
        )
        closing.append(analyzer.close)
        gallery = Gallery(database, pack.model_id)
        search = FaceSearch(database)
        retriever = Retriever(
            search,
            gallery,
            model_id=pack.model_id,
            dimension=pack.dimension,
            settings=RetrievalSettings(
                strategy=settings.search.strategy,
                ef_search=settings.search.hnsw_ef_search,
                iterative_scan=settings.search.hnsw_iterative_scan,
            ),
        )
        threshold = settings.search.threshold
        return FaceService(
            analyzer,
            gallery,
            search,
            retriever,
            threshold=pack.threshold if threshold is None else threshold,
            min_quality=settings.enroll.min_quality,
            min_face=settings.enroll.min_face,
            store_images=settings.images.store == "original",
            on_close=closing,
        )
    except BaseException:
        for close in reversed(closing):
            close()
        raise


def pack_store(settings: Settings, notify: Callable[[str], None] | None = None) -> PackStore:
    return PackStore(settings.home, notify=notify)
