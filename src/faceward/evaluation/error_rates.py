"""Which threshold gives which rate of errors, on labelled photos.

Rates as in ISO/IEC 19795-1: FMR and FNMR of comparisons (1:1), FPIR and FNIR of searches (1:N, open set). Intervals by
resampling persons, as photos of one person err together (R. Bolle, N. Ratha, S. Pankanti: Error analysis of pattern
recognition systems: the subsets bootstrap. CVIU 93, 2004).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faceward.checks import unit_embedding
from faceward.errors import InvalidValueError

MOST_PHOTOS = 20_000
"""Each is compared with each."""

THRESHOLDS = np.arange(101) / 100
"""Similarities from 0 to 1."""

_ROWS_AT_ONCE = 256
_RESAMPLES = 1_000
_LEVEL = 2.5, 97.5
_NEVER_SEEN = 3.0
"""Of n independent trials without an error: the rate is below 3/n, at 95 %."""


@dataclass(frozen=True, slots=True)
class Rate:
    """value: errors / trials. low, high: the interval of 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rates:
    """At one threshold, a similarity from which on two photos match.

    fmr: comparisons of two persons' photos that match. fnmr: of one person's that don't. fpir: searches for somebody who is
    not enrolled that find anybody. fnir: searches for somebody who is enrolled that don't find this person first.
    """

    threshold: float
    fmr: Rate
    fnmr: Rate
    fpir: Rate
    fnir: Rate

    def fpir_among(self, faces: int) -> Rate:
        """Estimated from the FMR for a region with so many faces, as if its comparisons were independent."""
        return Rate(*(_among(rate, faces) for rate in (self.fmr.value, self.fmr.low, self.fmr.high)))


@dataclass(frozen=True, slots=True)
class ErrorRates:
    """persons, photos: compared. gallery: faces that a search of `fpir` and `fnir` went through, in the mean.
    impostor_pairs, genuine_pairs: comparisons. rates: by threshold, from 0 to 1 in steps of 0.01.
    """

    persons: int
    photos: int
    gallery: int
    impostor_pairs: int
    genuine_pairs: int
    rates: tuple[Rates, ...]

    def at(self, threshold: float) -> Rates:
        """Of the next threshold above that was measured."""
        return self.rates[int(np.searchsorted(THRESHOLDS, min(threshold, 1.0) - 1e-9))]

    def threshold_for(self, faces: int, fpir: float) -> float | None:
        """The lowest threshold at which a region of so many faces names at most this share of strangers, as far as the
        photos can tell (the upper end of the interval); None where they are of too few people to show it.
        """
        low_enough = (each.threshold for each in self.rates if each.fpir_among(faces).high <= fpir)
        return next(low_enough, None)


def error_rates(
    embeddings: Sequence[NDArray[np.float32]],
    persons: Sequence[str],
    *,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> ErrorRates:
    """Compare each photo with each, and search for each among all the others.

    embeddings: each float32 of one length. persons: whose each is. seed: of the resampling. progress: told how many photos
    were compared. Raises InvalidValueError, InvalidEmbeddingError.
    """
    names, whose = np.unique(np.asarray(persons, dtype=np.str_), return_inverse=True)
    if len(embeddings) != len(persons):
        raise InvalidValueError("the number of embeddings", len(embeddings), f"that of the persons, {len(persons)}")
    if not 2 <= len(embeddings) <= MOST_PHOTOS:
        raise InvalidValueError("the number of photos with a face", len(embeddings), f"from 2 to {MOST_PHOTOS}")
    photos = np.bincount(whose)
    if len(names) < 2 or photos.max() < 2:
        raise InvalidValueError(
            "the photos", f"of {len(names)} persons", "of two persons or more, with two photos of one or more"
        )
    length = len(embeddings[0])
    rows = np.stack([unit_embedding(row, length) for row in embeddings])
    counted = _compare(rows, whose, len(names), progress)
    mated = counted.mated
    rng = np.random.default_rng(seed)
    # The same draws of persons for every rate.
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=_RESAMPLES).astype(np.float64)
    others = photos * (len(rows) - photos)
    own = photos * (photos - 1)
    person_pairs = len(names) * (len(names) - 1) // 2
    columns = (
        _rates(counted.impostor, others, draws, person_pairs),
        _rates(counted.genuine, own, draws, int((photos > 1).sum())),
        _rates(counted.found, photos, draws, len(names)),
        _rates(counted.missed, mated, draws, int((photos > 1).sum())),
    )
    return ErrorRates(
        persons=len(names),
        photos=len(rows),
        gallery=round(float(len(rows) - (photos * photos).sum() / len(rows))),
        impostor_pairs=int(others.sum()) // 2,
        genuine_pairs=int(own.sum()) // 2,
        rates=tuple(Rates(float(t), *rates) for t, *rates in zip(THRESHOLDS, *columns, strict=True)),
    )


