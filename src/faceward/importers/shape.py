"""Whether an array is one embedding: four of 128 numbers are as many as one of 512, and nobody's face."""

from __future__ import annotations

import math

from faceward.errors import InvalidEmbeddingError


def embedding_length(shape: tuple[int, ...]) -> int:
    """How many numbers the embedding has. Raises InvalidEmbeddingError for any shape but (n), (1, n) and (n, 1)."""
    if len(shape) == 1 or (len(shape) == 2 and 1 in shape):
        return math.prod(shape)
    raise InvalidEmbeddingError(
        f"The array has the shape {str(shape)[:80]}; one embedding is (n), (1, n) or (n, 1). Put each into a row of its own."
    )
