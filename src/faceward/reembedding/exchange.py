"""The exchange of the two tables of faces, for all tenants at once: at a cut-over, and back at a roll-back.

Nearly all is caught up while everybody works. Then writes wait for the rest of it, and searches for the exchange of names;
where somebody reads for long, all is given up for a moment and tried again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from faceward.errors import BusyError, ConstraintViolatedError, PersonsLeftBehindError
from faceward.reembedding.filling import Filler, Progress
from faceward.store import in_line
from faceward.store import reembedded_faces as remade
from faceward.store import reembeddings as records
from faceward.store import shadow as tables
from faceward.store.database import SET_TENANT, Database
from faceward.store.reembeddings import Reembedding
from faceward.store.schema import Schema

SEARCHES_SECONDS = 0.2
"""For how long searches may have to wait for those before them, at each try."""

_FEW, _MANY = 32, 512
"""Faces made anew while nobody else may write: at first a second of the model's time, and with each try more, since where
people are enrolled as fast as the model embeds there are never few.
"""
_WRITES_SECONDS = 3.0
_SEARCHES_TRIED = 8
_TRIED_ASTRAY = 5
_LISTED = 1_000


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What a cut-over or a roll-back did.

    caught_up: faces made or brought in line since the filling. left: persons who have no face now, (client, person), the
    first thousand of persons_left. writes_held, searches_held: seconds for which others waited. graph_missing: the HNSW index
    is to exist, and the table that serves now has none.
    """

    change: Reembedding
    caught_up: int
    persons_left: int
    left: tuple[tuple[str, int], ...]
    attempts: int
    writes_held: float
    searches_held: float
    graph_missing: bool


