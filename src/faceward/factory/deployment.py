"""The database of the settings, and the embedded server where there is one."""

from __future__ import annotations

from pathlib import Path

from faceward.settings import EMBEDDED, Settings
from faceward.store.backup import Backups
from faceward.store.database import Database, PoolSettings
from faceward.store.embedded import BUNDLED_PROGRAMS, EmbeddedServer
from faceward.store.graph_index import GraphSettings
from faceward.store.restore import Restoration
from faceward.store.schema import Schema


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

    def backups(self) -> Backups:
        given = self.settings
        return Backups(
            given.database.backup_url or self.migration_url,
            self._programs,
            given.home,
            connect_timeout=given.database.connect_timeout,
        )

    def restoration(self) -> Restoration:
        given = self.settings.database
        return Restoration(self.migration_url, self._programs, connect_timeout=given.connect_timeout)

    @property
    def _programs(self) -> tuple[Path | None, ...]:
        """Where PostgreSQL's programs are looked for: those of the server, else of the PATH, else faceward's own."""
        return (None, BUNDLED_PROGRAMS) if self._server is None else (self._server.bin_path,)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
