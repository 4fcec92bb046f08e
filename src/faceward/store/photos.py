"""The stored photos: the one way to read them, and to bring them under another key, cut them or drop them.

What is changed is changed in batches of one transaction each, so that whoever is stopped goes on where it was. A batch
holds the persons before their faces, as whoever moves, merges or deletes them does. While the model is changed there are two
tables of faces; both are changed alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import sqlalchemy as sa

from faceward.errors import BusyError, ImageKeyError
from faceward.store.audit_log import Action, record
from faceward.store.boxes import box_of, crop_of, crop_text
from faceward.store.database import Database
from faceward.store.person_rows import hold_person
from faceward.store.photo_vault import PhotoVault, Sealed, photo_binding
from faceward.store.shadow import LIVE, ONLY_BESIDE, beside_live
from faceward.types import Box, Crop

_AT_ONCE = 256
_ATTEMPTS = 5
_BATCH_BYTES = 8 << 20
_KEPT = "f.image_data IS NOT NULL"
PHOTO_COLUMNS = "f.id, f.person_id, f.face_bbox, f.image_sha256, f.image_key_id, f.image_box, f.image_data"
"""Of a face `f`: what open_photo reads."""

_COUNTED_LIVE = f"""
EXISTS (SELECT 1 FROM {LIVE} l WHERE l.client_id = %(client_id)s AND l.id = f.id AND l.image_data IS NOT NULL
        AND l.image_key_id IS NOT DISTINCT FROM f.image_key_id)
