"""64-byte sketches of a gallery in memory: a probe goes in, ids of candidates come out. Knows no database, no images.

A sketch proposes, it never decides: its candidates are re-ranked over the full embeddings by whoever asks.
"""

from faceward.sketches.cache import CachedSketch, CacheStats, ScopeState, SketchCache
from faceward.sketches.proposals import (
    LOWEST_SIMILARITY,
    candidates_for,
    hamming_bound,
    hamming_candidates_for,
    propose,
    score_floor,
)
from faceward.sketches.sketch import Candidates, Sketch, SketchBuilder, sign_codes, sketch_bytes

__all__ = [
    "LOWEST_SIMILARITY",
    "CacheStats",
    "CachedSketch",
    "Candidates",
    "ScopeState",
    "Sketch",
    "SketchBuilder",
    "SketchCache",
    "candidates_for",
    "hamming_bound",
    "hamming_candidates_for",
    "propose",
    "score_floor",
    "sign_codes",
    "sketch_bytes",
]
