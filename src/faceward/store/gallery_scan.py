"""Reads whole regions of a client as they are filed: which face is whose, how good it is, and where it lies.

All that one scan reads is of one snapshot: the faces that a search may find at that moment. It holds a transaction open as
long as it lasts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from faceward.store.database import SET_TENANT, Database
from faceward.store.person_states import MATCHABLE
from faceward.store.scopes import copied_rows

_SCOPE = f"f.client_id = %(client_id)s AND f.region = %(region)s AND f.model_id = %(model_id)s AND {MATCHABLE}"
_FACES = f"""
SELECT f.id, f.person_id, coalesce(f.quality_score, 'NaN'::real) FROM face_encodings f WHERE {_SCOPE}
"""
_EMBEDDINGS = f"SELECT f.id, f.embedding FROM face_encodings f WHERE {_SCOPE} AND f.id > %(after)s"
_SAME = """
SELECT unnest(p.ids), p.ids[1] FROM (
    SELECT array_agg(id ORDER BY id) AS ids FROM persons
    WHERE client_id = %(client_id)s AND external_id IS NOT NULL GROUP BY external_id HAVING count(*) > 1
) p
"""


@dataclass(frozen=True, slots=True, eq=False)
class FiledFaces:
    """The faces of a region in the order of their ids.

    ids, persons: int64 (n,). quality: float32 (n,), NaN where it is not known.
    """

    ids: NDArray[np.int64] = field(repr=False)
    persons: NDArray[np.int64] = field(repr=False)
    quality: NDArray[np.float32] = field(repr=False)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class GallerySnapshot:
    """An open scan of a client's gallery. dimension: of its embeddings."""

    dimension: int
    _connection: psycopg.Connection[Any]
    _scope: dict[str, Any]

    def regions(self) -> tuple[str, ...]:
        """The names of the client's regions."""
        rows = self._connection.execute(
            "SELECT name FROM regions WHERE client_id = %(client_id)s ORDER BY name", self._scope
        )
        return tuple(row[0] for row in rows)

    def faces(self, region: str) -> FiledFaces:
        row = np.dtype([("fields", ">i2"), ("l1", ">i4"), ("id", ">i8"), ("l2", ">i4"), ("person", ">i8"),
                        ("l3", ">i4"), ("quality", ">f4")])  # fmt: skip
        batches = list(copied_rows(self._connection, _FACES, {**self._scope, "region": region}, row))
        found = np.concatenate(batches) if batches else np.empty(0, dtype=row)
        found = found[np.argsort(found["id"], kind="stable")]
        return FiledFaces(
            found["id"].astype(np.int64), found["person"].astype(np.int64), found["quality"].astype(np.float32)
        )

    def block(self, region: str, after: int, most: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(embeddings float32 (n, dimension), face ids int64 (n,)) of the next faces above the id `after`, at most `most`."""
        # Reserved at once: joining batches would hold them twice.
        rows = np.empty((most, self.dimension), dtype=np.float32)
        ids = np.empty(most, dtype=np.int64)
        filled = 0
        for part, part_ids in self._embeddings(region, after, f"ORDER BY f.id LIMIT {int(most)}"):
            rows[filled : filled + len(part)], ids[filled : filled + len(part)] = part, part_ids
            filled += len(part)
        return rows[:filled], ids[:filled]

    def embeddings(self, region: str, after: int = 0) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Batches of (embeddings float32 (n, dimension), face ids int64 (n,)) above the id `after`, in any order."""
        return self._embeddings(region, after, "")

    def rows_of(self, region: str, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The embeddings of some faces, float32 (n, dimension). ids: rising."""
        rows = np.empty((len(ids), self.dimension), dtype=np.float32)
        for start in range(0, len(ids), 1_000):
            some = ids[start : start + 1_000]
            found = self._connection.execute(
                "SELECT f.embedding FROM face_encodings f WHERE f.client_id = %(client_id)s AND f.region = %(region)s "
                "AND f.id = ANY(%(ids)s) ORDER BY f.id",
                {**self._scope, "region": region, "ids": some.tolist()},
            ).fetchall()
            for place, (vector,) in enumerate(found):
                rows[start + place] = vector.to_numpy()
        return rows

    def twins(self) -> dict[int, int]:
        """Persons who are one by their external id, in several regions: each with the first of them."""
        rows = self._connection.execute(_SAME, self._scope).fetchall()
        return {int(person): int(first) for person, first in rows}

    def persons(self, person_ids: Sequence[int]) -> dict[int, tuple[str, str]]:
        """Name and region of each."""
        rows = self._connection.execute(
            "SELECT id, name, region FROM persons WHERE client_id = %(client_id)s AND id = ANY(%(ids)s)",
            {**self._scope, "ids": list(person_ids)},
        ).fetchall()
        return {int(person): (name, region) for person, name, region in rows}

    def _embeddings(self, region: str, after: int, end: str) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        row = np.dtype([("fields", ">i2"), ("l1", ">i4"), ("id", ">i8"), ("l2", ">i4"), ("dim", ">i2"),
                        ("unused", ">i2"), ("v", ">f4", (self.dimension,))])  # fmt: skip
        parameters = {**self._scope, "region": region, "after": after}
        for batch in copied_rows(self._connection, f"{_EMBEDDINGS} {end}", parameters, row):
            yield batch["v"].astype(np.float32), batch["id"].astype(np.int64)


class GalleryScanner:
    """Opens scans of the galleries of one model's embeddings."""

    def __init__(self, database: Database, model_id: str, dimension: int) -> None:
        self._database = database
        self._model_id = model_id
        self._dimension = dimension

    @contextlib.contextmanager
    def open(self, client_id: str) -> Iterator[GallerySnapshot]:
        with self._database.driver_connection() as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            connection.execute(SET_TENANT, (client_id,))
            # Millions of faces take longer than a request's statement may.
            connection.execute("SET LOCAL statement_timeout = 0")
            yield GallerySnapshot(self._dimension, connection, {"client_id": client_id, "model_id": self._model_id})
            connection.execute("COMMIT")
