"""What the candidates of a face amount to: a match, an ambiguity between two persons, or nobody known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from faceward.types import Candidate, Face, FaceMatch, Threshold

_WHOSE = {
    "request": "of the request",
    "region": "of the region",
    "client": "of the client",
    "pack": "of the model pack or the settings",
}


def decide(
    face: Face, candidates: Sequence[Candidate], thresholds: Mapping[str, Threshold], *, margin: float, top_k: int
) -> FaceMatch:
    """Decide for one face.

    candidates: the nearest persons, best first. thresholds: of each region that was searched, in the order asked for.
    margin: a match is ambiguous where another person is less than this much further, or nearer; 0 turns that off. Two
    candidates with the same external id are one person, enrolled in two regions. top_k: candidates to name.
    """
    named = tuple(candidates[:top_k])
    match = next((each for each in candidates if each.similarity >= thresholds[each.region].value), None)
    if match is None:
        nearest = candidates[0] if candidates else None
        limit = thresholds[nearest.region] if nearest else next(iter(thresholds.values()))
        reason = (
            f"{_at(nearest)}, below the threshold {shown(limit)}." if nearest else "There is nobody to compare with."
        )
        return FaceMatch(face, None, named, "unknown", reason, limit)
    limit = thresholds[match.region]
    rival = next((each for each in candidates if _is_rival(each, match, margin)), None)
    if rival is not None:
        nearer = rival.similarity - match.similarity > margin  # of a region whose threshold it does not reach
        how = "nearer, but below its own threshold" if nearer else f"less than {margin:g} apart"
        reason = f"{_at(match)}, and {_at(rival)}: {how}, too little to tell which of the two it is."
        return FaceMatch(face, match, named, "ambiguous", reason, limit, rival)
    return FaceMatch(face, match, named, "match", f"{_at(match)}, at or above the threshold {shown(limit)}.", limit)


def _is_rival(other: Candidate, match: Candidate, margin: float) -> bool:
    if margin <= 0 or other.person_id == match.person_id:
        return False
    if other.external_id is not None and other.external_id == match.external_id:
        return False
    return match.similarity - other.similarity < margin


def _at(candidate: Candidate) -> str:
    return f"{candidate.name} (person {candidate.person_id}) is at {candidate.similarity:.3f}"


def shown(threshold: Threshold) -> str:
    """A threshold in words, with what set it."""
    return f"{threshold.value:g} {_WHOSE[threshold.source]}"
