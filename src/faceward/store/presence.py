"""Which of many persons and photos the gallery has: what an import asks before it stores a batch of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from faceward.store.database import Database

PersonKey: TypeAlias = tuple[str, str]
"""Region and external id."""

PersonPhoto: TypeAlias = tuple[str, str, bytes]
"""Region and external id of a person, and the SHA-256 of a photo's file."""

_PERSONS = """
SELECT p.region, p.external_id
FROM unnest(%(regions)s::text[], %(external_ids)s::text[]) AS wanted (region, external_id)
JOIN persons p ON p.client_id = %(client_id)s AND p.region = wanted.region AND p.external_id = wanted.external_id
"""
_PHOTOS = """
SELECT p.region, p.external_id, f.image_sha256
FROM unnest(%(regions)s::text[], %(external_ids)s::text[], %(digests)s::bytea[]) AS wanted (region, external_id, digest)
JOIN persons p ON p.client_id = %(client_id)s AND p.region = wanted.region AND p.external_id = wanted.external_id
JOIN face_encodings f ON f.client_id = %(client_id)s AND f.region = p.region AND f.image_sha256 = wanted.digest
    AND f.person_id = p.id
"""


class Presence:
    """Looks into the gallery of any tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def persons(self, client_id: str, keys: Sequence[PersonKey]) -> frozenset[PersonKey]:
        """Those of the persons that there are."""
        given = {"regions": [key[0] for key in keys], "external_ids": [key[1] for key in keys]}
        with self._database.transaction(client_id) as tx:
            rows = tx.exec_driver_sql(_PERSONS, {"client_id": client_id, **given}).all()
        return frozenset((row.region, row.external_id) for row in rows)

    def photos(self, client_id: str, keys: Sequence[PersonPhoto]) -> frozenset[PersonPhoto]:
        """Those of the photos that are enrolled for just that person."""
        given = {
            "regions": [key[0] for key in keys],
            "external_ids": [key[1] for key in keys],
            "digests": [key[2] for key in keys],
        }
        with self._database.transaction(client_id) as tx:
            rows = tx.exec_driver_sql(_PHOTOS, {"client_id": client_id, **given}).all()
        return frozenset((row.region, row.external_id, bytes(row.image_sha256)) for row in rows)
