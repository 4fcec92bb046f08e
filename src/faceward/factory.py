"""Puts a FaceService together from settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from faceward.administration import Administration
from faceward.bulk_import import Importer
from faceward.enrolment import EnrolmentGate
from faceward.errors import FacewardError, ModelMismatchError, UnknownPackError
from faceward.evaluation.audit import RecallAudit
from faceward.evaluation.gallery_check import GalleryCheck
from faceward.evaluation.noise_model import NoiseModel
from faceward.jobs import ArchiveLimits, Imports, JobRunner, LargeImport, RunnerSettings
from faceward.journal import Journal
from faceward.photo_import import PhotoImporter
from faceward.photo_upkeep import PhotoUpkeep
from faceward.receipts import ReceiptSigner
from faceward.reembedding import ModelChange, PhotoEmbedder
from faceward.retrieval import KeeperSettings, RetrievalSettings, Retriever, SketchKeeper
from faceward.service import FaceService, ModelService
from faceward.service.following import ModelFollower
from faceward.service.people import People
from faceward.service.privacy import Privacy
from faceward.service.regions import Regions
from faceward.service.thresholds import Thresholds
from faceward.settings import EMBEDDED, Settings, load_settings
from faceward.sketches import SketchCache
from faceward.store.api_keys import KeyStore
from faceward.store.audit_log import AuditLog
from faceward.store.backup import Backups
from faceward.store.bulk import BulkWriter
from faceward.store.clients import ClientStore
from faceward.store.database import Database, PoolSettings
from faceward.store.decision_log import DecisionStore
from faceward.store.decision_writer import DecisionWriter
from faceward.store.embedded import BUNDLED_PROGRAMS, EmbeddedServer
from faceward.store.embedding_models import models_in_use
from faceward.store.erasure import Eraser
from faceward.store.gallery import Gallery
from faceward.store.gallery_scan import GalleryScanner
from faceward.store.graph_index import GraphSettings
from faceward.store.job_queue import JobQueue
from faceward.store.jobs import JobStore
from faceward.store.personal_data import PersonalDataStore
from faceward.store.photo_vault import PhotoVault
from faceward.store.photos import StoredPhotos
from faceward.store.presence import Presence
from faceward.store.reembeddings import models_known
from faceward.store.regions import RegionStore
from faceward.store.restore import Restoration
from faceward.store.schema import Schema, check_database, pgvector_version
from faceward.store.scopes import ScopeReader
from faceward.store.search import FaceSearch
from faceward.vision import FaceAnalyzer, ImageLimits, ModelPack, PackManifest, PackStore


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


class _SearchParts:
    """What searches one database, as the settings say."""

    def __init__(self, settings: Settings, database: Database, model_id: str, dimension: int) -> None:
        given = settings.search
        iterates = pgvector_version(database) >= (0, 8)  # an older one has no such setting
        self.dimension = dimension
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

    def audit(self, floor: float) -> RecallAudit:
        """Of these searches. floor: the threshold in use."""
        noise = NoiseModel.load()
        return RecallAudit(
            self.scopes, self.retriever, noise if noise.dimension == self.dimension else None, floor=floor
        )


@dataclass(frozen=True, slots=True)
class LoadedPack:
    """What works with the models of one pack. analyzer, sketches: closed by close()."""

    manifest: PackManifest
    service: ModelService
    analyzer: FaceAnalyzer
    sketches: SketchKeeper
    audit: RecallAudit

    @property
    def model_id(self) -> str:
        return self.manifest.model_id

    @property
    def dimension(self) -> int:
        return self.manifest.embedding.dimension

    def close(self) -> None:
        self.sketches.close()
        self.analyzer.close()


@dataclass(frozen=True, slots=True)
class Parts:
    """An assembled deployment. database: the pool that service and administration share; searched: that of the searches,
    the same unless database.search_url names another. packs: has the pack in use, which a change of the model replaces.
    runner: of the imports; start() it where they are to be run. decisions: where they are kept, or None.
    """

    settings: Settings
    database: Database
    searched: Database
    service: FaceService
    administration: Administration
    packs: ModelFollower[LoadedPack]
    imports: Imports
    runner: JobRunner
    journal: Journal
    decisions: DecisionWriter | None

    @property
    def manifest(self) -> PackManifest:
        """Of the pack in use."""
        return self.packs.current.manifest

    @property
    def sketches(self) -> SketchKeeper:
        """Of the pack in use."""
        return self.packs.current.sketches

    @property
    def audit(self) -> RecallAudit:
        """Of the pack in use."""
        return self.packs.current.audit

    def checks(self) -> dict[str, str]:
        """Whether requests can be served now: for each of database, search database and models "ok", or the error's code."""
        found = {"models": "ok", "database": _state(self.database, self.manifest)}
        if found["database"] == ModelMismatchError.code:
            try:
                self.packs.refresh()
            except FacewardError as exc:
                found["models"] = exc.code
            found["database"] = _state(self.database, self.manifest)
        if self.searched is not self.database:
            found["search database"] = _state(self.searched, self.manifest)
        return found

    def close(self) -> None:
        """Closes all of it; imports stop after their batches under way."""
        self.runner.close()
        self.service.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
    return open_parts(settings or load_settings(config, **overrides), notify=notify).service


