"""Faces in images: decoding, model packs, and FaceAnalyzer. Knows no database and reads no settings."""

from typing import TYPE_CHECKING

from faceward.lazy import lazily

if TYPE_CHECKING:
    from faceward.vision.analyzer import DEFAULT_MAX_FACES, FaceAnalyzer, StageTimer
    from faceward.vision.crops import crop_around
    from faceward.vision.embedding import EmbeddingConvention, FaceEmbedder
    from faceward.vision.fetch import Notify, Progress
    from faceward.vision.images import DecodedImage, ImageLimits, decode_image, read_image_file
    from faceward.vision.model_packs import DEFAULT_PACK, ModelPack, PackStatus, PackStore
    from faceward.vision.pack_manifest import MANIFEST_NAME, Licence, PackManifest
    from faceward.vision.runtimes import InferenceSession, available_runtimes, open_session
    from faceward.vision.sample_photos import fetch_sample_photos

__all__ = [
    "DEFAULT_MAX_FACES",
    "DEFAULT_PACK",
    "MANIFEST_NAME",
    "DecodedImage",
    "EmbeddingConvention",
    "FaceAnalyzer",
    "FaceEmbedder",
    "ImageLimits",
    "InferenceSession",
    "Licence",
    "ModelPack",
    "Notify",
    "PackManifest",
    "PackStatus",
    "PackStore",
    "Progress",
    "StageTimer",
    "available_runtimes",
    "crop_around",
    "decode_image",
    "fetch_sample_photos",
    "open_session",
    "read_image_file",
]

_HOMES = {
    "DEFAULT_MAX_FACES": "faceward.vision.analyzer",
    "DEFAULT_PACK": "faceward.vision.model_packs",
    "DecodedImage": "faceward.vision.images",
    "EmbeddingConvention": "faceward.vision.embedding",
    "FaceAnalyzer": "faceward.vision.analyzer",
    "FaceEmbedder": "faceward.vision.embedding",
    "ImageLimits": "faceward.vision.images",
    "InferenceSession": "faceward.vision.runtimes",
    "Licence": "faceward.vision.pack_manifest",
    "MANIFEST_NAME": "faceward.vision.pack_manifest",
    "ModelPack": "faceward.vision.model_packs",
    "Notify": "faceward.vision.fetch",
    "PackManifest": "faceward.vision.pack_manifest",
    "PackStatus": "faceward.vision.model_packs",
    "PackStore": "faceward.vision.model_packs",
    "Progress": "faceward.vision.fetch",
    "StageTimer": "faceward.vision.analyzer",
    "available_runtimes": "faceward.vision.runtimes",
    "crop_around": "faceward.vision.crops",
    "decode_image": "faceward.vision.images",
    "fetch_sample_photos": "faceward.vision.sample_photos",
    "open_session": "faceward.vision.runtimes",
    "read_image_file": "faceward.vision.images",
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _HOMES)
