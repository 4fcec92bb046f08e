"""Faces in images: decoding, model packs, and FaceAnalyzer. Knows no database and reads no settings."""

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
