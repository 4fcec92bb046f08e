"""How many candidates a search needs, and which.

What a score says. For a face at cosine s of a probe of unit length, the score is a + e with a = sqrt(2 d / pi) s and an
error e of standard deviation 0.60 at s = 0, 0.56 at 0.40, 0.50 at 0.58 and 0.45 at 0.70, whatever the dimension d:
signs keep sqrt(2 / pi) of a value on average, and lose 1 - 2 / pi of its variance. Galleries drawn from the
eigen-spectrum of real embeddings gave these figures, and 100 real photos of 10 people the same (0.59 for impostors,
0.43 for genuine pairs of mean similarity 0.71).

How many are enough. Rank of the true nearest face, for probes whose enrolled photo is at exactly that similarity (where
an impostor is nearer, and at 0.45 in a gallery of a million one is for half of the probes, that impostor is the true
nearest). `benchmarks/candidates.py`: 4,000 probes against one gallery of each size, 250 enrolled photos drawn for each,
so "0.9999" is the number of candidates that misses one of ten thousand. In a tie the true nearest counts as the last.

    faces       nearest at 0.45     nearest at 0.40     plain Hamming, 0.45     plain Hamming, 0.40
                0.9995   0.9999     0.9995   0.9999     0.9995   0.9999         0.9995   0.9999
    1,000            3        5          7       10         11       18             28       42
    3,000            6        9         16       20         27       47             91      118
    10,000          13       18         28       46         76      139            251      344
    30,000          28       36         65       95        207      376            529      859
    100,000         48       83        175      199        598     1106           2841     3780
    300,000        121      185        284      413       1571     2840           5235    >8000
    1,000,000      295      400        625      924       5172    >8000          >8000    >8000

To have a face at 0.40 among the candidates however many impostors are nearer, takes 0.8 % of the gallery (0.9999); at
0.45 0.23 %, at 0.50 0.045 %, at 0.58 14 of a million, at 0.70 one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from faceward.sketches.sketch import Candidates, Sketch

LOWEST_SIMILARITY = 0.40
"""The similarity from which the candidates are meant to hold the nearest face."""
_ERROR = 2.1
"""3.7 standard deviations of a score at a similarity of 0.40: one face in ten thousand lies lower."""
_SPREAD = 3.0
"""How far the nearest face's score may lie below the best score: measured, missed by 2 in 100,000 at a million faces."""

_FARTHEST = 44
"""Bits of 512 above the average Hamming distance: five standard deviations."""


def candidates_for(faces: int, dimension: int = 512) -> int:
    """The most candidates that a search by score takes from a gallery of that many faces.

    Half as many again as the 0.9999 at 0.40 of the table above, and 32. The table is of 512 dimensions; fewer are
    given more candidates in proportion, which was not measured.
    """
    return math.ceil((32 + 16 * math.pow(faces / 1000, 0.64)) * max(1.0, 512 / dimension))


def hamming_candidates_for(faces: int) -> int:
    """The same for a search by plain Hamming distance between the codes, as `code <~> ...` in SQL."""
    return math.ceil(32 + 48 * math.pow(faces / 1000, 0.95))


def hamming_bound(similarity: float, dimension: int = 512) -> int:
    """The most sign bits in which a probe and a face at that similarity differ, but for one of a million.

    On average they differ in d arccos(s) / pi. The standard deviation is 8.7 of 512 bits, at 0.25 as at 0.58; of 2,400,000
    pairs at 0.35, 0.40 and 0.50, drawn from the spectrum of real embeddings, one lay more than 44 bits above the average.
    """
    average = dimension * math.acos(min(1.0, max(-1.0, similarity))) / math.pi
    return math.ceil(average + _FARTHEST * math.sqrt(dimension / 512))


def score_floor(similarity: float, dimension: int = 512) -> float:
    """The score that all but one in ten thousand faces at that similarity reach, for a probe of unit length."""
    return math.sqrt(2 * dimension / math.pi) * similarity - _ERROR


def propose(
    sketch: Sketch,
    probe: NDArray[np.float32],
    *,
    similarity: float = LOWEST_SIMILARITY,
    least: int = 32,
    most: int | None = None,
) -> Candidates:
    """The faces worth a re-rank: many where several are about as good, few where one stands out.

    All whose score is near the best one and high enough for `similarity`, but at least `least` and at most `most`
    (`candidates_for` the sketch where None). probe: float32, unit length. Raises InvalidEmbeddingError.
    """
    most = candidates_for(len(sketch), sketch.dimension) if most is None else most
    found = sketch.search(probe, max(least, most))
    if not len(found):
        return found
    bound = max(float(found.scores[0]) - _SPREAD, score_floor(similarity, sketch.dimension))
    kept = max(least, int(np.searchsorted(-found.scores, -bound, side="right")))
    return Candidates(found.ids[:kept], found.scores[:kept])
