"""Reads whole scopes (a region of a client) in a stream: codes for the sketches, full vectors for an audit.

Who is suspended or has expired is left out; who comes back has a new row version, and so is unseen.

Every reading is one snapshot together with its watermark (`faceward.store.watermarks`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from faceward.store.database import EVERY_CLIENT, SET_TENANT, Database
from faceward.store.person_states import MATCHABLE
from faceward.store.watermarks import LINEAGE, Watermark

_COPY_HEADER = 19  # signature, flags, and an empty extension area
_COPY_TRAILER = b"\xff\xff"
_BATCH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class ScopeSnapshot:
    """An open reading of a scope, or of what is new in it.

    faces: how many there are to come. dimension: of their embeddings.
    """

    faces: int
    dimension: int
    watermark: Watermark
    _connection: psycopg.Connection[Any]
    _condition: str
    _scope: dict[str, Any]

    def codes(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Batches of (codes uint8 (n, dimension / 8), ids int64 (n,))."""
        row = np.dtype([("fields", ">i2"), ("l1", ">i4"), ("id", ">i8"), ("l2", ">i4"), ("bits", ">i4"),
                        ("code", "u1", (self.dimension // 8,))])  # fmt: skip
        for batch in self._rows("f.id, f.code", row):
            yield batch["code"], batch["id"].astype(np.int64)

    def embeddings(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]]:
        """Batches of (embeddings float32 (n, dimension), face ids int64 (n,), person ids int64 (n,))."""
        row = np.dtype([("fields", ">i2"), ("l1", ">i4"), ("id", ">i8"), ("l2", ">i4"), ("person", ">i8"),
                        ("l3", ">i4"), ("dim", ">i2"), ("unused", ">i2"), ("v", ">f4", (self.dimension,))])  # fmt: skip
        for batch in self._rows("f.id, f.person_id, f.embedding", row):
            yield batch["v"].astype(np.float32), batch["id"].astype(np.int64), batch["person"].astype(np.int64)

    def persons(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Batches of (face ids int64 (n,), person ids int64 (n,))."""
        row = np.dtype([("fields", ">i2"), ("l1", ">i4"), ("id", ">i8"), ("l2", ">i4"), ("person", ">i8")])
        for batch in self._rows("f.id, f.person_id", row):
            yield batch["id"].astype(np.int64), batch["person"].astype(np.int64)

    def embeddings_of(self, face_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The embeddings of some faces of the scope, float32 (n, dimension), in the order of their ids."""
        rows = self._connection.execute(
            f"SELECT f.id, f.embedding FROM face_encodings f WHERE {self._condition} AND f.id = ANY(%(ids)s)",
            {**self._scope, "ids": face_ids.tolist()},
        ).fetchall()
        found = {face_id: vector.to_numpy() for face_id, vector in rows}
        return np.array([found[face_id] for face_id in face_ids.tolist()], dtype=np.float32)

    def _rows(self, columns: str, row: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        query = f"SELECT {columns} FROM face_encodings f WHERE {self._condition}"
        return copied_rows(self._connection, query, self._scope, row)


def copied_rows(
    connection: psycopg.Connection[Any], query: str, parameters: Mapping[str, Any], row: np.dtype[Any]
) -> Iterator[NDArray[Any]]:
    """Binary COPY of rows of one length, so that numpy reads a batch without a look at each. No column may be NULL."""
    waiting = bytearray()
    skip = _COPY_HEADER
    with connection.cursor().copy(f"COPY ({query}) TO STDOUT (FORMAT BINARY)", parameters) as copy:
        for data in copy:
            waiting += data
            if skip:
                if len(waiting) < skip:
                    continue
                del waiting[:skip]
                skip = 0
            if len(waiting) >= _BATCH_BYTES:
                whole = len(waiting) // row.itemsize
                yield np.frombuffer(bytes(waiting[: whole * row.itemsize]), dtype=row)
                del waiting[: whole * row.itemsize]
    if waiting.endswith(_COPY_TRAILER):
        del waiting[-2:]
    if waiting:
        yield np.frombuffer(bytes(waiting), dtype=row)


_SCOPE = "f.client_id = %(client_id)s AND f.region = %(region)s"
_MODEL = "f.model_id = %(model_id)s"


class ScopeReader:
    """Opens readings of scopes of one model's embeddings."""

    def __init__(self, database: Database, model_id: str, dimension: int) -> None:
        self._database = database
        self._model_id = model_id
        self._dimension = dimension

    @contextlib.contextmanager
    def open(self, client_id: str, region: str, *, since: Watermark | None = None) -> Iterator[ScopeSnapshot]:
        """A reading of the rows that a reading of the watermark `since` can lack; None reads all that may be matched."""
        scope = {"client_id": client_id, "region": region, "model_id": self._model_id}
        condition = f"{_SCOPE} AND {_MODEL} AND {MATCHABLE}"
        if since is not None:
            condition += " AND (" + " OR ".join(f"({part})" for part in since.unseen("")) + ")"
            scope.update(since.parameters(""))
        with self._database.driver_connection() as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            connection.execute(SET_TENANT, (client_id,))
            # A scope of millions takes longer to read than a search may.
            connection.execute("SET LOCAL statement_timeout = 0")
            found = connection.execute(_OPENING.format(condition=condition), scope).fetchone()
            assert found is not None
            version, lineage, restored, erasures, faces = found
            watermark = Watermark(int(version), lineage, None if restored is None else int(restored), erasures or 0)
            yield ScopeSnapshot(faces, self._dimension, watermark, connection, condition, scope)
            connection.execute("COMMIT")

    def erasures(self) -> dict[str, int]:
        """How many erasures each client has had; of those that had any."""
        with self._database.unscoped() as connection:
            connection.exec_driver_sql(EVERY_CLIENT)
            rows = connection.exec_driver_sql("SELECT client_id, erasures FROM clients WHERE erasures > 0").all()
        return {row.client_id: row.erasures for row in rows}


_OPENING = f"""
SELECT pg_snapshot_xmin(pg_current_snapshot())::text, {LINEAGE},
       (SELECT newest::text FROM (
           SELECT f.row_version AS newest FROM face_encodings f WHERE {_SCOPE} ORDER BY f.row_version DESC LIMIT 1
       ) n WHERE newest >= pg_snapshot_xmax(pg_current_snapshot())),
       (SELECT erasures FROM clients WHERE client_id = %(client_id)s),
       (SELECT count(*) FROM face_encodings f WHERE {{condition}})
"""
