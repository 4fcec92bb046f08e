"""Change of the embedding model without a gap: filled beside the live gallery, compared, cut over, rolled back."""

from faceward.reembedding.comparison import Comparison, ModelScores, compare
from faceward.reembedding.exchange import Exchanged
from faceward.reembedding.filling import FillSettings
from faceward.reembedding.model_change import ChangeStatus, ModelChange
from faceward.reembedding.photo_embedder import PhotoEmbedder

__all__ = [
    "ChangeStatus",
    "Comparison",
    "Exchanged",
    "FillSettings",
    "ModelChange",
    "ModelScores",
    "PhotoEmbedder",
    "compare",
]
