"""Fills the second table from the stored photos, tenant by tenant, in batches of one transaction each.

What is made is in the table and what can't be made is on record, so whoever begins anew, also after a SIGKILL, goes on
with the faces that wait. Searches and enrolments go on meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeVar

import sqlalchemy as sa

from faceward.errors import BusyError, ConstraintViolatedError
from faceward.reembedding.photo_embedder import PhotoEmbedder
from faceward.store.database import SET_TENANT, Database
from faceward.store.in_line import bring_in_line, hold
from faceward.store.photo_vault import PhotoVault
from faceward.store.reembedded_faces import (
    StoredPhoto,
    Unmade,
    newest_face,
    photos_waiting,
    refuse_taken,
    store_made,
    store_unmade,
)
from faceward.store.reembeddings import Reembedding
from faceward.types import Embedding

Progress: TypeAlias = Callable[[int], None]
"""Told how many faces more are done."""

_Result: TypeAlias = tuple[int, Embedding | Unmade]
"""A face's id, and what was made of it."""
_Done = TypeVar("_Done")
_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class FillSettings:
    """workers: photos analysed at once. pause: seconds that each worker rests after a photo. batch: the most photos of one
    transaction.
    """

    workers: int = 1
    pause: float = 0.0
    batch: int = 32


class Filler:
    """Fills the table that does not serve. carried: the columns that a face keeps whatever its model. vault: opens photos."""

    def __init__(
        self,
        database: Database,
        change: Reembedding,
        carried: Sequence[str],
        vault: PhotoVault,
        embedder: Callable[[], PhotoEmbedder],
        pool: ThreadPoolExecutor,
        settings: FillSettings,
    ) -> None:
        self._database = database
        self._change = change
        self._carried = carried
        self._vault = vault
        self._embedder = embedder
        self._pool = pool
        self._settings = settings

    def fill(self, client_id: str, progress: Progress | None = None, *, since: str | None = None) -> int:
        """Make what a tenant's gallery lacks, and bring in line what changed; returns how many faces these were.

        What is enrolled from now on is left for the next time: this one ends, however fast people are enrolled. since: only
        what was written by that transaction or a later one.
        """
        changed = self.bring_in_line(client_id, since=since)
        after = 0
        with self._database.transaction(client_id) as tx:
            until = newest_face(tx, client_id)
        while True:
            with self._database.transaction(client_id) as tx:
                tx.exec_driver_sql("SET LOCAL statement_timeout = 0")
                waiting = self._waiting(tx, client_id, after, since, until=until)
            if not waiting:
                return changed
            results = self._embed(client_id, waiting)
            changed += self._patiently(client_id, partial(self._store, client_id=client_id, results=results))
            after = waiting[-1].face_id
            if progress is not None:
                progress(len(waiting))

    def bring_in_line(self, client_id: str, *, since: str | None = None) -> int:
        """What the live table says otherwise now, the other one says too; returns of how many faces."""
        changed = 0
        work = partial(
            bring_in_line, client_id=client_id, shadow=self._change.shadow, carried=self._carried, since=since
        )
        while found := self._patiently(client_id, work):
            changed += found
        return changed

    def settle_taken(self, client_id: str) -> None:
        """As refuse_taken, of all faces of a tenant."""
        change = self._change
        work = partial(refuse_taken, client_id=client_id, shadow=change.shadow, model_id=change.model_of_shadow)
        self._patiently(client_id, work)

    def fill_held(self, tx: sa.Connection, client_id: str, since: str, *, most: int) -> tuple[int, int] | None:
        """As `fill`, inside a transaction in which nobody else writes; returns how many faces were made or brought in line, and
        how many the model was asked for.

        None, and little done, where these are more than `most`, or too many to be brought in line.
        """
        tx.exec_driver_sql(SET_TENANT, (client_id,))
        changed = bring_in_line(
            tx, client_id, self._change.shadow, carried=self._carried, since=since, limit=_MOST_MOVED
        )
        if changed == _MOST_MOVED:
            return None
        asked = after = 0
        while waiting := self._waiting(tx, client_id, after, since, limit=most - asked + 1):
            asked += len(waiting)
            if asked > most:
                return None
            changed += self._store(tx, client_id, self._embed(client_id, waiting))
            after = waiting[-1].face_id
        return changed, asked

    def _patiently(self, client_id: str, work: Callable[[sa.Connection], _Done]) -> _Done:
        """In a transaction that waits as long as others have the same people, and again where they moved them meanwhile."""
        for left in reversed(range(_ATTEMPTS)):
            try:
                with self._database.transaction(client_id) as tx:
                    tx.exec_driver_sql("SET LOCAL statement_timeout = 0")
                    return work(tx)
            except (BusyError, ConstraintViolatedError):
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _waiting(
        self,
        tx: sa.Connection,
        client_id: str,
        after: int,
        since: str | None,
        *,
        until: int | None = None,
        limit: int | None = None,
    ) -> list[StoredPhoto | Unmade]:
        change = self._change
        return photos_waiting(
            tx,
            client_id,
            change.shadow,
            change.model_of_shadow,
            after=after,
            limit=self._settings.batch if limit is None else limit,
            until=until,
            since=since,
            vault=self._vault,
        )

    def _embed(self, client_id: str, photos: Sequence[StoredPhoto | Unmade]) -> list[_Result]:
        if not photos:
            return []
        embedder = self._embedder()

        def embed(photo: StoredPhoto | Unmade) -> _Result:
            if isinstance(photo, Unmade):
                return photo.face_id, photo
            made = embedder.embed(client_id, photo)
            if self._settings.pause:
                time.sleep(self._settings.pause)
            return photo.face_id, made

        return list(self._pool.map(embed, photos))

    def _store(self, tx: sa.Connection, client_id: str, results: Sequence[_Result]) -> int:
        """Returns how many faces the other table has more."""
        hold(tx, client_id, [face_id for face_id, _ in results])
        model_id = self._change.model_of_shadow
        made = {face_id: found for face_id, found in results if not isinstance(found, Unmade)}
        stored = store_made(tx, client_id, self._change.shadow, model_id, made, carried=self._carried)
        if stored < len(made):
            refuse_taken(tx, client_id, self._change.shadow, model_id, list(made))
        store_unmade(tx, model_id, [found for _, found in results if isinstance(found, Unmade)])
        return stored


_MOST_MOVED = 2_000
"""Faces brought in line while nobody else may write."""