def open_parts(settings: Settings, *, notify: Callable[[str], None] | None = None) -> Parts:
    """All that serves many clients, on one pool of connections. Raises as open_service does."""
    packs = pack_store(settings, notify)
    on_close: list[Callable[[], None]] = []
    try:
        deployment = Deployment(settings)
        on_close.append(deployment.close)
        deployment.upgrade(packs.manifest(settings.model.pack).embedding.dimension)
        database = deployment.connect()
        on_close.append(database.close)
        manifest = pack_in_use(settings, database, notify)
        check_database(database, manifest.model_id, manifest.embedding.dimension)
        searched = database
        if settings.database.search_url is not None:
            searched = deployment.connect(settings.database.search_url)
            on_close.append(searched.close)
            check_database(searched, manifest.model_id, manifest.embedding.dimension)
        decisions = None
        if settings.audit.decisions == "on":
            decisions = DecisionWriter(DecisionStore(database))
            on_close.append(decisions.close)
        thresholds = Thresholds(RegionStore(searched), _threshold(settings, manifest))

        def load(model_id: str) -> LoadedPack:
            return _load(settings, packs.get(pack_of(model_id)), deployment, database, searched, thresholds, decisions)

        def renew(_: LoadedPack) -> None:
            for each in {database, searched}:
                each.reconnect()

        def active() -> str | None:
            return next(iter(models_in_use(database)), None)

        follower = ModelFollower(load(manifest.model_id), load, active, on_change=renew)
        on_close.append(follower.close)
        service = FaceService(
            follower,
            Gallery(database, manifest.model_id, max_regions=settings.enroll.max_regions),
            RegionStore(database, max_regions=settings.enroll.max_regions),
            thresholds,
            Eraser(database),
            receipt_signer(settings),
            PersonalDataStore(database, photo_vault(settings)),
            photos=StoredPhotos(database, photo_vault(settings)),
            on_close=on_close,
        )
        imports, runner = _imports(settings, database, service, deployment.schema.set_graph_aside)
        return Parts(
            settings=settings,
            database=database,
            searched=searched,
            service=service,
            administration=_administration(database),
            packs=follower,
            imports=imports,
            runner=runner,
            journal=_journal(settings, database),
            decisions=decisions,
        )
    except BaseException:
        for close in reversed(on_close):
            close()
        raise


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