class Exchange:
    """One exchange. filler: of the table that comes. leave_behind: also where persons have no face in it. graph: whether the
    HNSW index is to exist.
    """

    def __init__(
        self,
        database: Database,
        schema: Schema,
        filler: Filler,
        change: Reembedding,
        *,
        leave_behind: bool,
        graph: bool,
    ) -> None:
        self._database = database
        self._schema = schema
        self._filler = filler
        self._change = change
        self._leave_behind = leave_behind
        self._graph = graph
        self._dice = random.Random()

    def run(self, wait: float, progress: Progress | None = None) -> Exchanged:
        """wait: seconds to try for a moment without long readers.

        Raises PersonsLeftBehindError, BusyError, ConflictError; nothing is exchanged then.
        """
        until = time.monotonic() + wait
        began = since = self._version()
        for client_id in tables.tenants(self._database):
            self._filler.settle_taken(client_id)
        caught_up = sum(self._filler.fill(client_id, progress) for client_id in tables.tenants(self._database))
        to_leave = self._look_who_is_left()
        behind = [client_id for client_id in tables.tenants(self._database) if self._leaves_behind(client_id)]
        attempts = astray = 0
        while True:
            attempts += 1
            # What was written meanwhile is caught up before the others have to wait, so that they wait for little.
            now = self._version()
            with self._schema.transaction() as tx:
                changed = tables.changed_tenants(tx, since)
            caught_up += sum(self._filler.fill(client_id, progress, since=since) for client_id in changed)
            self._set_left_behind_aside(behind)
            held = _Held()
            try:
                exchanged, caught_up = self._hold_and_exchange(now, began, behind, caught_up, to_leave, attempts, held)
                break
            except BusyError:
                if time.monotonic() > until:
                    raise BusyError(
                        f"Persons and faces were in use all the time, in {attempts} attempts: by a backup, or a large "
                        "import. Nothing was changed; try again when that has ended."
                    ) from None
            except ConstraintViolatedError:  # somebody moved people who are left behind
                astray += 1
                if astray == _TRIED_ASTRAY or time.monotonic() > until:
                    raise
            time.sleep(self._dice.uniform(0.1, 0.5))
            since = now
        with self._schema.transaction() as tx:
            tables.validate(tx)
            graph_missing = self._graph and not tables.has_graph(tx)
        count, left = self._persons_left(exchanged.shadow, tables.LIVE)
        return Exchanged(
            exchanged,
            caught_up,
            count,
            left,
            attempts,
            round(held.writes, 3),
            round(held.searches, 3),
            graph_missing,
        )

    def _hold_and_exchange(
        self,
        since: str,
        began: str,
        behind: Sequence[str],
        caught_up: int,
        to_leave: int,
        attempts: int,
        held: _Held,
    ) -> tuple[Reembedding, int]:
        """Returns the record, and how many faces were caught up, with those before.

        since: what was written from then on may not be in line. began: what was written from then on may have waited when it
        was looked who would be left without a face; to_leave: how many that were. behind: clients of whom the table that comes
        has faces that the live one has not.
        """
        change, incoming = self._change, self._change.shadow
        state: records.ReembeddingState = "ready" if change.state == "cut_over" else "cut_over"
        outgoing = tables.PREVIOUS if state == "cut_over" else tables.NEXT
        left = min(_FEW << (attempts - 1), _MANY)
        with self._schema.transaction() as tx:
            tx.exec_driver_sql("SET LOCAL enable_seqscan = off")
            tables.hold_writes(tx, incoming, seconds=_WRITES_SECONDS)
            held.begin()
            tables.carried_columns(tx, incoming)
            for client_id in tables.changed_tenants(tx, since):
                done = self._filler.fill_held(tx, client_id, since, most=left)
                if done is None:
                    raise BusyError("More was enrolled or moved meanwhile than can be caught up while others wait.")
                changed, asked = done
                caught_up += changed
                left -= asked
            if not self._leave_behind:
                self._require_nobody_left_since(tx, began)
            for client_id in behind:  # nobody moved or suspended these faces with their persons
                tx.exec_driver_sql(SET_TENANT, (client_id,))
                caught_up += in_line.bring_left_behind_in_line(tx, client_id, incoming)
            _hold_searches(tx, incoming)
            held.begin_searches()
            tables.exchange(tx, incoming, outgoing, model_from=change.model_of_live, model_to=change.model_of_shadow)
            exchanged = records.advance(tx, change, state, caught_up=caught_up, persons_left=to_leave)
        held.end()
        return exchanged, caught_up

    def _look_who_is_left(self) -> int:
        """How many would be without a face, but for those who were written since all this began and wait."""
        count, left = self._persons_left(tables.LIVE, self._change.shadow, self._change.model_of_shadow)
        if count and not self._leave_behind:
            raise PersonsLeftBehindError(count, left, self._change.model_of_shadow)
        return count

    def _require_nobody_left_since(self, tx: sa.Connection, since: str) -> None:
        left: list[tuple[str, int]] = []
        for client_id in tables.changed_tenants(tx, since):
            tx.exec_driver_sql(SET_TENANT, (client_id,))
            page = remade.persons_left(tx, client_id, tables.LIVE, self._change.shadow, since=since)
            left += [(client_id, person) for person in page]
        if left:
            raise PersonsLeftBehindError(len(left), tuple(left), self._change.model_of_shadow)

    def _persons_left(
        self, having: str, lacking: str, model_id: str | None = None
    ) -> tuple[int, tuple[tuple[str, int], ...]]:
        """The persons who have faces in one table and none in the other: how many, and the first of them.

        model_id: of the other one; who was enrolled this moment and merely waits for it is none of them.
        """
        count, left = 0, list[tuple[str, int]]()
        for client_id in tables.tenants(self._database):
            after = 0
            while True:
                with self._database.transaction(client_id) as tx:
                    tx.exec_driver_sql("SET LOCAL statement_timeout = 0")
                    page = remade.persons_left(tx, client_id, having, lacking, model_id=model_id, after=after)
                if not page:
                    break
                count, after = count + len(page), page[-1]
                left += [(client_id, person) for person in page[: _LISTED - len(left)]]
        return count, tuple(left)

    def _leaves_behind(self, client_id: str) -> bool:
        with self._database.transaction(client_id) as tx:
            tx.exec_driver_sql("SET LOCAL statement_timeout = 0")
            return in_line.leaves_behind(tx, client_id, self._change.shadow)

    def _set_left_behind_aside(self, clients: Sequence[str]) -> None:
        for client_id in clients:
            with self._database.transaction(client_id) as tx:
                tx.exec_driver_sql("SET LOCAL statement_timeout = 0")
                in_line.set_left_behind_aside(tx, client_id, self._change.shadow)

    def _version(self) -> str:
        with self._database.unscoped() as tx:
            return remade.snapshot_version(tx)


class _Held:
    """For how long others wait."""

    def __init__(self) -> None:
        self.writes = self.searches = 0.0
        self._writes_from = self._searches_from = 0.0

    def begin(self) -> None:
        self._writes_from = time.monotonic()

    def begin_searches(self) -> None:
        self._searches_from = time.monotonic()

    def end(self) -> None:
        now = time.monotonic()
        self.writes, self.searches = now - self._writes_from, now - self._searches_from


def _hold_searches(tx: sa.Connection, incoming: tables.Shadow) -> None:
    """Searches queue behind this for a fifth of a second at most, then they go on and it is tried again."""
    for left in reversed(range(_SEARCHES_TRIED)):
        point = tx.begin_nested()
        try:
            tables.hold_searches(tx, incoming, seconds=SEARCHES_SECONDS)
            point.commit()
            return
        except sa.exc.DBAPIError:
            point.rollback()
            if not left:
                raise
            time.sleep(0.1)
