"""The stored photos: the one way to read them, and to bring them under another key, cut them or drop them.

What is changed is changed in batches of one transaction each, so that whoever is stopped goes on where it was. While the
model is changed there are two tables of faces; both are changed alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from faceward.errors import ImageKeyError
from faceward.store.audit_log import record
from faceward.store.boxes import box_of, crop_of, crop_text
from faceward.store.database import Database
from faceward.store.person_rows import hold_person
from faceward.store.photo_vault import PhotoVault, Sealed, photo_binding
from faceward.store.shadow import LIVE, ONLY_BESIDE, beside_live
from faceward.types import Box, Crop

_AT_ONCE = 256
_BATCH_BYTES = 8 << 20
_KEPT = "f.image_data IS NOT NULL"
PHOTO_COLUMNS = "f.id, f.person_id, f.face_bbox, f.image_sha256, f.image_key_id, f.image_box, f.image_data"
"""Of a face `f`: what open_photo reads."""

# The next photos, no more of them than a few megabytes: the first may be as large as it is.
_NEXT = f"""
WITH sized AS (
    SELECT f.id, octet_length(f.image_data) AS size FROM {{table}} f
    WHERE f.client_id = %(client_id)s AND f.id > %(after)s AND {_KEPT} AND {{which}} ORDER BY f.id LIMIT {_AT_ONCE}
), summed AS (SELECT id, sum(size) OVER (ORDER BY id) - size AS before FROM sized)
SELECT {PHOTO_COLUMNS} FROM summed n JOIN {{table}} f ON f.client_id = %(client_id)s AND f.id = n.id
WHERE n.before < {_BATCH_BYTES} AND {_KEPT} AND {{which}} ORDER BY f.id FOR UPDATE OF f
"""
_LEFT = f"""
SELECT 1 FROM {{table}} f WHERE f.client_id = %(client_id)s AND f.id > %(after)s AND {_KEPT} AND {{which}} LIMIT 1
"""
_PUT = """
UPDATE {table} SET image_data = %(data)s, image_key_id = %(key_id)s, image_box = %(box)s
WHERE client_id = %(client_id)s AND id = %(id)s
"""
# By the person's region: a table that does not serve follows a move only when it is to serve.
_IN_REGION = """
f.person_id IN (SELECT p.id FROM persons p
                WHERE p.client_id = %(client_id)s AND p.region = coalesce(%(region)s::varchar, p.region))
