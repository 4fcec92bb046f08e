"""What can be kept without a model's files: clients, keys, regions, people, the audit log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from faceward.administration import Administration
from faceward.checks import DEFAULT_CLIENT
from faceward.factory.deployment import Deployment
from faceward.factory.models import image_limits, pack_in_use, threshold_of
from faceward.journal import Journal
from faceward.photo_upkeep import PhotoUpkeep
from faceward.receipts import ReceiptSigner
from faceward.service.people import People
from faceward.service.privacy import Privacy
from faceward.service.regions import Regions
from faceward.service.thresholds import Thresholds
from faceward.settings import Settings
from faceward.store.api_keys import KeyStore
from faceward.store.audit_log import AuditLog
from faceward.store.clients import ClientStore
from faceward.store.database import Database
from faceward.store.decision_log import DecisionStore
from faceward.store.erasure import Eraser
from faceward.store.gallery import Gallery
from faceward.store.personal_data import PersonalDataStore
from faceward.store.photo_vault import PhotoVault
from faceward.store.photos import StoredPhotos
from faceward.store.regions import RegionStore
from faceward.store.schema import check_database
from faceward.vision import PackManifest


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
def open_records(settings: Settings, manifest: PackManifest, *, client_id: str | None = None) -> Iterator[Records]:
    """Clients, keys, regions, people and what the audit log tells; the tables are made on first use. manifest: of the pack in
    use. client_id: one that has to be there.

    Raises SettingsError, StoreError, ModelMismatchError, UnknownClientError.
    """
    with closing(Deployment(settings)) as deployment:
        deployment.upgrade(manifest.embedding.dimension)
        with deployment.connect() as database:
            manifest = pack_in_use(settings, database)
            check_database(database, manifest.model_id, manifest.embedding.dimension)
            require_client(database, client_id)
            regions = RegionStore(database, max_regions=settings.enroll.max_regions)
            thresholds = Thresholds(regions, threshold_of(settings, manifest))
            photos = StoredPhotos(database, photo_vault(settings))
            yield Records(
                administration_of(database),
                Regions(regions, thresholds),
                People(Gallery(database, manifest.model_id), photos),
                Privacy(Eraser(database), receipt_signer(settings), PersonalDataStore(database, photo_vault(settings))),
                journal_of(settings, database),
                PhotoUpkeep(photos, image_limits(settings)),
            )


def photo_vault(settings: Settings) -> PhotoVault:
    """With the keys of the settings. Raises SettingsError."""
    return PhotoVault(settings.images.key_bytes, settings.images.key)


def receipt_signer(settings: Settings) -> ReceiptSigner:
    given = settings.audit.receipt_key
    return ReceiptSigner(settings.receipt_key_file, None if given is None else given.get_secret_value())


def journal_of(settings: Settings, database: Database) -> Journal:
    return Journal(
        AuditLog(database),
        DecisionStore(database),
        ClientStore(database),
        log_days=settings.audit.log_days,
        decision_days=settings.audit.decision_days,
    )


def require_client(database: Database, client_id: str | None) -> None:
    """A client that is misspelt would pass for an empty one. None: any will do.

    `default` passes too: it comes with the first enrolment, and until then nobody misspelt it. Raises UnknownClientError.
    """
    if client_id is not None and client_id != DEFAULT_CLIENT:
        administration_of(database).get_client(client_id)


def administration_of(database: Database) -> Administration:
    return Administration(ClientStore(database), KeyStore(database))
