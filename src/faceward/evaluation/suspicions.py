"""What the similarities of a region's faces give rise to suspect, worst first, and in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from faceward.commands import command, merge_command
from faceward.evaluation.nearest import NOBODY, Ints, Mask, Nearest
from faceward.evaluation.noise_model import Rows
from faceward.service.decisions import shown
from faceward.store.gallery_scan import FiledFaces
from faceward.types import Threshold

FindingKind: TypeAlias = Literal["wrong_person", "enrolled_twice", "alike", "poor_photo"]
KINDS: tuple[FindingKind, ...] = get_args(FindingKind)


@dataclass(frozen=True, slots=True)
class Finding:
    """A suspicion about a face of a person, or about the person by this face.

    similarity: to the other person's face. own_similarity: to the nearest other photo of its own person; of a wrong_person,
    to the nearest of those that stay there. Both are None where there is none. other_*: whom it is held against; None of a
    poor photo. quality: of the face, as stored. reason: what the suspicion rests on; proposal: what to do if it is right; both
    in words.
    """

    kind: FindingKind
    region: str
    person_id: int
    face_id: int
    name: str
    similarity: float | None
    own_similarity: float | None
    quality: float | None
    other_region: str | None
    other_person_id: int | None
    other_face_id: int | None
    other_name: str | None
    reason: str
    proposal: str


@dataclass(frozen=True, slots=True, eq=False)
class CheckedRegion:
    """A region and what its faces met there and elsewhere. wrong: those that seem to be another person's; no other face is
    held against them. by_chance: the similarity that strangers may reach.
    """

    name: str
    threshold: Threshold
    faces: FiledFaces
    met: Nearest
    elsewhere: Nearest
    wrong: Mask
    by_chance: float


@dataclass(frozen=True, slots=True)
class _Found:
    """A finding before it is put into words. badness: the larger, the worse."""

    badness: float
    kind: FindingKind
    person_id: int
    face_id: int
    similarity: float
    own_similarity: float
    quality: float
    other_person_id: int
    other_face_id: int


@dataclass(slots=True)
class Suspicions:
    """Counts all, keeps the worst. most: of each kind. min_quality: the least stored quality of a photo that is not poor."""

    most: int
    min_quality: float
    counts: dict[FindingKind, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    _worst: dict[FindingKind, list[_Found]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def add_region(self, region: CheckedRegion) -> None:
        """What the faces of a region say of each other."""
        faces, met = region.faces, region.met
        self._add("wrong_person", faces, met, np.flatnonzero(region.wrong), met.other)
        self._add_pairs(faces, met, ~region.wrong, region.by_chance)
        poor = poor_photos(faces, met, ~region.wrong, region.threshold.value, self.min_quality)
        # The furthest from their own person's first, then those of poor quality alone.
        is_far = (met.own > NOBODY) & (met.own < region.threshold.value)
        far = np.where(is_far, -met.own, -2 - faces.quality)
        self._add("poor_photo", faces, met, np.flatnonzero(poor), far)

    def add_elsewhere(self, regions: Sequence[CheckedRegion], by_chance: float) -> None:
        """What the faces of the regions met in the others. by_chance: the similarity that strangers of two may reach."""
        order = np.argsort(np.concatenate([region.faces.ids for region in regions]), kind="stable")

        def all_of(parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
            return np.concatenate(list(parts))[order]

        faces = FiledFaces(
            ids=all_of(region.faces.ids for region in regions),
            persons=all_of(region.faces.persons for region in regions),
            quality=all_of(region.faces.quality for region in regions),
        )
        met = Nearest(
            own=all_of(region.met.own for region in regions),
            other=all_of(region.elsewhere.other for region in regions),
            other_face=all_of(region.elsewhere.other_face for region in regions),
            other_person=all_of(region.elsewhere.other_person for region in regions),
        )
        self._add_pairs(faces, met, ~all_of(region.wrong for region in regions), by_chance)

    def person_ids(self) -> list[int]:
        """Of all that are kept."""
        kept = [found for worst in self._worst.values() for found in worst]
        return sorted({i for found in kept for i in (found.person_id, found.other_person_id) if i})

    def worded(
        self, client_id: str, persons: Mapping[int, tuple[str, str]], thresholds: Mapping[str, Threshold]
    ) -> tuple[Finding, ...]:
        """persons: name and region by id. thresholds: of the regions."""
        words = _Words(client_id, persons, thresholds, self.min_quality)
        return tuple(words.finding(found) for kind in KINDS for found in self._worst[kind])

    def _add_pairs(self, faces: FiledFaces, met: Nearest, counted: Mask, by_chance: float) -> None:
        at = nearest_pairs(faces, met, counted)
        twice = met.other[at] >= by_chance
        self._add("enrolled_twice", faces, met, at[twice], met.other)
        self._add("alike", faces, met, at[~twice], met.other)

    def _add(self, kind: FindingKind, faces: FiledFaces, met: Nearest, at: Ints, badness: NDArray[np.float32]) -> None:
        self.counts[kind] += len(at)
        worst = at[np.argsort(-badness[at], kind="stable")[: self.most]]
        made = [_found(kind, faces, met, n, float(badness[n])) for n in worst.tolist()]
        self._worst[kind] = sorted(self._worst[kind] + made, key=lambda found: -found.badness)[: self.most]


def _found(kind: FindingKind, faces: FiledFaces, met: Nearest, at: int, badness: float) -> _Found:
    person, face, other, other_face = (
        int(part[at]) for part in (faces.persons, faces.ids, met.other_person, met.other_face)
    )
    similarity = float(met.other[at])
    if kind == "poor_photo":
        other, other_face = 0, 0
    elif kind != "wrong_person" and person < other:  # of two persons the later one is held against the earlier
        person, face, other, other_face = other, other_face, person, face
        at = int(np.searchsorted(faces.ids, face))
    own, quality = float(met.own[at]), float(faces.quality[at])
    return _Found(badness, kind, person, face, similarity, own, quality, other, other_face)


def wrong_persons(faces: FiledFaces, met: Nearest, limit: float, rows_of: Callable[[Ints], Rows]) -> Mask:
    """Faces that another person would be recognised by, and the rest of their own person's would not, even by way of others
    of them. rows_of: the embeddings of faces by their ids, rising. `met.own` of those found is then to that rest.

    Where that rest is none, or fewer faces that are unlike each other, it is the persons who are alike.
    """
    near = np.flatnonzero(met.other_face > 0)
    pairs = np.stack([faces.persons[near], met.other_person[near]], axis=1)
    pairs, which, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    alone = np.zeros(len(faces), dtype=bool)
    alone[near[counts[which.ravel()] == 1]] = True
    wrong = alone & (met.own > NOBODY) & (met.own < limit)
    own = met.own.copy()
    order = np.argsort(faces.persons, kind="stable")
    filed = faces.persons[order]
    for person, other in pairs[counts > 1]:
        at = order[np.searchsorted(filed, person, "left") : np.searchsorted(filed, person, "right")]
        rest = met.other_person[at] != other
        if not rest.any():
            continue
        rows = rows_of(faces.ids[at])
        reached = rest
        while reached.any():
            reached = ~rest & (rows @ rows[reached].T >= limit).any(axis=1)
            rest = rest | reached
        astray, stay = at[~rest], at[rest]
        if len(astray) and (len(astray) <= len(stay) or (own[stay] >= limit).any()):
            wrong[astray] = True
            met.own[astray] = (rows[~rest] @ rows[rest].T).max(axis=1)
    return wrong


def nearest_pairs(faces: FiledFaces, met: Nearest, counted: Mask) -> Ints:
    """Places of faces, one for each pair of persons near to each other: the face by which they are nearest.

    counted: faces that speak for their person.
    """
    near = np.flatnonzero((met.other_face > 0) & counted)
    one = np.minimum(faces.persons[near], met.other_person[near])
    other = np.maximum(faces.persons[near], met.other_person[near])
    order = np.lexsort((faces.ids[near], -met.other[near], other, one))
    one, other = one[order], other[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (one[1:] != one[:-1]) | (other[1:] != other[:-1])
    return near[order[first]]


def poor_photos(faces: FiledFaces, met: Nearest, counted: Mask, limit: float, min_quality: float) -> Mask:
    """Faces of low quality, and those by which their person's other photos would not be recognised.

    Where none of a person's photos is near to another, the best of them stays: it is what the others are far from.
    """
    _, person, size = np.unique(faces.persons[counted], return_inverse=True, return_counts=True)
    own, quality, ids = met.own[counted], np.nan_to_num(faces.quality[counted], nan=-1.0), faces.ids[counted]
    far = (own < limit) & (size[person] > 1)
    lost = np.bincount(person, weights=far, minlength=len(size)) == size
    order = np.lexsort((ids, -quality, person))
    best = np.ones(len(order), dtype=bool)
    best[1:] = person[order][1:] != person[order][:-1]
    stays = order[best]
    far[stays[lost]] = False
    poor = faces.quality < min_quality
    poor[np.flatnonzero(counted)[far]] = True
    return poor & counted


@dataclass(frozen=True, slots=True)
class _Words:
    client_id: str
    persons: Mapping[int, tuple[str, str]]
    thresholds: Mapping[str, Threshold]
    min_quality: float

    def finding(self, found: _Found) -> Finding:
        name, region = self.persons[found.person_id]
        other = self.persons.get(found.other_person_id)
        say: dict[FindingKind, Callable[[_Found], tuple[str, str]]] = {
            "wrong_person": self._wrong_person,
            "enrolled_twice": self._enrolled_twice,
            "alike": self._alike,
            "poor_photo": self._poor_photo,
        }
        reason, proposal = say[found.kind](found)
        return Finding(
            kind=found.kind,
            region=region,
            person_id=found.person_id,
            face_id=found.face_id,
            name=name,
            similarity=_similarity(found.similarity) if other else None,
            own_similarity=_similarity(found.own_similarity),
            quality=None if np.isnan(found.quality) else found.quality,
            other_region=other[1] if other else None,
            other_person_id=found.other_person_id if other else None,
            other_face_id=found.other_face_id if other else None,
            other_name=other[0] if other else None,
            reason=reason,
            proposal=proposal,
        )

    def _wrong_person(self, found: _Found) -> tuple[str, str]:
        return (
            f"It is at {found.similarity:.3f} to {self._person(found.other_person_id)}, and at {found.own_similarity:.3f} to "
            f"the nearest of its own person's remaining photos, below the threshold {self._threshold(found)}.",
            f"If it shows person {found.other_person_id}, enroll it there, then {self._delete(found)}",
        )

    def _enrolled_twice(self, found: _Found) -> tuple[str, str]:
        early, late = sorted((found.person_id, found.other_person_id))
        merge = merge_command(late, early, client_id=self.client_id)
        if self._region(early) == self._region(late):
            proposal = f"If they are one person: {merge}"
        else:
            proposal = f"If they are one person: {merge} --across-regions, or give both the same external id."
        return f"They are at {found.similarity:.3f}, more than strangers are known to reach by chance.", proposal

    def _alike(self, found: _Found) -> tuple[str, str]:
        early, late = sorted((found.person_id, found.other_person_id))
        merge = merge_command(late, early, client_id=self.client_id)
        if self._region(early) != self._region(late):
            reason = f"They are at {found.similarity:.3f}: a search over both regions takes one for the other."
            return reason, f"If they are one person: {merge} --across-regions."
        above = min(1.0, np.floor(100 * found.similarity + 1) / 100)
        raised = command("regions set-threshold", self._region(late), f"{above:.2f}", client_id=self.client_id)
        return (
            f"They are at {found.similarity:.3f}, at or above the threshold {self._threshold(found)}: each may pass for the "
            "other.",
            f"If they are one person: {merge}; if they are two: better photos of both, or {raised}",
        )

    def _poor_photo(self, found: _Found) -> tuple[str, str]:
        reasons = []
        if found.own_similarity > NOBODY and found.own_similarity < self._limit(found):
            reasons.append(
                f"It is at {found.own_similarity:.3f} to its person's nearest other photo, below the threshold "
                f"{self._threshold(found)}."
            )
        if found.quality < self.min_quality:
            reasons.append(f"Its quality is {found.quality:.2f}, below {self.min_quality:g}.")
        return " ".join(reasons), f"Enroll a better photo of person {found.person_id}, then {self._delete(found)}"

    def _delete(self, found: _Found) -> str:
        return command("people delete-photo", found.person_id, found.face_id, client_id=self.client_id)

    def _person(self, person_id: int) -> str:
        return f"{self.persons[person_id][0]} (person {person_id})"

    def _region(self, person_id: int) -> str:
        return self.persons[person_id][1]

    def _limit(self, found: _Found) -> float:
        return self.thresholds[self._region(found.person_id)].value

    def _threshold(self, found: _Found) -> str:
        return shown(self.thresholds[self._region(found.person_id)])


def _similarity(value: float) -> float | None:
    return None if value == NOBODY else min(1.0, max(-1.0, value))