@dataclass(frozen=True, slots=True)
class _Counted:
    """Errors by person and threshold, shape (persons, thresholds). mated: searches for who is enrolled, by person."""

    impostor: NDArray[np.int64]
    genuine: NDArray[np.int64]
    found: NDArray[np.int64]
    missed: NDArray[np.int64]
    mated: NDArray[np.int64]


def _compare(
    rows: NDArray[np.float32], whose: NDArray[np.intp], persons: int, progress: Callable[[int], None] | None
) -> _Counted:
    shape = persons, len(THRESHOLDS)
    impostor, genuine, found, missed = (np.zeros(shape, np.int64) for _ in range(4))
    mated = np.zeros(persons, np.int64)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = rows[start : start + _ROWS_AT_ONCE]
        similar = block @ rows.T
        similar[np.arange(len(block)), np.arange(start, start + len(block))] = -np.inf  # a photo with itself
        for person, row in zip(whose[start : start + len(block)], similar, strict=True):
            same = whose == person
            own, other = row[same], row[~same]
            own = own[own > -np.inf]
            impostor[person] += _at_or_above(other)
            genuine[person] += len(own) - _at_or_above(own)
            stranger = other.max()
            found[person] += stranger >= THRESHOLDS
            if len(own):
                mated[person] += 1
                missed[person] += (own.max() < THRESHOLDS) | (stranger > own.max())
        if progress is not None:
            progress(start + len(block))
    return _Counted(impostor, genuine, found, missed, mated)


def _at_or_above(similarities: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many reach each threshold."""
    reached = np.searchsorted(THRESHOLDS, similarities, side="right")
    counts = np.bincount(reached, minlength=len(THRESHOLDS) + 1)
    return np.asarray(counts[::-1].cumsum()[::-1][1:], dtype=np.int64)


def _rates(
    errors: NDArray[np.int64], trials: NDArray[np.int64], draws: NDArray[np.float64], independent: int
) -> list[Rate]:
    """Of each threshold. errors: shape (persons, thresholds). trials: by person. draws: how often a resample has each
    person. independent: trials that are, by which a rate of which no error was seen is bounded.
    """
    values = errors.sum(axis=0) / trials.sum()
    drawn = draws @ trials
    resampled = (draws @ errors)[drawn > 0] / drawn[drawn > 0, np.newaxis]
    low, high = np.percentile(resampled, _LEVEL, axis=0)
    high = np.where(values > 0, high, np.maximum(high, min(1.0, _NEVER_SEEN / independent)))
    # What is below a bound where errors are more often is below it where they are rarer.
    rarer_above = values[0] >= values[-1]
    high = np.minimum.accumulate(high) if rarer_above else np.minimum.accumulate(high[::-1])[::-1]
    return [Rate(*each) for each in zip(values.tolist(), low.tolist(), high.tolist(), strict=True)]


def _among(rate: float, faces: int) -> float:
    return float(-np.expm1(faces * np.log1p(-min(rate, 1 - 1e-12))))