def _load(
    settings: Settings,
    pack: ModelPack,
    deployment: Deployment,
    database: Database,
    searched: Database,
    thresholds: Thresholds,
    decisions: DecisionWriter | None,
) -> LoadedPack:
    with ExitStack() as opened:
        analyzer = open_analyzer(settings, pack)
        opened.callback(analyzer.close)
        most = settings.enroll.max_regions
        vault = photo_vault(settings)
        gallery = Gallery(database, pack.model_id, max_regions=most, vault=vault)
        parts = _SearchParts(settings, searched, pack.model_id, pack.dimension)
        opened.callback(parts.keeper.close)
        writer = BulkWriter(database, gallery, pack.model_id, max_regions=most, vault=vault)
        importer = Importer(
            writer,
            pack.dimension,
            large_import=deployment.schema.set_graph_aside,
            large_from=settings.search.hnsw_rebuild_from,
        )
        gate = EnrolmentGate(
            analyzer,
            min_quality=settings.enroll.min_quality,
            min_face=settings.enroll.min_face,
            images=settings.images.store,
        )
        photo_importer = PhotoImporter(
            gate,
            writer,
            max_bytes=settings.images.max_bytes,
            large_import=deployment.schema.set_graph_aside,
            large_from=settings.search.hnsw_rebuild_from,
        )
        threshold = _threshold(settings, pack.manifest)
        service = ModelService(
            analyzer,
            gate,
            gallery,
            parts.search,
            parts.retriever,
            # Of the database that is searched: it answers recognitions also while the other one is away.
            thresholds.with_default(threshold),
            importer,
            photo_importer,
            margin=settings.search.margin,
            duplicates=settings.enroll.duplicates,
            decisions=decisions,
        )
        opened.pop_all()
        return LoadedPack(pack.manifest, service, analyzer, parts.keeper, parts.audit(threshold))


def open_analyzer(settings: Settings, pack: ModelPack, threads: int | None = None) -> FaceAnalyzer:
    """threads: images worked on at once; None takes the settings'."""
    return FaceAnalyzer.open(
        pack,
        runtime=settings.model.runtime,
        threads=threads or settings.model.threads or os.cpu_count() or 1,
        limits=_image_limits(settings),
        cache_dir=settings.home / "compiled",
    )


def _image_limits(settings: Settings) -> ImageLimits:
    return ImageLimits(max_bytes=settings.images.max_bytes, max_pixels=settings.images.max_pixels)


def _threshold(settings: Settings, manifest: PackManifest) -> float:
    own = settings.search.threshold
    return manifest.threshold if own is None else own


@dataclass(frozen=True, slots=True)
class Records:
    """What can be kept without a model's files."""

    administration: Administration
    regions: Regions
    people: People
    privacy: Privacy
    journal: Journal
    photos: PhotoUpkeep


@contextmanager
def open_records(settings: Settings, manifest: PackManifest) -> Iterator[Records]:
    """Clients, keys, regions, people and what the audit log tells; the tables are made on first use. manifest: of the pack in
    use.

    Raises SettingsError, StoreError, ModelMismatchError.
    """
    with closing(Deployment(settings)) as deployment:
        deployment.upgrade(manifest.embedding.dimension)
        with deployment.connect() as database:
            manifest = pack_in_use(settings, database)
            check_database(database, manifest.model_id, manifest.embedding.dimension)
            regions = RegionStore(database, max_regions=settings.enroll.max_regions)
            thresholds = Thresholds(regions, _threshold(settings, manifest))
            photos = StoredPhotos(database, photo_vault(settings))
            yield Records(
                _administration(database),
                Regions(regions, thresholds),
                People(Gallery(database, manifest.model_id), photos),
                Privacy(Eraser(database), receipt_signer(settings), PersonalDataStore(database, photo_vault(settings))),
                _journal(settings, database),
                PhotoUpkeep(photos, _image_limits(settings)),
            )


def photo_vault(settings: Settings) -> PhotoVault:
    """With the keys of the settings. Raises SettingsError."""
    return PhotoVault(settings.images.key_bytes, settings.images.key)


def _state(database: Database, manifest: PackManifest) -> str:
    try:
        check_database(database, manifest.model_id, manifest.embedding.dimension)
    except FacewardError as exc:
        return exc.code
    return "ok"


def _journal(settings: Settings, database: Database) -> Journal:
    return Journal(
        AuditLog(database),
        DecisionStore(database),
        ClientStore(database),
        log_days=settings.audit.log_days,
        decision_days=settings.audit.decision_days,
    )


def receipt_signer(settings: Settings) -> ReceiptSigner:
    given = settings.audit.receipt_key
    return ReceiptSigner(settings.receipt_key_file, None if given is None else given.get_secret_value())


def _administration(database: Database) -> Administration:
    return Administration(ClientStore(database), KeyStore(database))


