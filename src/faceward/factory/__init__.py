"""Puts the parts together from settings: the only place, beside the command line, that reads them."""

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
