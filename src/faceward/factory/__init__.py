"""Puts the parts together from settings: the only place, beside the command line, that reads them."""

from typing import TYPE_CHECKING

from faceward.lazy import lazily

if TYPE_CHECKING:
    from faceward.factory.deployment import Deployment
    from faceward.factory.loaded_pack import LoadedPack
    from faceward.factory.models import open_analyzer, pack_in_use, pack_of, pack_store
    from faceward.factory.records import Records, open_records, photo_vault, receipt_signer
    from faceward.factory.serving import Parts, open_parts, open_service
    from faceward.factory.tasks import ReembeddingParts, open_audit, open_gallery_check, open_reembedding

__all__ = [
    "Deployment",
    "LoadedPack",
    "Parts",
    "Records",
    "ReembeddingParts",
    "open_analyzer",
    "open_audit",
    "open_gallery_check",
    "open_parts",
    "open_records",
    "open_reembedding",
    "open_service",
    "pack_in_use",
    "pack_of",
    "pack_store",
    "photo_vault",
    "receipt_signer",
]

_HOMES = {
    "Deployment": "faceward.factory.deployment",
    "LoadedPack": "faceward.factory.loaded_pack",
    "Parts": "faceward.factory.serving",
    "Records": "faceward.factory.records",
    "ReembeddingParts": "faceward.factory.tasks",
    "open_analyzer": "faceward.factory.models",
    "open_audit": "faceward.factory.tasks",
    "open_gallery_check": "faceward.factory.tasks",
    "open_parts": "faceward.factory.serving",
    "open_records": "faceward.factory.records",
    "open_reembedding": "faceward.factory.tasks",
    "open_service": "faceward.factory.serving",
    "pack_in_use": "faceward.factory.models",
    "pack_of": "faceward.factory.models",
    "pack_store": "faceward.factory.models",
    "photo_vault": "faceward.factory.records",
    "receipt_signer": "faceward.factory.records",
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _HOMES)