"""
_BY_KEY = """
SELECT f.image_key_id, count(*), count(f.image_box), sum(octet_length(f.image_data)) FROM {table} f
WHERE f.client_id = %(client_id)s AND {which} GROUP BY 1
"""
# The next photos, no more of them than a few megabytes where they are read: the first may be as large as it is.
_NEXT = f"""
WITH sized AS (
    SELECT f.id, octet_length(f.image_data) AS size FROM {{table}} f
    WHERE f.client_id = %(client_id)s AND f.id > %(after)s AND {_KEPT} AND {{which}} ORDER BY f.id LIMIT {_AT_ONCE}
), summed AS (SELECT id, sum(size) OVER (ORDER BY id) - size AS before FROM sized)
SELECT id FROM summed WHERE before < coalesce(%(most_bytes)s, before + 1) ORDER BY id
"""
_HOLD_PERSONS = """
SELECT p.id FROM persons p WHERE p.client_id = %(client_id)s AND p.id IN (
    SELECT f.person_id FROM {table} f WHERE f.client_id = %(client_id)s AND f.id = ANY(%(ids)s::bigint[])
) ORDER BY p.id FOR KEY SHARE
"""
_HOLD_FACES = f"""
SELECT {{columns}} FROM {{table}} f WHERE f.client_id = %(client_id)s AND f.id = ANY(%(ids)s::bigint[])
AND {_KEPT} AND {{which}} ORDER BY f.id FOR NO KEY UPDATE
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
_DROP = """
UPDATE {table} SET image_data = NULL, image_key_id = NULL, image_box = NULL
WHERE client_id = %(client_id)s AND id = ANY(%(ids)s::bigint[])
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
    """done: photos changed. unopened: how many are left since their key is not there or another one, by the key's id.
    unchanged: how many were to stay as they are. Each photo counts once, though there are two tables with it.

    looked: rows looked at. next_after: where the next batch begins, or None at the end.
    """

    done: int
    looked: int
    next_after: int | None
    unopened: Mapping[str, int] = field(default_factory=dict)
    unchanged: int = 0


class FaceTable(NamedTuple):
    """A table of faces. oid: what it keeps where a change of the model gives it another name."""

    name: str
    oid: int


class StoredPhotos:
    """The stored photos of all tenants. What changes them raises BusyError where others are in the way again and again."""

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
        """By key, those that are not encrypted first. While the model is changed a photo is in two tables: it counts once
        under each key that it is under there. Reads the row of every photo, and none of the photos themselves.
        """
        found: dict[str | None, PhotoCounts] = {}
        with self._database.transaction(client_id) as tx:
            for table in (LIVE, *beside_live(tx)):
                which = _KEPT if table == LIVE else f"{_KEPT} AND NOT {_COUNTED_LIVE}"
                rows = tx.exec_driver_sql(_BY_KEY.format(table=table, which=which), {"client_id": client_id})
                for key_id, photos, crops, size in rows:
                    before = found.get(key_id, PhotoCounts(key_id, 0, 0, 0))
                    found[key_id] = PhotoCounts(
                        key_id, before.photos + photos, before.crops + crops, before.bytes + int(size)
                    )
        return tuple(found[key_id] for key_id in sorted(found, key=lambda key_id: key_id or ""))

    def key_ids(self, client_id: str) -> frozenset[str | None]:
        """Under which keys a tenant has photos, or uploads of imports that wait; None: some are not encrypted.

        A few look-ups in an index, however many photos there are.
        """
        with self._database.transaction(client_id) as tx:
            found = {key_id for table in _tables(tx) for key_id in _keys_of(tx, client_id, table.name)}
            return frozenset(found | set(_uploads(tx, client_id)))

    def wrong_keys(self, client_id: str) -> frozenset[str]:
        """Keys that are there, and do not open the photos under their ids: of each key's one photo is tried in each table."""
        wrong = set[str]()
        with self._database.transaction(client_id) as tx:
            for table in _tables(tx):
                for key_id in self.vault.key_ids.intersection(filter(None, _keys_of(tx, client_id, table.name))):
                    row = tx.exec_driver_sql(
                        f"SELECT {PHOTO_COLUMNS} FROM {table.name} f "
                        f"WHERE f.client_id = %s AND f.image_key_id = %s AND {_KEPT} LIMIT 1",
                        (client_id, key_id),
                    ).first()
                    try:
                        if row is not None:
                            open_photo(self.vault, client_id, row)
                    except ImageKeyError:
                        wrong.add(key_id)
        return frozenset(wrong)

    def uploads(self, client_id: str) -> dict[str, int]:
        """How many imports' uploads lie under which key. They stay under it until they are imported."""
        with self._database.transaction(client_id) as tx:
            return _uploads(tx, client_id)

    def tables(self, client_id: str) -> list[FaceTable]:
        """The tables of faces: the live one, and that beside it while the model is changed.

        They may change places or go at any time. A batch finds its table by its oid; that of one that is gone is an empty
        last one.
        """
        with self._database.transaction(client_id) as tx:
            return _tables(tx)

    def keys_to_leave(self, client_id: str, table: FaceTable) -> list[str | None]:
        """The keys, other than the current one, that photos of the table are under."""
        with self._database.transaction(client_id) as tx:
            now = _now(tx, table)
            found = _keys_of(tx, client_id, now.name) if now else ()
        return [key_id for key_id in found if key_id != self.vault.current]

    def rotate(self, client_id: str, table: FaceTable, key_id: str | None, *, after: int = 0) -> PhotoBatch:
        """Bring the next photos that are under the key `key_id` to the current one."""
        which = "f.image_key_id IS NULL" if key_id is None else "f.image_key_id = %(key_id)s"
        of = _Batch(client_id, table, which, {"after": after, "key_id": key_id, "most_bytes": _BATCH_BYTES})
        keys = {"from_key": key_id, "to_key": self.vault.current}
        return self._patiently(of, lambda tx, of: self._put(tx, of, _as_it_is, "photo.rotate", keys))

    def change(
        self, client_id: str, table: FaceTable, change: Change, *, region: str | None = None, after: int = 0
    ) -> PhotoBatch:
        """Change the next photos that are kept whole, and seal what they become under the current key."""
        which = f"f.image_box IS NULL AND {_IN_REGION}"
        of = _Batch(client_id, table, which, {"after": after, "region": region, "most_bytes": _BATCH_BYTES})
        return self._patiently(of, lambda tx, of: self._put(tx, of, change, "photo.crop", {}))

    def drop(self, client_id: str, table: FaceTable, *, region: str | None = None, after: int = 0) -> PhotoBatch:
        """Forget the next photos; faces and embeddings stay."""
        of = _Batch(client_id, table, _IN_REGION, {"after": after, "region": region, "most_bytes": None})
        return self._patiently(of, _drop)

    def _patiently(self, of: _Batch, work: Callable[[sa.Connection, _Batch], PhotoBatch]) -> PhotoBatch:
        """In a transaction that waits as long as others have the same people, and again where they merged them meanwhile."""
        for left in reversed(range(_ATTEMPTS)):
            try:
                with self._database.transaction(of.client_id) as tx:
                    table = _now(tx, of.table)
                    if table is None:
                        return PhotoBatch(0, 0, None)
                    tx.exec_driver_sql("SET LOCAL statement_timeout = 0")
                    return work(tx, replace(of, table=table))
            except BusyError:
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _put(
        self, tx: sa.Connection, of: _Batch, change: Change, action: Action, details: Mapping[str, Any]
    ) -> PhotoBatch:
        done, unopened, unchanged = list[int](), list[int](), list[int]()
        rows, next_after = of.hold_next(tx, PHOTO_COLUMNS)
        for row in rows:
            try:
                photo = open_photo(self.vault, of.client_id, row)
            except ImageKeyError:
                unopened.append(row.id)
                continue
            changed = change(photo)
            if changed is None:
                unchanged.append(row.id)
                continue
            data, crop = changed
            sealed = self.vault.seal(data, photo_binding(of.client_id, row.image_sha256))
            put = {"data": sealed.data, "key_id": sealed.key_id, "box": crop_text(crop)}
            tx.exec_driver_sql(_PUT.format(table=of.table.name), {**put, "client_id": of.client_id, "id": row.id})
            done.append(row.id)
        counted = of.record(tx, action, done, **details)
        return PhotoBatch(counted, len(rows), next_after, of.by_key(tx, unopened), of.once(tx, unchanged))


