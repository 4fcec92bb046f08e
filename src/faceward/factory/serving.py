"""A service, and all that a server of many clients needs, on one pool of connections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from faceward.administration import Administration
from faceward.errors import FacewardError, ModelMismatchError
from faceward.evaluation.audit import RecallAudit
from faceward.factory.deployment import Deployment
from faceward.factory.loaded_pack import LoadedPack, load_pack
from faceward.factory.models import pack_in_use, pack_of, pack_store, threshold_of
from faceward.factory.records import administration_of, journal_of, photo_vault, receipt_signer, require_client
from faceward.jobs import ArchiveLimits, Imports, JobRunner, LargeImport, RunnerSettings
from faceward.journal import Journal
from faceward.retrieval import SketchKeeper
from faceward.service import FaceService
from faceward.service.following import ModelFollower
from faceward.service.thresholds import Thresholds
from faceward.settings import Settings, load_settings
from faceward.store.database import Database
from faceward.store.decision_log import DecisionStore
from faceward.store.decision_writer import DecisionWriter
from faceward.store.embedding_models import models_in_use
from faceward.store.erasure import Eraser
from faceward.store.gallery import Gallery
from faceward.store.job_queue import JobQueue
from faceward.store.jobs import JobStore
from faceward.store.personal_data import PersonalDataStore
from faceward.store.photos import StoredPhotos
from faceward.store.presence import Presence
from faceward.store.reembeddings import models_known
from faceward.store.regions import RegionStore
from faceward.store.schema import check_database
from faceward.vision import PackManifest


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

    def model_was_changed(self) -> bool:
        """Whether the gallery was ever of another model than it is now, or was for a while."""
        return bool(models_known(self.database))

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


def open_parts(
    settings: Settings, *, notify: Callable[[str], None] | None = None, client_id: str | None = None
) -> Parts:
    """All that serves many clients, on one pool of connections. client_id: one that has to be there.

    Raises as open_service does, and UnknownClientError.
    """
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
        require_client(database, client_id)
        searched = database
        if settings.database.search_url is not None:
            searched = deployment.connect(settings.database.search_url)
            on_close.append(searched.close)
            check_database(searched, manifest.model_id, manifest.embedding.dimension)
        decisions = None
        if settings.audit.decisions == "on":
            decisions = DecisionWriter(DecisionStore(database))
            on_close.append(decisions.close)
        thresholds = Thresholds(RegionStore(searched), threshold_of(settings, manifest))

        def load(model_id: str) -> LoadedPack:
            return load_pack(
                settings, packs.get(pack_of(model_id)), deployment, database, searched, thresholds, decisions
            )

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
            administration=administration_of(database),
            packs=follower,
            imports=imports,
            runner=runner,
            journal=journal_of(settings, database),
            decisions=decisions,
        )
    except BaseException:
        for close in reversed(on_close):
            close()
        raise


def _state(database: Database, manifest: PackManifest) -> str:
    try:
        check_database(database, manifest.model_id, manifest.embedding.dimension)
    except FacewardError as exc:
        return exc.code
    return "ok"


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
