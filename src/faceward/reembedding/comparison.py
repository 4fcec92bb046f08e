"""What a change of the model would change: stored faces as probes against their region without themselves, by both models.

A person with several photos should be found by each of them, one with a single photo by nobody. The nearest are found by
sign bits and compared in full, as the search's exact strategy does it; nothing is written, and the gallery goes on serving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from faceward.errors import ConflictError
from faceward.sketches import hamming_candidates_for
from faceward.store import shadow as tables
from faceward.store.comparing import Near, choose_faces, count_made, nearest, region_sizes
from faceward.store.database import Database
from faceward.store.reembeddings import Reembedding
from faceward.store.regions import RegionStore

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
_AT_ONCE = 50
_LISTED = 1_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whom a probe finds: the person, or None where nobody reaches the threshold. similarity: of the nearest."""

    person_id: int | None
    similarity: float | None


@dataclass(frozen=True, slots=True)
class ModelScores:
    """What one model does with the sampled faces.

    genuine: percentiles of the similarity to the nearest other photo of the same person, of the probes that have one.
    impostor: to the nearest face of anybody else in the region. right: of the probes that have one found their person; missed:
    of these found nobody; wrong: of all found somebody else.
    """

    model_id: str
    threshold: float
    genuine: Mapping[int, float]
    impostor: Mapping[int, float]
    right: int
    missed: int
    wrong: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A face that would find another person, or somebody instead of nobody, or nobody any more."""

    client_id: str
    region: str
    face_id: int
    person_id: int
    before: Outcome
    after: Outcome


@dataclass(frozen=True, slots=True)
class Comparison:
    """faces: sampled. with_others: of these whose person has further photos. own_thresholds: regions and clients whose own
    threshold was set for the model before, and decides under both. differences: the first thousand of `different`.
    """

    faces: int
    with_others: int
    before: ModelScores
    after: ModelScores
    own_thresholds: int
    different: int
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class _Probe:
    client_id: str
    region: str
    face_id: int
    person_id: int
    threshold: float | None


def compare(
    database: Database,
    change: Reembedding,
    thresholds: tuple[float, float],
    *,
    sample: int = 2_000,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Compare the model in use with the other one.

    thresholds: of the two, where neither region nor client has its own. sample: the most faces, spread over all tenants.
    Raises ConflictError where the other one has made none yet.
    """
    tenants = tables.tenants(database)
    probes: list[_Probe] = []
    own_thresholds = 0
    pairs: list[tuple[Near, Near]] = []
    made = {client_id: count_made(database, client_id, change.shadow) for client_id in tenants}
    if not any(made.values()):
        raise ConflictError(
            f"The gallery has no face by {change.model_of_shadow} yet: there is nothing to compare. `faceward reembed status "
            "--faces` says why."
        )
    stride = max(1, -(-sum(made.values()) // sample))
    numbered = 0
    for client_id in tenants:
        own = RegionStore(database).thresholds(client_id)
        own_thresholds += len(own.regions) + (own.client is not None)
        if not made[client_id]:
            continue
        with database.transaction(client_id) as tx:
            chosen = choose_faces(tx, client_id, change.shadow, stride, numbered)
            sizes = region_sizes(tx, client_id)
        numbered += made[client_id]
        for region, person_ids in _by_region(chosen):
            own_threshold = own.regions.get(region, own.client)
            limit = hamming_candidates_for(sizes.get(region, 0))
            for start in range(0, len(person_ids), _AT_ONCE):
                part = person_ids[start : start + _AT_ONCE]
                ids = [face_id for face_id, _ in part]
                with database.transaction(client_id) as tx:
                    tx.exec_driver_sql("SET LOCAL statement_timeout = 0")
                    before = nearest(tx, client_id, tables.LIVE, ids, limit + _AT_ONCE)
                    after = nearest(tx, client_id, change.shadow, ids, limit + _AT_ONCE)
                for face_id, person_id in part:
                    if face_id in before and face_id in after:  # else deleted meanwhile
                        probes.append(_Probe(client_id, region, face_id, person_id, own_threshold))
                        pairs.append((before[face_id], after[face_id]))
                if progress is not None:
                    progress(len(probes), min(sample, sum(made.values())))
    return _report(change, thresholds, probes, pairs, own_thresholds)


def _outcome(near: Near, person_id: int, threshold: float) -> Outcome:
    found = [(near.genuine, person_id), (near.impostor, near.other)]
    known = [(similarity, person) for similarity, person in found if similarity is not None]
    if not known:
        return Outcome(None, None)
    similarity, person = max(known, key=lambda one: one[0])
    return Outcome(person if similarity >= threshold else None, round(similarity, 5))


def _report(
    change: Reembedding,
    thresholds: tuple[float, float],
    probes: Sequence[_Probe],
    pairs: Sequence[tuple[Near, Near]],
    own_thresholds: int,
) -> Comparison:
    outcomes = [
        tuple(
            _outcome(near, probe.person_id, default if probe.threshold is None else probe.threshold)
            for near, default in zip(pair, thresholds, strict=True)
        )
        for probe, pair in zip(probes, pairs, strict=True)
    ]
    models = (change.model_of_live, change.model_of_shadow)
    scores = [
        _scores(models[k], thresholds[k], probes, [pair[k] for pair in pairs], [each[k] for each in outcomes])
        for k in (0, 1)
    ]
    differences = [
        Difference(probe.client_id, probe.region, probe.face_id, probe.person_id, before, after)
        for probe, (before, after) in zip(probes, outcomes, strict=True)
        if before.person_id != after.person_id
    ]
    return Comparison(
        faces=len(probes),
        with_others=sum(pair[0].genuine is not None for pair in pairs),
        before=scores[0],
        after=scores[1],
        own_thresholds=own_thresholds,
        different=len(differences),
        differences=tuple(differences[:_LISTED]),
    )


def _scores(
    model_id: str, threshold: float, probes: Sequence[_Probe], near: Sequence[Near], outcomes: Sequence[Outcome]
) -> ModelScores:
    right = missed = wrong = 0
    for probe, each, outcome in zip(probes, near, outcomes, strict=True):
        if outcome.person_id is None:
            missed += each.genuine is not None
        elif outcome.person_id == probe.person_id:
            right += 1
        else:
            wrong += 1
    return ModelScores(
        model_id,
        threshold,
        _percentiles([each.genuine for each in near]),
        _percentiles([each.impostor for each in near]),
        right,
        missed,
        wrong,
    )


def _percentiles(values: Sequence[float | None]) -> dict[int, float]:
    known = [value for value in values if value is not None]
    if not known:
        return {}
    return {p: round(float(v), 4) for p, v in zip(PERCENTILES, np.percentile(known, PERCENTILES), strict=True)}


def _by_region(chosen: Sequence[tuple[str, int, int]]) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    regions: dict[str, list[tuple[int, int]]] = {}
    for region, face_id, person_id in chosen:
        regions.setdefault(region, []).append((face_id, person_id))
    yield from regions.items()