@dataclass(frozen=True, slots=True)
class _Batch:
    """Which photos of a table: a condition on `f`, with its parameters."""

    client_id: str
    table: FaceTable
    which: str
    parameters: Mapping[str, Any]

    def hold_next(self, tx: sa.Connection, columns: str) -> tuple[Sequence[sa.Row[Any]], int | None]:
        """The next photos, held until the transaction ends, and where those after them begin; None at the end.

        Those that others deleted or changed meanwhile are not among them. Raises BusyError where persons were merged into
        others meanwhile, who are not held.
        """
        of = {"client_id": self.client_id, **self.parameters}
        which = {"table": self.table.name, "which": self.which}
        ids = tx.exec_driver_sql(_NEXT.format(**which), of).scalars().all()
        of["ids"] = list(ids)
        persons = set(tx.exec_driver_sql(_HOLD_PERSONS.format(table=self.table.name), of).scalars())
        rows = tx.exec_driver_sql(_HOLD_FACES.format(columns=columns, **which), of).all()
        if not persons.issuperset(row.person_id for row in rows):
            raise BusyError("People were merged into others meanwhile. Try again.")
        return rows, ids[-1] if ids else None

    def record(self, tx: sa.Connection, action: Action, ids: Sequence[int], **details: Any) -> int:
        """In the audit log, where each photo counts once; returns how many they are."""
        photos = self.once(tx, ids)
        if photos:
            record(tx, self.client_id, action, photos=photos, **details)
        return photos

    def once(self, tx: sa.Connection, ids: Sequence[int]) -> int:
        """How many of these photos count here: those that the live table has too count there."""
        if not ids or self.table.name == LIVE:
            return len(ids)
        count: int = tx.exec_driver_sql(
            f"SELECT count(*) FROM unnest(%(ids)s::bigint[]) AS f (id) WHERE {ONLY_BESIDE}",
            {"client_id": self.client_id, "ids": list(ids)},
        ).scalar_one()
        return count

    def by_key(self, tx: sa.Connection, ids: Sequence[int]) -> dict[str, int]:
        """How many of these photos there are by the id of their key; those that are under it in the live table count there."""
        if not ids:
            return {}
        which = "f.id = ANY(%(ids)s::bigint[])" + ("" if self.table.name == LIVE else f" AND NOT {_COUNTED_LIVE}")
        rows = tx.exec_driver_sql(
            _BY_KEY.format(table=self.table.name, which=which), {"client_id": self.client_id, "ids": list(ids)}
        )
        return {key_id: photos for key_id, photos, _, _ in rows}


def _as_it_is(photo: StoredPhoto) -> tuple[bytes, Crop | None]:
    return photo.data, photo.crop


def _drop(tx: sa.Connection, of: _Batch) -> PhotoBatch:
    rows, next_after = of.hold_next(tx, "f.id, f.person_id")
    ids = [row.id for row in rows]
    tx.exec_driver_sql(_DROP.format(table=of.table.name), {"client_id": of.client_id, "ids": ids})
    return PhotoBatch(of.record(tx, "photo.drop", ids), len(ids), next_after)


def _tables(tx: sa.Connection) -> list[FaceTable]:
    """Their names stay as they are until the transaction ends."""
    names = [LIVE, *beside_live(tx)]
    oids = tx.exec_driver_sql("SELECT to_regclass(name)::oid FROM unnest(%s::text[]) AS name", (names,)).scalars()
    return [FaceTable(name, oid) for name, oid in zip(names, oids, strict=True)]


def _now(tx: sa.Connection, table: FaceTable) -> FaceTable | None:
    """The table by the name that it has until the transaction ends; None where it is gone."""
    return next((each for each in _tables(tx) if each.oid == table.oid), None)


def open_photo(vault: PhotoVault, client_id: str, row: sa.Row[Any]) -> StoredPhoto:
    """A row with the columns of a photo. Raises ImageKeyError."""
    binding = photo_binding(client_id, row.image_sha256)
    data = vault.open(Sealed(row.image_data, row.image_key_id), binding)
    return StoredPhoto(row.id, row.person_id, box_of(row.face_bbox), crop_of(row.image_box), data)


def photos_of(
    tx: sa.Connection, vault: PhotoVault, client_id: str, person_id: int, unopened: list[int]
) -> Iterator[StoredPhoto]:
    """All photos of a person, one after the other. unopened: gets the ids of the faces whose photo does not open.

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
            try:
                photo = open_photo(vault, client_id, row)
            except ImageKeyError:
                unopened.append(row.id)
                continue
            yield photo


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
