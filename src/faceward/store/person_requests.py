"""What requests that store persons are answered, kept for those that are sent again."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from faceward.errors import NotFoundError, UnknownPersonError
from faceward.store.person_rows import get_person
from faceward.store.request_tokens import AnsweredRequest, complete
from faceward.types import Candidate, Enrollment, Merge, Person, Quality, RequestToken


def answer(
    tx: sa.Connection,
    client_id: str,
    request: RequestToken,
    person_id: int,
    face_ids: tuple[int, ...],
    quality: Sequence[Quality],
    likely_duplicates: Sequence[Candidate],
) -> None:
    """Keep what an enrolment answers, in its transaction."""
    detail = {
        "person_id": person_id,
        "face_ids": face_ids,
        "quality": [{"score": each.score, "reasons": each.reasons} for each in quality],
        # Only which faces were near: whose they are is looked up again, so that nobody's name or id is kept here.
        "near": [(each.face_id, each.similarity) for each in likely_duplicates],
    }
    complete(tx, client_id, request, person_id, detail)


def answered(tx: sa.Connection, client_id: str, before: AnsweredRequest) -> Enrollment:
    """The answer to the repeated enrolment. Raises UnknownPersonError or NotFoundError where its person is gone."""
    person = _person(tx, client_id, before)
    detail = before.detail
    quality = tuple(Quality(each["score"], tuple(each["reasons"])) for each in detail["quality"])
    near = _likely_duplicates(tx, person, dict(detail.get("near", ())))
    return Enrollment(person, tuple(detail["face_ids"]), quality, near)


def _likely_duplicates(tx: sa.Connection, person: Person, near: dict[int, float]) -> tuple[Candidate, ...]:
    """Those who were near when the person was enrolled, as far as they are other persons of its region still."""
    if not near:
        return ()
    rows = tx.exec_driver_sql(
        "SELECT f.id AS face_id, p.id AS person_id, p.name, p.region, p.external_id, p.description "
        "FROM face_encodings f JOIN persons p ON p.client_id = %(client_id)s AND p.id = f.person_id "
        "WHERE f.client_id = %(client_id)s AND f.id = ANY(%(near)s) AND f.region = %(region)s AND p.id <> %(own)s",
        {"client_id": person.client_id, "near": list(near), "region": person.region, "own": person.id},
    ).mappings()
    candidates = (Candidate(**row, similarity=near[row["face_id"]]) for row in rows)
    best: dict[int, Candidate] = {}
    for each in sorted(candidates, key=lambda each: (-each.similarity, each.face_id)):
        best.setdefault(each.person_id, each)  # two of them may be one person by now
    return tuple(best.values())


def merged(tx: sa.Connection, client_id: str, before: AnsweredRequest) -> Merge:
    """The answer to the repeated merge."""
    return Merge(person=_person(tx, client_id, before), **before.detail["merge"])


def _person(tx: sa.Connection, client_id: str, before: AnsweredRequest) -> Person:
    """The one whom the request stored, or whom that one was merged into."""
    if before.resource_id is not None:
        return get_person(tx, client_id, before.resource_id)
    if "person_id" not in before.detail:
        raise NotFoundError("The person whom this request stored was erased since. Nothing was stored again.")
    raise UnknownPersonError(before.detail["person_id"])
