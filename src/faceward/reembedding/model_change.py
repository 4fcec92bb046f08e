"""The change of the embedding model from its beginning to its end: each step can be repeated, and interrupted."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import add

from faceward.errors import (
    BusyError,
    ConflictError,
    ConstraintViolatedError,
    ModelMismatchError,
    NotFoundError,
)
from faceward.reembedding.exchange import SEARCHES_SECONDS, Exchange, Exchanged
from faceward.reembedding.filling import Filler, FillSettings, Progress
from faceward.reembedding.photo_embedder import PhotoEmbedder
from faceward.store import reembedded_faces as remade
from faceward.store import reembeddings as records
from faceward.store import shadow as tables
from faceward.store.comparing import count_made
from faceward.store.database import Database
from faceward.store.embedding_models import models_in_use
from faceward.store.graph_index import GraphSettings
from faceward.store.photo_vault import PhotoVault
from faceward.store.reembedded_faces import Counts, LeftBehind, Unmade
from faceward.store.reembeddings import Reembedding
from faceward.store.schema import Schema

OpenEmbedder = Callable[[str], AbstractContextManager[PhotoEmbedder]]
"""Opens the model of that id, as the pack of its name on this machine."""


@dataclass(frozen=True, slots=True)
class ChangeStatus:
    """change: None where there never was one. counts: of the live gallery, of all tenants together. dimension: of the other
    table.
    """

    change: Reembedding | None
    counts: Counts | None
    dimension: int | None


class ModelChange:
    """Changes the model of one database, for all its tenants.

    database: works as the service's role. schema: of the login that owns the tables. vault: opens stored photos.
    open_embedder: opens models. graph: of the HNSW index that the new table gets.
    """

    def __init__(
        self, database: Database, schema: Schema, vault: PhotoVault, open_embedder: OpenEmbedder, graph: GraphSettings
    ) -> None:
        self._database = database
        self._schema = schema
        self._vault = vault
        self._open_embedder = open_embedder
        self._graph = graph
        self._dice = random.Random()

    def status(self) -> ChangeStatus:
        """Reads only."""
        change = records.latest(self._database)
        if change is None or change.ended_at is not None:
            return ChangeStatus(change, None, None)
        with self._database.unscoped() as tx:
            dimension = tables.dimension_of(tx, change.shadow)
        counted = [self._counts(client_id, change) for client_id in tables.tenants(self._database)]
        return ChangeStatus(change, reduce(add, counted, Counts()), dimension)

    def faces_left(self) -> Iterator[Unmade]:
        """The faces that the other table has not, with the reason, but for those that merely wait."""
        change = self._under_way()
        for client_id in tables.tenants(self._database):
            after = 0
            while True:
                with self._database.transaction(client_id) as tx:
                    page = remade.unmade_faces(tx, client_id, change.shadow, change.model_of_shadow, after=after)
                if not page:
                    break
                yield from page
                after = page[-1].face_id

    def begin(self, model_to: str, dimension: int) -> Reembedding:
        """Make the second table, unless that was done before for the same model.

        Raises ConflictError where another change is under way, the gallery is empty, or of that model already; ModelError
        where the model can't be opened.
        """
        models = models_in_use(self._database)
        change = records.latest(self._database)
        if change is not None and change.ended_at is None:
            if change.state == "cut_over":
                raise ConflictError(
                    f"The change to {change.model_to} is cut over and not finished. `faceward reembed finish`, or "
                    "`faceward reembed roll-back` and `faceward reembed abandon`, then begin another one."
                )
            if change.model_to != model_to:
                raise ConflictError(
                    f"The change to {change.model_to} is under way. `faceward reembed abandon` ends it, then begin another."
                )
            return change
        if not models:
            raise ConflictError("The gallery is empty: nothing has to be made anew. Set model.pack in config.json.")
        if models == {model_to}:
            raise ConflictError(f"The gallery is of the model {model_to} already.")
        (model_from,) = models
        with self._open_embedder(model_to):  # one that can't be used is told while no change is under way
            pass

        def make() -> Reembedding:
            with self._schema.transaction() as tx:
                tx.exec_driver_sql("SELECT set_config('lock_timeout', '3s', true)")
                begun = records.begin(tx, model_from, model_to)
                tables.make(tx, model_to, dimension)
                return begun

        try:
            return _patiently(make, self._dice)
        except ConstraintViolatedError as exc:
            if exc.constraint != "uq_reembedding_open":
                raise
            raise BusyError("Another process begins a change of the model. See `faceward reembed status`.") from exc

    def fill(
        self, settings: FillSettings | None = None, progress: Callable[[int, int], None] | None = None
    ) -> Reembedding:
        """Make what the second table lacks, then its indexes. progress: told how many faces are done, and of how many.

        May be interrupted at any moment and called again. Raises NotFoundError where no change was begun.
        """
        change = self._under_way()
        if change.state == "cut_over":
            raise ConflictError(f"The change to {change.model_to} is cut over: there is nothing to fill.")
        counted = {client_id: self._counts(client_id, change) for client_id in tables.tenants(self._database)}
        total = sum(each.made + each.waiting for each in counted.values())
        done = sum(each.made for each in counted.values())

        def advanced(faces: int) -> None:
            nonlocal done
            done += faces
            if progress is not None:
                progress(min(done, total), total)

        advanced(0)
        with self._filler(change, settings) as filler:
            for client_id in counted:
                filler.fill(client_id, advanced)
            for left in reversed(range(_ATTEMPTS)):
                for client_id in counted:
                    filler.bring_in_line(client_id)
                try:
                    self._schema.build_shadow_indexes()
                    break
                except ConstraintViolatedError:  # somebody moved people since they were brought in line
                    if not left:
                        raise
        self._schema.apply_graph(self._graph, tables.NEXT)
        if change.state == "filling":
            with self._schema.transaction() as tx:
                change = records.advance(tx, change, "ready")
        return change

    def retry(self) -> None:
        """Forget which faces were refused: the next filling tries them again."""
        self._under_way()
        for client_id in tables.tenants(self._database):
            with self._database.transaction(client_id) as tx:
                remade.forget_unmade(tx, client_id)

    def cut_over(
        self, *, leave_behind: bool = False, wait: float = 60.0, progress: Progress | None = None
    ) -> Exchanged:
        """The new model's table becomes the live one, in one transaction, for all tenants.

        leave_behind: also where persons have no face in it. wait: seconds to try for a moment without long readers. Raises
        PersonsLeftBehindError, BusyError, ConflictError; nothing is changed then.
        """
        change = self._under_way()
        if change.state == "filling":
            raise ConflictError("The filling is not at its end. Go on with `faceward reembed --pack NAME`.")
        if change.state == "cut_over":
            raise ConflictError(f"The gallery is of the model {change.model_to} already.")
        return self._exchange(change, leave_behind, wait, progress)

    def roll_back(
        self, *, leave_behind: bool = False, wait: float = 60.0, progress: Progress | None = None
    ) -> Exchanged:
        """The previous model's table becomes the live one again, and the new one waits to be cut over again.

        Raises as cut_over does.
        """
        change = self._under_way()
        if change.state != "cut_over":
            raise ConflictError("Nothing is cut over that could be rolled back.")
        return self._exchange(change, leave_behind, wait, progress)

    def lost_by_finish(self) -> LeftBehind:
        """What only the previous model's table has, of all tenants together. Reads only; raises as finish does."""
        return self._lost_with(self._cut_over())

    def finish(self) -> Reembedding:
        """Drop the previous model's table. There is no roll-back from then on."""
        return self._end(self._cut_over(), "finished")

    def lost_by_abandon(self) -> LeftBehind:
        """What only the new model's table has: of those whom a roll-back left behind. Reads only; raises as abandon does."""
        return self._lost_with(self._not_cut_over())

    def abandon(self) -> Reembedding:
        """Drop the table that was being filled, or that was rolled back; the live gallery is left as it is."""
        return self._end(self._not_cut_over(), "abandoned")

    def _lost_with(self, change: Reembedding) -> LeftBehind:
        lost = LeftBehind()
        for client_id in tables.tenants(self._database):
            with self._database.transaction(client_id) as tx:
                tx.exec_driver_sql("SET LOCAL statement_timeout = 0")
                lost += remade.left_behind(tx, client_id, change.shadow)
        return lost

    def _end(self, change: Reembedding, state: records.ReembeddingState) -> Reembedding:
        faces = self._faces_beside(change)

        def end() -> Reembedding:
            with self._schema.transaction() as tx:
                tables.drop(tx, change.shadow, seconds=SEARCHES_SECONDS)
                return records.advance(tx, change, state, faces=faces)

        ended = _patiently(end, self._dice)
        for client_id in tables.tenants(self._database):
            with self._database.transaction(client_id) as tx:
                remade.forget_unmade(tx, client_id)
        return ended

    def _faces_beside(self, change: Reembedding) -> int:
        with self._database.unscoped() as tx:
            there = change.shadow in tables.beside_live(tx)
        clients = tables.tenants(self._database) if there else []
        return sum(count_made(self._database, client_id, change.shadow) for client_id in clients)

    def _exchange(self, change: Reembedding, leave_behind: bool, wait: float, progress: Progress | None) -> Exchanged:
        with self._database.unscoped() as tx:
            missing = tables.missing_indexes(tx, change.shadow)
        if missing:
            raise ConflictError(
                f"The table {change.shadow} lacks indexes of the live one: {', '.join(missing)}. "
                "`faceward reembed --pack NAME` builds them."
            )
        with self._filler(change, FillSettings(workers=os.cpu_count() or 1)) as filler:
            exchange = Exchange(
                self._database, self._schema, filler, change, leave_behind=leave_behind, graph=self._graph.exists
            )
            return exchange.run(wait, progress)

    def _counts(self, client_id: str, change: Reembedding) -> Counts:
        with self._database.transaction(client_id) as tx:
            tx.exec_driver_sql("SET LOCAL statement_timeout = 0")
            return remade.counts(tx, client_id, change.shadow, change.model_of_shadow)

    @contextmanager
    def _filler(self, change: Reembedding, settings: FillSettings | None) -> Iterator[Filler]:
        settings = settings or FillSettings()
        with self._database.unscoped() as tx:
            carried = tables.carried_columns(tx, change.shadow)
        with (
            ExitStack() as opened,
            ThreadPoolExecutor(settings.workers, thread_name_prefix="faceward-reembed") as pool,
        ):
            known: list[PhotoEmbedder] = []

            def embedder() -> PhotoEmbedder:
                if not known:
                    known.append(opened.enter_context(self._open_embedder(change.model_of_shadow)))
                if known[0].model_id != change.model_of_shadow:
                    raise ModelMismatchError(
                        f"The pack on this machine is of the model {known[0].model_id}; what is needed is "
                        f"{change.model_of_shadow}. Install that pack: `faceward models add DIR`."
                    )
                return known[0]

            if change.state != "cut_over":  # the way back must not need the old pack where nobody was enrolled since
                embedder()
            yield Filler(self._database, change, carried, self._vault, embedder, pool, settings)

    def _cut_over(self) -> Reembedding:
        change = self._under_way()
        if change.state != "cut_over":
            raise ConflictError(
                "Nothing is cut over that could be finished. `faceward reembed abandon` drops what was made."
            )
        return change

    def _not_cut_over(self) -> Reembedding:
        change = self._under_way()
        if change.state == "cut_over":
            raise ConflictError(
                "The change is cut over. `faceward reembed roll-back` first, or `faceward reembed finish`."
            )
        return change

    def _under_way(self) -> Reembedding:
        change = records.latest(self._database)
        if change is None or change.ended_at is not None:
            raise NotFoundError("No change of the model is under way. `faceward reembed --pack NAME` begins one.")
        return change


_ATTEMPTS = 5


def _patiently(work: Callable[[], Reembedding], dice: random.Random) -> Reembedding:
    """Again and again while somebody else has what it needs."""
    for left in reversed(range(20)):
        try:
            return work()
        except BusyError:
            if not left:
                raise
            time.sleep(dice.uniform(0.1, 0.5))
    raise AssertionError("unreachable")