"""
_DROP = f"""
UPDATE {{table}} f SET image_data = NULL, image_key_id = NULL, image_box = NULL
WHERE f.client_id = %(client_id)s AND f.id IN (
    SELECT f.id FROM {{table}} f WHERE f.client_id = %(client_id)s AND f.id > %(after)s AND {_KEPT}
    AND {_IN_REGION} ORDER BY f.id LIMIT {_AT_ONCE}
) RETURNING f.id
"""

Change = Callable[["StoredPhoto"], "tuple[bytes, Crop | None] | None"]
"""What a photo is to be instead, and which part of the sent one that is; None leaves it as it is."""


@dataclass(frozen=True, slots=True)
class StoredPhoto:
    """What is kept of a face's photo, opened. box: of the face, in the sent photo. crop: the part of the sent photo that is
    kept; None: all of it.
    """

    face_id: int
    person_id: int
    box: Box | None
    crop: Crop | None
    data: bytes = field(repr=False)

    @property
    def box_here(self) -> Box | None:
        """Of the face, in what is kept."""
        return self.crop.place(self.box) if self.crop and self.box else self.box


@dataclass(frozen=True, slots=True)
class PhotoCounts:
    """Photos of a tenant under one key (None: not encrypted). crops: those of them that are a face alone."""

    key_id: str | None
    photos: int
    crops: int
    bytes: int


@dataclass(frozen=True, slots=True)
class PhotoBatch:
    """done: photos changed. looked: photos looked at. unopened: ids of those whose key is not there or another one.

    next_after: where the next batch begins, or None at the end.
    """

    done: int
    looked: int
    unopened: tuple[int, ...]
    next_after: int | None


class StoredPhotos:
    """The stored photos of all tenants."""

    def __init__(self, database: Database, vault: PhotoVault) -> None:
        self._database = database
        self.vault = vault

    def read(
        self, client_id: str, person_id: int, face_id: int, *, regions: Sequence[str] | None = None
    ) -> bytes | None:
        """The photo of a face; None where there is no such face, or its photo was not kept.

        regions: only of a person of these. Raises UnknownPersonError, ImageKeyError.
        """
        with self._database.transaction(client_id) as tx:
            hold_person(tx, client_id, person_id, regions=regions)
            row = tx.exec_driver_sql(
                f"SELECT {PHOTO_COLUMNS} FROM {LIVE} f WHERE f.client_id = %s AND f.id = %s AND f.person_id = %s AND {_KEPT}",
                (client_id, face_id, person_id),
            ).first()
            if row is None:
                return None
            photo = open_photo(self.vault, client_id, row)
            record(tx, client_id, "photo.read", person_id=person_id, face=face_id)
            return photo.data

    def counts(self, client_id: str) -> tuple[PhotoCounts, ...]:
        """Reads the row of every photo, and none of the photos themselves."""
        with self._database.transaction(client_id) as tx:
            rows = tx.exec_driver_sql(
                "SELECT f.image_key_id, count(*), count(f.image_box), sum(octet_length(f.image_data)) "
                f"FROM {LIVE} f WHERE f.client_id = %s AND {_KEPT} GROUP BY 1 ORDER BY 1 NULLS FIRST",
                (client_id,),
            )
            return tuple(PhotoCounts(key_id, photos, crops, int(size)) for key_id, photos, crops, size in rows)

    def key_ids(self, client_id: str) -> frozenset[str | None]:
        """Under which keys a tenant has photos, or uploads of imports that wait; None: some are not encrypted.

        A few look-ups in an index, however many photos there are.
        """
        with self._database.transaction(client_id) as tx:
            found = {key_id for table in self._tables(tx) for key_id in _keys_of(tx, client_id, table)}
            return frozenset(found | set(_uploads(tx, client_id)))

    def uploads(self, client_id: str) -> dict[str, int]:
        """How many imports' uploads lie under which key. They stay under it until they are imported."""
        with self._database.transaction(client_id) as tx:
            return _uploads(tx, client_id)

    def tables(self, client_id: str) -> list[str]:
        """The tables of faces: the live one, and that beside it while the model is changed."""
        with self._database.transaction(client_id) as tx:
            return self._tables(tx)

    def keys_to_leave(self, client_id: str, table: str) -> list[str | None]:
        """The keys, other than the current one, that photos of the table are under."""
        with self._database.transaction(client_id) as tx:
            return [key_id for key_id in _keys_of(tx, client_id, table) if key_id != self.vault.current]

    def rotate(self, client_id: str, table: str, key_id: str | None, *, after: int = 0) -> PhotoBatch:
        """Bring the next photos that are under the key `key_id` to the current one."""
        which = "f.image_key_id IS NULL" if key_id is None else "f.image_key_id = %(key_id)s"
        return self._batch(client_id, table, which, after, lambda photo: (photo.data, photo.crop), key_id=key_id)

    def change(
        self, client_id: str, table: str, change: Change, *, region: str | None = None, after: int = 0
    ) -> PhotoBatch:
        """Change the next photos that are kept whole, and seal what they become under the current key."""
        which = f"f.image_box IS NULL AND {_IN_REGION}"
        return self._batch(client_id, table, which, after, change, region=region, action="photo.crop")

    def drop(self, client_id: str, table: str, *, region: str | None = None, after: int = 0) -> PhotoBatch:
        """Forget the next photos; faces and embeddings stay."""
        with self._database.transaction(client_id) as tx:
            parameters = {"client_id": client_id, "region": region, "after": after}
            ids = tx.exec_driver_sql(_DROP.format(table=table), parameters).scalars().all()
            if ids and table == LIVE:
                record(tx, client_id, "photo.drop", photos=len(ids))
        return PhotoBatch(len(ids), len(ids), (), max(ids) if len(ids) == _AT_ONCE else None)

    def _batch(
        self,
        client_id: str,
        table: str,
        which: str,
        after: int,
        change: Change,
        *,
        action: Any = None,
        **parameters: Any,
    ) -> PhotoBatch:
        done, unopened = 0, []
        of_batch = {"client_id": client_id, "after": after, **parameters}
        with self._database.transaction(client_id) as tx:
            rows = tx.exec_driver_sql(_NEXT.format(table=table, which=which), of_batch).all()
            for row in rows:
                try:
                    photo = open_photo(self.vault, client_id, row)
                except ImageKeyError:
                    unopened.append(row.id)
                    continue
                changed = change(photo)
                if changed is None:
                    continue
                data, crop = changed
                sealed = self.vault.seal(data, photo_binding(client_id, row.image_sha256))
                put = {"data": sealed.data, "key_id": sealed.key_id, "box": crop_text(crop)}
                tx.exec_driver_sql(_PUT.format(table=table), {**put, "client_id": client_id, "id": row.id})
                done += 1
            if done and action is not None and table == LIVE:
                record(tx, client_id, action, photos=done)
            if rows:
                next_after = rows[-1].id
            else:  # or others had the batch, and deleted or changed all of it meanwhile: then it is not the end
                left = tx.exec_driver_sql(_LEFT.format(table=table, which=which), of_batch).first()
                next_after = after if left else None
        return PhotoBatch(done, len(rows), tuple(unopened), next_after)

    def _tables(self, tx: sa.Connection) -> list[str]:
        return [LIVE, *beside_live(tx)]


