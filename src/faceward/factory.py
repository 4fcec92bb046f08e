"""Puts a FaceService together from settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from faceward.bulk_import import Importer
from faceward.enrolment import EnrolmentGate
from faceward.evaluation.audit import RecallAudit
from faceward.evaluation.noise_model import NoiseModel
from faceward.retrieval import KeeperSettings, RetrievalSettings, Retriever, SketchKeeper
from faceward.service import FaceService
from faceward.settings import EMBEDDED, Settings, load_settings
from faceward.sketches import SketchCache
from faceward.store.bulk import BulkWriter
from faceward.store.database import Database, PoolSettings
from faceward.store.embedded import EmbeddedServer
from faceward.store.gallery import Gallery
from faceward.store.graph_index import GraphSettings
from faceward.store.schema import Schema, check_database, pgvector_version
from faceward.store.scopes import ScopeReader
from faceward.store.search import FaceSearch
from faceward.vision import FaceAnalyzer, ImageLimits, PackManifest, PackStore


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

    def upgrade(self, dimension: int) -> bool:
        """Bring the tables up to date; True if anything was done. New tables get the HNSW index of the settings."""
        schema = self.schema
        new = schema.status().revision is None
        changed = schema.upgrade(dimension=dimension)
        if new and changed:
            schema.apply_graph(self.graph)
        return changed

    @property
    def graph(self) -> GraphSettings:
        given = self.settings.search
        return GraphSettings(
            exists=given.hnsw_index,
            m=given.hnsw_m,
            ef_construction=given.hnsw_ef_construction,
            halfvec=given.hnsw_halfvec,
        )

    def connect(self, url: str | None = None) -> Database:
        given = self.settings.database
        return Database(
            url or self.url,
            pool=PoolSettings(given.pool_size, given.max_overflow, given.pool_timeout, given.pool_recycle),
            connect_timeout=given.connect_timeout,
            statement_timeout=given.statement_timeout,
        )

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


class _SearchParts:
    """What searches one database, as the settings say."""

    def __init__(self, settings: Settings, database: Database, model_id: str, dimension: int) -> None:
        given = settings.search
        iterates = pgvector_version(database) >= (0, 8)  # an older one has no such setting
        self.scopes = ScopeReader(database, model_id, dimension)
        self.search = FaceSearch(database, given.most_at_once)
        self.keeper = SketchKeeper(
            self.scopes,
            SketchCache(given.sketch_bytes, dimension),
            KeeperSettings(idle_seconds=given.refresh_seconds),
        )
        self.retriever = Retriever(
            self.search,
            Gallery(database, model_id),
            self.keeper,
            model_id=model_id,
            dimension=dimension,
            settings=RetrievalSettings(
                strategy=given.strategy,
                sketch_from=given.sketch_from,
                ef_search=given.hnsw_ef_search,
                iterative_scan=given.hnsw_iterative_scan if iterates else "off",
                halfvec=given.hnsw_halfvec,
            ),
        )


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
        deployment.upgrade(pack.dimension)
        database = deployment.connect()
        closing.append(database.close)
        check_database(database, pack.model_id, pack.dimension)
        searched = database
        if settings.database.search_url is not None:
            searched = deployment.connect(settings.database.search_url)
            closing.append(searched.close)
            check_database(searched, pack.model_id, pack.dimension)
        analyzer = FaceAnalyzer.open(
            pack,
            runtime=settings.model.runtime,
            threads=settings.model.threads or os.cpu_count() or 1,
            limits=ImageLimits(max_bytes=settings.images.max_bytes, max_pixels=settings.images.max_pixels),
            cache_dir=settings.home / "compiled",
        )
        closing.append(analyzer.close)
        gallery = Gallery(database, pack.model_id)
        parts = _SearchParts(settings, searched, pack.model_id, pack.dimension)
        closing.append(parts.keeper.close)
        importer = Importer(
            BulkWriter(database, gallery, pack.model_id),
            pack.dimension,
            large_import=deployment.schema.set_graph_aside,
            large_from=settings.search.hnsw_rebuild_from,
        )
        threshold = settings.search.threshold
        gate = EnrolmentGate(
            analyzer,
            min_quality=settings.enroll.min_quality,
            min_face=settings.enroll.min_face,
            store_images=settings.images.store == "original",
        )
        return FaceService(
            analyzer,
            gate,
            gallery,
            parts.search,
            parts.retriever,
            importer,
            threshold=pack.threshold if threshold is None else threshold,
            on_close=closing,
        )
    except BaseException:
        for close in reversed(closing):
            close()
        raise


@contextmanager
def open_audit(settings: Settings, manifest: PackManifest) -> Iterator[RecallAudit]:
    """An audit of the searches of these settings, on the database that answers them; needs no model file.

    manifest: of the pack in use. Raises StoreError, ModelMismatchError.
    """
    model_id, dimension = manifest.model_id, manifest.embedding.dimension
    with ExitStack() as stack:
        deployment = Deployment(settings)
        stack.callback(deployment.close)
        database = stack.enter_context(deployment.connect(settings.database.search_url))
        check_database(database, model_id, dimension)
        parts = _SearchParts(settings, database, model_id, dimension)
        stack.callback(parts.keeper.close)
        noise = NoiseModel.load()
        threshold = settings.search.threshold
        yield RecallAudit(
            parts.scopes,
            parts.retriever,
            noise if noise.dimension == dimension else None,
            floor=manifest.threshold if threshold is None else threshold,
        )


def pack_store(settings: Settings, notify: Callable[[str], None] | None = None) -> PackStore:
    return PackStore(settings.home, notify=notify)
