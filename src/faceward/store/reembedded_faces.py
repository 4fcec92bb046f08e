"""The faces of a change of the embedding model: those that still wait, those that were made, and those of which nothing could
be made.

The functions work inside a transaction of one tenant, as any role: row-level security is obeyed, and each statement names
the tenant as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from pgvector import Vector

from faceward.errors import ImageKeyError
from faceward.store.in_line import faces_since, make_room
from faceward.store.photo_vault import PhotoVault
from faceward.store.photos import PHOTO_COLUMNS, open_photo
from faceward.store.shadow import LIVE, ONLY_BESIDE, Shadow
from faceward.types import Box, Embedding


@dataclass(frozen=True, slots=True)
class StoredPhoto:
    """A face that another model is to embed. box: where it is in its photo, as far as that is known."""

    face_id: int
    person_id: int
    box: Box | None
    image: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unmade:
    """A face of which the model made nothing, and why."""

    client_id: str
    face_id: int
    person_id: int
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Counts:
    """Faces of a tenant's live gallery. made: of these in the other table. unmade: of these refused. without_image: of these
    that are neither, and have no stored photo. persons_left: persons with faces of which the other table has none, and none
    waits.
    """

    faces: int = 0
    made: int = 0
    unmade: int = 0
    without_image: int = 0
    persons: int = 0
    persons_left: int = 0

    @property
    def waiting(self) -> int:
        return self.faces - self.made - self.unmade - self.without_image

    def __add__(self, other: Counts) -> Counts:
        names = self.__dataclass_fields__
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """What the other table alone has. faces: those of which the live one has none. persons: those without any face there."""

    faces: int = 0
    persons: int = 0

    def __add__(self, other: LeftBehind) -> LeftBehind:
        return LeftBehind(self.faces + other.faces, self.persons + other.persons)


def snapshot_version(tx: sa.Connection) -> str:
    """What is written from now on has this version or a later one."""
    version: str = tx.exec_driver_sql("SELECT pg_snapshot_xmin(pg_current_snapshot())::text").scalar_one()
    return version


def newest_face(tx: sa.Connection, client_id: str) -> int:
    """The highest id of a tenant's faces; 0 where it has none."""
    newest: int = tx.exec_driver_sql(
        f"SELECT coalesce(max(id), 0) FROM {LIVE} WHERE client_id = %s", (client_id,)
    ).scalar_one()
    return newest


def photos_waiting(
    tx: sa.Connection,
    client_id: str,
    shadow: Shadow,
    model_id: str,
    *,
    after: int,
    limit: int,
    until: int | None = None,
    since: str | None = None,
    vault: PhotoVault,
) -> list[StoredPhoto | Unmade]:
    """The next faces with a photo that the other table has not and that were not refused, by ascending id.

    Their photos have 32 MiB together, or it is one. until: the last id. since: only those written by that transaction or a
    later one. vault: opens those that are encrypted; of one that its key does not open nothing can be made. Raises
    ImageKeyError where the key is not there.
    """
    rows = tx.exec_driver_sql(
        "SELECT id, person_id, face_bbox, image_sha256, image_key_id, image_box, image_data FROM ("
        "SELECT w.*, sum(octet_length(image_data)) OVER (ORDER BY id) AS bytes, row_number() OVER (ORDER BY id) AS place FROM ("
        f"SELECT {PHOTO_COLUMNS} FROM {faces_since(since)} "
        "WHERE f.client_id = %(client_id)s AND f.id > %(after)s AND f.id <= %(until)s AND f.image_data IS NOT NULL "
        f"AND {_LACKING.format(shadow=shadow)} AND NOT {_REFUSED} ORDER BY f.id LIMIT %(limit)s) w) w "
        f"WHERE place = 1 OR bytes <= {_MOST_BYTES} ORDER BY id",
        {
            "client_id": client_id,
            "model_id": model_id,
            "after": after,
            "until": 2**63 - 1 if until is None else until,
            "limit": limit,
            "since": since,
        },
    )
    return [_opened(vault, client_id, row) for row in rows]


def store_made(
    tx: sa.Connection,
    client_id: str,
    shadow: Shadow,
    model_id: str,
    made: Mapping[int, Embedding],
    *,
    carried: Sequence[str],
) -> int:
    """Put faces into the other table, with the new embedding and all else as the live table has it; returns how many.

    One that was deleted meanwhile is left out, and one that is there already left as it is. The live ones are held.
    """
    if not made:
        return 0
    make_room(tx, client_id, shadow, list(made), of_absent=True)
    mine, theirs = ", ".join(carried), ", ".join(f"f.{name}" for name in carried)
    return tx.exec_driver_sql(
        f"INSERT INTO {shadow} ({mine}, model_id, embedding) SELECT {theirs}, %(model_id)s, m.embedding "
        "FROM unnest(%(ids)s::bigint[], %(embeddings)s::text[]::vector[]) AS m (id, embedding) "
        f"JOIN {LIVE} f ON f.client_id = %(client_id)s AND f.id = m.id ON CONFLICT DO NOTHING",
        {
            "client_id": client_id,
            "model_id": model_id,
            "ids": list(made),
            # As text: the owner's connections know no vectors.
            "embeddings": [Vector(embedding).to_text() for embedding in made.values()],
        },
    ).rowcount


