"""Tasks of their own: the audit of the recall, the check of the galleries, the change of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from faceward.evaluation.audit import RecallAudit
from faceward.evaluation.gallery_check import GalleryCheck
from faceward.factory.deployment import Deployment
from faceward.factory.loaded_pack import SearchParts
from faceward.factory.models import open_analyzer, pack_in_use, pack_of, pack_store, threshold_of
from faceward.factory.records import photo_vault, require_client
from faceward.reembedding import ModelChange, PhotoEmbedder
from faceward.service.thresholds import Thresholds
from faceward.settings import Settings
from faceward.store.database import Database
from faceward.store.gallery_scan import GalleryScanner
from faceward.store.regions import RegionStore
from faceward.store.schema import check_database
from faceward.vision import PackManifest


@contextmanager
def open_audit(settings: Settings, manifest: PackManifest, *, client_id: str | None = None) -> Iterator[RecallAudit]:
    """An audit of the searches of these settings, on the database that answers them; needs no model file.

    manifest: of the pack in use. client_id: one that has to be there. Raises StoreError, ModelMismatchError,
    UnknownClientError.
    """
    with ExitStack() as stack:
        deployment = Deployment(settings)
        stack.callback(deployment.close)
        database = stack.enter_context(deployment.connect(settings.database.search_url))
        manifest = pack_in_use(settings, database)
        model_id, dimension = manifest.model_id, manifest.embedding.dimension
        check_database(database, model_id, dimension)
        require_client(database, client_id)
        parts = SearchParts(settings, database, model_id, dimension)
        stack.callback(parts.keeper.close)
        yield parts.audit(threshold_of(settings, manifest))


@contextmanager
def open_gallery_check(
    settings: Settings, manifest: PackManifest, *, client_id: str | None = None
) -> Iterator[GalleryCheck]:
    """A check of the galleries; needs no model file.

    Not on the hot standby that may answer the searches: it would end a reading that takes longer than its replay can wait.

    manifest: of the pack in use. client_id: one that has to be there. Raises StoreError, ModelMismatchError,
    UnknownClientError.
    """
    with closing(Deployment(settings)) as deployment, deployment.connect() as database:
        manifest = pack_in_use(settings, database)
        model_id, dimension = manifest.model_id, manifest.embedding.dimension
        check_database(database, model_id, dimension)
        require_client(database, client_id)
        yield GalleryCheck(
            GalleryScanner(database, model_id, dimension),
            Thresholds(RegionStore(database), threshold_of(settings, manifest)),
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
                change, database, lambda model_id: threshold_of(settings, packs.manifest(pack_of(model_id)))
            )
