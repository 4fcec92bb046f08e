"""Whether somebody who is about to be enrolled is in the region already, under another record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from faceward.errors import LikelyDuplicateError
from faceward.retrieval import Retriever
from faceward.service.thresholds import Thresholds
from faceward.types import Candidate, NewFace, Person

DuplicateMode: TypeAlias = Literal["off", "report", "refuse"]
_MOST = 5


class Duplicates:
    """Looks for the faces of an enrolment in their region, with one search. mode: what is done of those found.

    Where they are refused, suspended and expired people count too: nobody is let in again under a new record.

    What is enrolled by another request at the same moment is not seen: of two that enroll one person at once, both may pass.
    """

    def __init__(self, retriever: Retriever, thresholds: Thresholds, mode: DuplicateMode) -> None:
        self._retriever = retriever
        self._thresholds = thresholds
        self._mode = mode

    def of_new(self, client_id: str, region: str, faces: Sequence[NewFace]) -> tuple[Candidate, ...]:
        """The persons of the region whom one of the faces matches at the region's threshold, nearest first, at most five."""
        return self._nearest(client_id, region, faces, None)

    def of_person(self, client_id: str, person: Person, faces: Sequence[NewFace]) -> tuple[Candidate, ...]:
        """Those whom one of the faces matches and to whom it is nearer than to the person's own."""
        return self._nearest(client_id, person.region, faces, person.id)

    def refuse(self, found: Sequence[Candidate]) -> None:
        """Raises LikelyDuplicateError where there is one and the mode says so."""
        if found and self._mode == "refuse":
            raise LikelyDuplicateError([(each.person_id, each.similarity) for each in found])

    def _nearest(self, client_id: str, region: str, faces: Sequence[NewFace], own: int | None) -> tuple[Candidate, ...]:
        if self._mode == "off":
            return ()
        limits = self._thresholds.of_regions(client_id, [region], None)
        probes = [face.embedding for face in faces]
        best: dict[int, Candidate] = {}
        answers = self._retriever.find(client_id, [region], probes, top_k=_MOST, floor=limits[region].value)
        hidden: list[tuple[Candidate, ...]] = [()] * len(probes)
        if self._mode == "refuse":
            found = self._retriever.find_hidden(client_id, region, probes, top_k=_MOST)
            hidden = [each.candidates for each in found]
        for answer, unseen in zip(answers, hidden, strict=True):
            limit = self._thresholds.corrected(client_id, limits, None, answer.thresholds)[region].value
            for candidate in sorted((*answer.candidates, *unseen), key=lambda each: -each.similarity):
                if candidate.similarity < limit or candidate.person_id == own:
                    break
                known = best.get(candidate.person_id)
                if known is None or candidate.similarity > known.similarity:
                    best[candidate.person_id] = candidate
        return tuple(sorted(best.values(), key=lambda each: (-each.similarity, each.face_id))[:_MOST])