def store_unmade(tx: sa.Connection, model_id: str, unmade: Sequence[Unmade]) -> None:
    """Record faces of which the model makes nothing, so that they are not tried again. The live ones are held."""
    for one in unmade:
        tx.exec_driver_sql(
            "INSERT INTO reembedding_refusals (client_id, model_id, face_id, person_id, code, reason) "
            "SELECT f.client_id, %(model_id)s, f.id, f.person_id, %(code)s, %(reason)s "
            f"FROM {LIVE} f WHERE f.client_id = %(client_id)s AND f.id = %(face_id)s ON CONFLICT DO NOTHING",
            {
                "client_id": one.client_id,
                "model_id": model_id,
                "face_id": one.face_id,
                "code": one.code,
                "reason": one.reason,
            },
        )


def refuse_taken(
    tx: sa.Connection, client_id: str, shadow: Shadow, model_id: str, face_ids: Sequence[int] | None = None
) -> None:
    """Record the live faces that the other table can't take, since it has the same photo in that region already, of somebody
    who was left behind and is still there.

    face_ids: only those, which are held. None: all, and those that can be taken by now are tried again.
    """
    parameters = {"client_id": client_id, "model_id": model_id, "code": _TAKEN, "reason": _TAKEN_REASON}
    of_them = ""
    if face_ids is None:
        tx.exec_driver_sql(
            "DELETE FROM reembedding_refusals WHERE client_id = %(client_id)s AND model_id = %(model_id)s "
            "AND code = %(code)s",
            parameters,
        )
    else:
        of_them = "AND k.id = ANY(%(ids)s::bigint[]) "
    tx.exec_driver_sql(
        "INSERT INTO reembedding_refusals (client_id, model_id, face_id, person_id, code, reason) "
        "SELECT k.client_id, %(model_id)s, k.id, k.person_id, %(code)s, %(reason)s "
        f"FROM {shadow} f JOIN persons p ON p.client_id = %(client_id)s AND p.id = f.person_id AND p.region = f.region "
        f"JOIN {LIVE} k ON k.client_id = %(client_id)s AND k.region = f.region AND k.image_sha256 = f.image_sha256 "
        "AND k.face_bbox = f.face_bbox AND k.image_data IS NOT NULL "
        f"WHERE f.client_id = %(client_id)s AND {ONLY_BESIDE} {of_them}"
        f"AND NOT EXISTS (SELECT 1 FROM {shadow} o WHERE o.client_id = %(client_id)s AND o.id = k.id) "
        "ORDER BY k.person_id ON CONFLICT DO NOTHING",
        {**parameters, "ids": face_ids},
    )


def forget_unmade(tx: sa.Connection, client_id: str) -> None:
    """Of any model: they are tried again."""
    tx.exec_driver_sql("DELETE FROM reembedding_refusals WHERE client_id = %s", (client_id,))


def counts(tx: sa.Connection, client_id: str, shadow: Shadow | None, model_id: str) -> Counts:
    """How far a tenant's gallery is. shadow: None where there is no other table."""
    made = "false" if shadow is None else f"NOT {_LACKING.format(shadow=shadow)}"
    persons = "false" if shadow is None else f"NOT ({_PERSON_LACKING.format(shadow=shadow)} AND NOT {_PERSON_WAITING})"
    row = (
        tx.exec_driver_sql(
            "SELECT count(*) AS faces, count(*) FILTER (WHERE made) AS made, "
            "count(*) FILTER (WHERE NOT made AND refused) AS unmade, "
            "count(*) FILTER (WHERE NOT made AND NOT refused AND bare) AS without_image "
            f"FROM (SELECT {made} AS made, {_REFUSED} AS refused, f.image_data IS NULL AS bare FROM {LIVE} f "
            "WHERE f.client_id = %(client_id)s OFFSET 0) f",
            {"client_id": client_id, "model_id": model_id},
        )
        .mappings()
        .one()
    )
    of_persons = (
        tx.exec_driver_sql(
            "SELECT count(*) AS persons, count(*) FILTER (WHERE NOT kept) AS persons_left FROM "
            f"(SELECT {persons} AS kept FROM (SELECT DISTINCT person_id FROM {LIVE} WHERE client_id = %(client_id)s) f "
            "OFFSET 0) p",
            {"client_id": client_id, "model_id": model_id},
        )
        .mappings()
        .one()
    )
    return Counts(**row, **of_persons)