def open_photo(vault: PhotoVault, client_id: str, row: sa.Row[Any]) -> StoredPhoto:
    """A row with the columns of a photo. Raises ImageKeyError."""
    binding = photo_binding(client_id, row.image_sha256)
    data = vault.open(Sealed(row.image_data, row.image_key_id), binding)
    return StoredPhoto(row.id, row.person_id, box_of(row.face_bbox), crop_of(row.image_box), data)


def photos_of(tx: sa.Connection, vault: PhotoVault, client_id: str, person_id: int) -> Iterator[StoredPhoto]:
    """All photos of a person, one after the other. Raises ImageKeyError.

    Also of faces that a change of the model left behind, which only the table beside the live one has.
    """
    for table in (LIVE, *beside_live(tx)):
        which = "" if table == LIVE else f"AND {ONLY_BESIDE} "
        given = {"client_id": client_id, "person_id": person_id, "after": 0}
        while True:
            row = tx.exec_driver_sql(
                f"SELECT {PHOTO_COLUMNS} FROM {table} f WHERE f.client_id = %(client_id)s AND f.person_id = %(person_id)s "
                f"AND f.id > %(after)s AND {_KEPT} {which}ORDER BY f.id LIMIT 1",
                given,
            ).first()
            if row is None:
                break
            given["after"] = row.id
            yield open_photo(vault, client_id, row)


def _uploads(tx: sa.Connection, client_id: str) -> dict[str, int]:
    rows = tx.exec_driver_sql(
        "SELECT key_id, count(DISTINCT job_id) AS jobs FROM job_chunks "
        "WHERE client_id = %s AND key_id IS NOT NULL GROUP BY key_id",
        (client_id,),
    )
    return {row.key_id: row.jobs for row in rows}


def _keys_of(tx: sa.Connection, client_id: str, table: str) -> Sequence[str | None]:
    """By hops through idx_face_photo, from one key to the next."""
    of_client = f"SELECT f.image_key_id FROM {table} f WHERE f.client_id = %(client_id)s AND {_KEPT}"
    found: list[str | None] = []
    if tx.exec_driver_sql(f"{of_client} AND f.image_key_id IS NULL LIMIT 1", {"client_id": client_id}).first():
        found.append(None)
    last = ""
    while True:
        next_key = tx.exec_driver_sql(
            f"{of_client} AND f.image_key_id > %(last)s ORDER BY f.image_key_id LIMIT 1",
            {"client_id": client_id, "last": last},
        ).scalar()
        if next_key is None:
            return found
        found.append(next_key)
        last = next_key
