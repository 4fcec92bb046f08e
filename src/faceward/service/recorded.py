"""Decisions on their way to the log of decisions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

from faceward.actors import current_actor
from faceward.store.decision_log import Compared, NewDecision
from faceward.types import Candidate, FaceMatch, Recognition, Threshold, Verification

_MOST_CANDIDATES = 5


def of_recognition(found: Recognition) -> list[NewDecision]:
    """One decision for each face."""
    now, actor = dt.datetime.now(dt.UTC), current_actor()
    return [
        NewDecision(
            found.client_id,
            now,
            actor,
            "recognize",
            found.regions,
            face.threshold.value,
            face.threshold.source,
            face.decision,
            _compared(face),
        )
        for face in found.faces
    ]


def of_search(
    client_id: str, limits: Mapping[str, Threshold], candidates: Sequence[Candidate], found: Sequence[Candidate]
) -> NewDecision:
    """limits: of each region that was searched. candidates: the nearest persons, found: those at or above the threshold."""
    about = next(iter([*found, *candidates]), None)
    limit = next(iter(limits.values())) if about is None else limits[about.region]
    return NewDecision(
        client_id,
        dt.datetime.now(dt.UTC),
        current_actor(),
        "search",
        tuple(limits),
        limit.value,
        limit.source,
        "match" if found else "unknown",
        _nearest([*candidates[:_MOST_CANDIDATES], *found[:1]]),
    )


def of_verification(client_id: str, found: Verification, region: str | None, person_id: int | None) -> NewDecision:
    """region, person_id: of the enrolled person; None where two photos were compared."""
    compared: tuple[Compared, ...] = ()
    if person_id is not None and found.face_id is not None:
        compared = (Compared(person_id, found.face_id, found.similarity),)
    return NewDecision(
        client_id,
        dt.datetime.now(dt.UTC),
        current_actor(),
        "verify",
        () if region is None else (region,),
        found.decided_by.value,
        found.decided_by.source,
        "verified" if found.verified else "rejected",
        compared,
    )


def _compared(face: FaceMatch) -> tuple[Compared, ...]:
    """The nearest few, and whoever the decision is about."""
    about = [each for each in (face.match, face.rival) if each is not None]
    return _nearest([*face.candidates[:_MOST_CANDIDATES], *about])


def _nearest(candidates: Sequence[Candidate]) -> tuple[Compared, ...]:
    """Each person once."""
    named: dict[int, Candidate] = {}
    for each in candidates:
        named.setdefault(each.person_id, each)
    return tuple(Compared(each.person_id, each.face_id, each.similarity) for each in named.values())