def persons_left(
    tx: sa.Connection,
    client_id: str,
    having: str,
    lacking: str,
    *,
    model_id: str | None = None,
    after: int = 0,
    limit: int = 1_000,
    since: str | None = None,
) -> list[int]:
    """Persons with faces in the one table and none in the other, by ascending id.

    model_id: of the other table; who has a face that waits for it is left out. since: only those with a face that the live
    table had written by that transaction or a later one.
    """
    waiting = "" if model_id is None else f"AND NOT {_PERSON_WAITING} "
    faces = f"{having} f" if since is None else faces_since(since)
    rows = tx.exec_driver_sql(
        f"SELECT DISTINCT f.person_id FROM {faces} WHERE f.client_id = %(client_id)s AND f.person_id > %(after)s "
        f"AND {_PERSON_LACKING.format(shadow=lacking)} {waiting}ORDER BY 1 LIMIT %(limit)s",
        {"client_id": client_id, "model_id": model_id, "after": after, "limit": limit, "since": since},
    )
    return list(rows.scalars())


def left_behind(tx: sa.Connection, client_id: str, shadow: Shadow) -> LeftBehind:
    """What a tenant loses with the other table."""
    row = (
        tx.exec_driver_sql(
            "SELECT count(*) AS faces, count(DISTINCT f.person_id) FILTER (WHERE f.nowhere) AS persons FROM "
            f"(SELECT f.person_id, {_PERSON_LACKING.format(shadow=LIVE)} AS nowhere FROM {shadow} f "
            f"WHERE f.client_id = %(client_id)s AND {ONLY_BESIDE}) f",
            {"client_id": client_id},
        )
        .mappings()
        .one()
    )
    return LeftBehind(**row)


def unmade_faces(
    tx: sa.Connection, client_id: str, shadow: Shadow, model_id: str, *, after: int = 0, limit: int = 1_000
) -> list[Unmade]:
    """Faces that the other table has not, refused or without a photo, by ascending id."""
    # Who has the photo is not on record: an erasure would have to find it there.
    rows = tx.exec_driver_sql(
        "SELECT f.id, f.person_id, coalesce(r.code, 'no_image') AS code, "
        "coalesce(r.reason, 'No photo of it is stored.') || coalesce(("
        f"SELECT ' That is person ' || o.person_id || '.' FROM {shadow} o WHERE r.code = '{_TAKEN}' "
        "AND o.client_id = %(client_id)s AND o.region = f.region AND o.image_sha256 = f.image_sha256 "
        "AND o.face_bbox = f.face_bbox), '') AS reason "
        f"FROM {LIVE} f LEFT JOIN reembedding_refusals r "
        "ON r.client_id = %(client_id)s AND r.model_id = %(model_id)s AND r.face_id = f.id "
        "WHERE f.client_id = %(client_id)s AND f.id > %(after)s AND (f.image_data IS NULL OR r.code IS NOT NULL) "
        f"AND {_LACKING.format(shadow=shadow)} ORDER BY f.id LIMIT %(limit)s",
        {"client_id": client_id, "model_id": model_id, "after": after, "limit": limit},
    )
    return [Unmade(client_id, row.id, row.person_id, row.code, row.reason) for row in rows]


def _opened(vault: PhotoVault, client_id: str, row: sa.Row[Any]) -> StoredPhoto | Unmade:
    try:
        photo = open_photo(vault, client_id, row)
    except ImageKeyError as exc:
        if row.image_key_id not in vault.key_ids:
            raise
        return Unmade(client_id, row.id, row.person_id, exc.code, "Its stored photo does not open with its key.")
    return StoredPhoto(photo.face_id, photo.person_id, photo.box_here, photo.data)


_MOST_BYTES = 32 << 20
_TAKEN = "photo_taken"
_TAKEN_REASON = "The same photo is there in this region already, of somebody who was left behind."
_LACKING = "NOT EXISTS (SELECT 1 FROM {shadow} o WHERE o.client_id = %(client_id)s AND o.id = f.id)"
_PERSON_LACKING = (
    "NOT EXISTS (SELECT 1 FROM {shadow} o WHERE o.client_id = %(client_id)s AND o.person_id = f.person_id)"
)
_PERSON_WAITING = (
    f"EXISTS (SELECT 1 FROM {LIVE} w WHERE w.client_id = %(client_id)s AND w.person_id = f.person_id "
    "AND w.image_data IS NOT NULL AND NOT EXISTS (SELECT 1 FROM reembedding_refusals r "
    "WHERE r.client_id = %(client_id)s AND r.model_id = %(model_id)s AND r.face_id = w.id))"
)
_REFUSED = (
    "EXISTS (SELECT 1 FROM reembedding_refusals r "
    "WHERE r.client_id = %(client_id)s AND r.model_id = %(model_id)s AND r.face_id = f.id)"
)