def _imports(
    settings: Settings, database: Database, service: FaceService, large_import: LargeImport
) -> tuple[Imports, JobRunner]:
    given = settings.imports
    jobs = JobStore(
        database,
        most_open=given.max_waiting,
        most_bytes=given.max_waiting_bytes,
        vault=photo_vault(settings),
    )
    runner = JobRunner(
        service,
        JobQueue(database, jobs, lease=given.lease_seconds, keep_days=given.keep_days),
        Presence(database),
        RunnerSettings(
            threads=given.threads,
            photo_workers=given.photo_workers,
            spool=given.spool,
            archives=ArchiveLimits(settings.images.max_bytes, given.max_inflated, given.max_files),
            large_from=settings.search.hnsw_rebuild_from,
        ),
        large_import=large_import,
    )
    # One that could never be kept is refused as too large, not as one for later.
    most = min(settings.api.max_import, given.max_waiting_bytes)
    return Imports(jobs, max_bytes=most, model_id=lambda: service.model_id, on_queued=runner.wake), runner


@contextmanager
def open_audit(settings: Settings, manifest: PackManifest) -> Iterator[RecallAudit]:
    """An audit of the searches of these settings, on the database that answers them; needs no model file.

    manifest: of the pack in use. Raises StoreError, ModelMismatchError.
    """
    with ExitStack() as stack:
        deployment = Deployment(settings)
        stack.callback(deployment.close)
        database = stack.enter_context(deployment.connect(settings.database.search_url))
        manifest = pack_in_use(settings, database)
        model_id, dimension = manifest.model_id, manifest.embedding.dimension
        check_database(database, model_id, dimension)
        parts = _SearchParts(settings, database, model_id, dimension)
        stack.callback(parts.keeper.close)
        yield parts.audit(_threshold(settings, manifest))


@contextmanager
def open_gallery_check(settings: Settings, manifest: PackManifest) -> Iterator[GalleryCheck]:
    """A check of the galleries; needs no model file.

    Not on the hot standby that may answer the searches: it would end a reading that takes longer than its replay can wait.

    manifest: of the pack in use. Raises StoreError, ModelMismatchError.
    """
    with closing(Deployment(settings)) as deployment, deployment.connect() as database:
        manifest = pack_in_use(settings, database)
        model_id, dimension = manifest.model_id, manifest.embedding.dimension
        check_database(database, model_id, dimension)
        yield GalleryCheck(
            GalleryScanner(database, model_id, dimension),
            Thresholds(RegionStore(database), _threshold(settings, manifest)),
            min_quality=settings.enroll.min_quality,
        )


@dataclass(frozen=True, slots=True)
class ReembeddingParts:
    """A change of the model, and what it is compared by. threshold_of: of a model, where neither region nor client has one."""

    change: ModelChange
    database: Database
    threshold_of: Callable[[str], float]


@contextmanager
def open_reembedding(settings: Settings, *, notify: Callable[[str], None] | None = None) -> Iterator[ReembeddingParts]:
    """A change of the model of the settings' database; each model is opened where it is needed.

    Raises SettingsError, StoreError, ModelMismatchError.
    """
    packs = pack_store(settings, notify)

    @contextmanager
    def embedder(model_id: str) -> Iterator[PhotoEmbedder]:
        with open_analyzer(settings, packs.get(pack_of(model_id))) as analyzer:
            yield PhotoEmbedder(analyzer, min_quality=settings.enroll.min_quality, min_face=settings.enroll.min_face)

    with closing(Deployment(settings)) as deployment:
        deployment.upgrade(packs.manifest(settings.model.pack).embedding.dimension)
        with deployment.connect() as database:
            manifest = pack_in_use(settings, database)
            check_database(database, manifest.model_id, manifest.embedding.dimension)
            change = ModelChange(database, deployment.schema, photo_vault(settings), embedder, deployment.graph)
            yield ReembeddingParts(
                change, database, lambda model_id: _threshold(settings, packs.manifest(pack_of(model_id)))
            )


def pack_store(settings: Settings, notify: Callable[[str], None] | None = None) -> PackStore:
    return PackStore(settings.home, notify=notify)
