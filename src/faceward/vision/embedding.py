"""From aligned crops to unit embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faceward.errors import PackDamagedError
from faceward.types import BGRImage, Embedding
from faceward.vision.alignment import Points, align
from faceward.vision.runtimes import InferenceSession
from faceward.vision.tensors import InputConvention, image_tensor


@dataclass(frozen=True, slots=True)
class EmbeddingConvention:
    """What an embedding model of the ArcFace kind takes and gives.

    template: where the five landmarks lie in its input, in pixels. dimension: length of the embedding. min_norm: a crop
    whose embedding is shorter than this before it is brought to unit length shows no face; 0 where that is not known.
    """

    input: InputConvention
    template: tuple[tuple[float, float], ...]
    dimension: int
    min_norm: float = 0.0


class FaceEmbedder:
    """An embedding model that obeys the convention of its pack.

    Raises PackDamagedError where the model's shapes are not those of the convention.
    """

    def __init__(self, session: InferenceSession, convention: EmbeddingConvention) -> None:
        wanted = convention.input
        sides = (wanted.height, wanted.width)
        picture = (3, *sides) if wanted.layout == "nchw" else (*sides, 3)
        takes, gives = session.input_shape, session.output_shapes[0]
        fits = len(takes) == 4 and all(a in (None, b) for a, b in zip(takes[1:], picture, strict=True))
        if not fits or gives[-1] not in (None, convention.dimension):
            raise PackDamagedError(
                f"The embedding model takes {takes} and gives {gives}; its manifest says {picture} a picture and "
                f"{convention.dimension} numbers."
            )
        self._session = session
        self._convention = convention
        self.template: Points = np.array(convention.template, np.float32)
        self._any_batch = takes[0] is None

    @property
    def dimension(self) -> int:
        return self._convention.dimension

    def crop(self, pixels: BGRImage, landmarks: Points) -> BGRImage:
        """The aligned crop of a face, BGR uint8 of the model's input size. landmarks: five, in pixels of the image."""
        convention = self._convention.input
        return align(pixels, landmarks, self.template, (convention.width, convention.height))

    @property
    def min_norm(self) -> float:
        """Below this length an embedding is of no face."""
        return self._convention.min_norm

    def embed(self, crops: Sequence[BGRImage]) -> tuple[NDArray[np.float32], list[float]]:
        """The unit embeddings of aligned crops, shape (n, dimension) float32, and how long each was before."""
        unit = np.empty((len(crops), self.dimension), np.float32)
        tensors = [image_tensor(crop, self._convention.input) for crop in crops]
        if self._any_batch and tensors:
            tensors = [np.concatenate(tensors)]
        norms: list[float] = []
        for tensor in tensors:
            for raw in self._session.run(tensor)[0].reshape(len(tensor), -1):
                norm = math.sqrt(float(raw @ raw)) if len(raw) == self.dimension else 0.0
                # Zeros and NaN have no direction; they would match everybody or nobody without a word.
                if not 0.0 < norm < math.inf:
                    raise PackDamagedError(
                        f"The embedding model gave {len(raw)} numbers that are no direction; {self.dimension} finite ones "
                        "are needed."
                    )
                np.multiply(raw, np.float32(1.0 / norm), out=unit[len(norms)])
                norms.append(norm)
        return unit, norms

    def embed_one(self, crop: BGRImage) -> Embedding:
        """The unit embedding of one crop: shape (dimension,), float32."""
        embedding: Embedding = self.embed((crop,))[0][0]
        return embedding
