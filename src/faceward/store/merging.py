"""Two records of one person become one, inside a transaction of the caller's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from faceward.errors import DifferentRegionsError, DuplicateFaceError, UnknownPersonError
from faceward.store.audit_log import record
from faceward.store.former_names import keep_merged
from faceward.store.request_tokens import hand_over
from faceward.store.shadow import beside_live

_HELD = """
SELECT id, region, external_id, description FROM persons
WHERE client_id = %(client_id)s AND id = ANY(%(ids)s) ORDER BY id FOR UPDATE
"""
_SAME_PHOTO = "k.image_sha256 = f.image_sha256 AND k.face_bbox IS NOT DISTINCT FROM f.face_bbox"
_DROP_TWICE = f"""
DELETE FROM face_encodings f WHERE f.client_id = %(client_id)s AND f.person_id = %(person_id)s AND EXISTS (
    SELECT 1 FROM face_encodings k WHERE k.client_id = %(client_id)s AND k.person_id = %(into_id)s AND {_SAME_PHOTO}
)
"""
_ELSEWHERE = f"""
SELECT k.person_id FROM face_encodings f
JOIN face_encodings k ON k.client_id = %(client_id)s AND k.region = %(region)s AND {_SAME_PHOTO}
WHERE f.client_id = %(client_id)s AND f.person_id = %(person_id)s AND f.region <> %(region)s
ORDER BY k.id LIMIT 1
"""
# The ids stay, so that sketches go on proposing these faces; the new version shows them to sketches of another region.
_FACES = """
UPDATE face_encodings SET person_id = %(into_id)s, region = %(region)s, row_version = pg_current_xact_id(), matchable_until = (
    SELECT p.matchable_until FROM persons p WHERE p.client_id = %(client_id)s AND p.id = %(into_id)s)
WHERE client_id = %(client_id)s AND person_id = %(person_id)s
"""
# While the model is changed there is a second table, of the faces' other embeddings. It follows in the person, whose key
# would delete what is left there, and of whom nothing may be left; in the region only when it is to serve.
_BESIDE = """
UPDATE {table} SET person_id = %(into_id)s WHERE client_id = %(client_id)s AND person_id = %(person_id)s
"""
# A face that is dropped for another of the same photo leaves that one its other embedding, where it has none. The new version
# shows that it is to be brought in line.
_TWICE_BESIDE = f"""
WITH kept AS (
    UPDATE {{table}} o SET id = t.kept FROM (
        SELECT DISTINCT ON (k.id) k.id AS kept, f.id AS dropped FROM face_encodings f
        JOIN face_encodings k ON k.client_id = %(client_id)s AND k.person_id = %(into_id)s AND {_SAME_PHOTO}
        JOIN {{table}} s ON s.client_id = %(client_id)s AND s.id = f.id
        WHERE f.client_id = %(client_id)s AND f.person_id = %(person_id)s
        AND NOT EXISTS (SELECT 1 FROM {{table}} s WHERE s.client_id = %(client_id)s AND s.id = k.id) ORDER BY k.id, f.id
    ) t WHERE o.client_id = %(client_id)s AND o.id = t.dropped RETURNING o.id
)
UPDATE face_encodings f SET row_version = pg_current_xact_id() FROM kept WHERE f.client_id = %(client_id)s AND f.id = kept.id
"""
_REFUSED = """
UPDATE reembedding_refusals SET person_id = %(into_id)s WHERE client_id = %(client_id)s AND person_id = %(person_id)s
"""
_SURVIVOR = """
UPDATE persons SET external_id = coalesce(external_id, %(external_id)s),
    description = coalesce(description, %(description)s), updated_at = now()
WHERE client_id = %(client_id)s AND id = %(into_id)s
"""


def merge(
    tx: sa.Connection,
    client_id: str,
    person_id: int,
    into_id: int,
    *,
    across_regions: bool,
    regions: Sequence[str] | None,
) -> tuple[int, int, bool]:
    """Give all faces of a person to another and delete the first; returns what Merge tells beside the person.

    The faces take the state and expiry of the one that stays. Both are held first, in the order of their ids: whoever adds a
    face meanwhile waits, and then finds the person gone.
    """
    ids = {"client_id": client_id, "person_id": person_id, "into_id": into_id}
    held = {row.id: row for row in tx.exec_driver_sql(_HELD, {"client_id": client_id, "ids": [person_id, into_id]})}
    for each in (person_id, into_id):
        if each not in held or (regions is not None and held[each].region not in regions):
            raise UnknownPersonError(each)
    gone, into = held[person_id], held[into_id]
    if gone.region != into.region and not across_regions:
        raise DifferentRegionsError(
            f"Person {person_id} is in region {gone.region!r}, person {into_id} in region {into.region!r}. Merge them "
            f"across regions (across_regions), which moves the faces to {into.region!r}; or move one first."
        )
    beside = beside_live(tx)
    for table in beside:
        tx.exec_driver_sql(_TWICE_BESIDE.format(table=table), ids)
        tx.exec_driver_sql(_BESIDE.format(table=table), ids)
    if beside:
        tx.exec_driver_sql(_REFUSED, ids)
    dropped = tx.exec_driver_sql(_DROP_TWICE, ids).rowcount
    parameters: dict[str, Any] = {
        **ids,
        "region": into.region,
        "external_id": gone.external_id,
        "description": gone.description,
    }
    owner = tx.exec_driver_sql(_ELSEWHERE, parameters).scalar()
    if owner is not None:
        raise DuplicateFaceError(
            f"A photo of person {person_id} is enrolled in region {into.region!r} already, for person {owner}. Delete it "
            "there, or merge these two first. Nothing was merged.",
            person_id=owner,
        )
    moved = tx.exec_driver_sql(_FACES, parameters).rowcount
    keep_merged(tx, client_id, person_id, into_id)
    tx.exec_driver_sql("DELETE FROM persons WHERE client_id = %(client_id)s AND id = %(person_id)s", ids)
    tx.exec_driver_sql(_SURVIVOR, parameters)
    hand_over(tx, client_id, person_id, into_id)
    record(tx, client_id, "person.merge", person_id=person_id, other_person_id=into_id, faces=moved)
    return moved, dropped, gone.external_id is not None and into.external_id is not None
