"""The record of a change of the embedding model, and the audit log's entries of it.

A change concerns all tenants at once: both are kept under the client `default`. Its counts are of all of them together.

The functions work inside a transaction of one tenant, as any role: row-level security is obeyed, and each statement names
the tenant as well.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import sqlalchemy as sa

from faceward.checks import DEFAULT_CLIENT
from faceward.errors import ConflictError
from faceward.store.audit_log import Action, record
from faceward.store.database import SET_TENANT, Database
from faceward.store.shadow import NEXT, PREVIOUS, Shadow

ReembeddingState: TypeAlias = Literal["filling", "ready", "cut_over", "finished", "abandoned"]
_ACTIONS: dict[tuple[str, str], Action] = {
    ("ready", "cut_over"): "reembed.cut_over",
    ("cut_over", "ready"): "reembed.roll_back",
    ("cut_over", "finished"): "reembed.finish",
    ("filling", "abandoned"): "reembed.abandon",
    ("ready", "abandoned"): "reembed.abandon",
}
"""What the audit log calls a step; that the filling is at its end is none."""
_OPEN = "state IN ('filling', 'ready', 'cut_over')"
_COLUMNS = "id, model_from, model_to, state, started_at, ready_at, cut_over_at, rolled_back_at, ended_at"


@dataclass(frozen=True, slots=True)
class Reembedding:
    """A change of the model, of all tenants at once.

    filling: the second table is being filled. ready: it is whole, but for what was enrolled since. cut_over: it serves, and
    the previous one is kept for a roll-back, which leads back to ready. finished, abandoned: over.
    """

    id: int
    model_from: str
    model_to: str
    state: ReembeddingState
    started_at: dt.datetime
    ready_at: dt.datetime | None
    cut_over_at: dt.datetime | None
    rolled_back_at: dt.datetime | None
    ended_at: dt.datetime | None

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> Reembedding:
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})

    @property
    def shadow(self) -> Shadow:
        """The table that does not serve."""
        return PREVIOUS if self.state == "cut_over" else NEXT

    @property
    def model_of_shadow(self) -> str:
        return self.model_from if self.state == "cut_over" else self.model_to

    @property
    def model_of_live(self) -> str:
        return self.model_to if self.state == "cut_over" else self.model_from


def latest(database: Database) -> Reembedding | None:
    """The change of the model that is under way, else the last one that was."""
    with database.transaction(DEFAULT_CLIENT) as tx:
        return _latest(tx)


def models_known(database: Database) -> frozenset[str]:
    """The models that the gallery was changed from or to, finished or not."""
    with database.transaction(DEFAULT_CLIENT) as tx:
        rows = tx.exec_driver_sql(
            "SELECT model_from, model_to FROM reembeddings WHERE client_id = %s AND cut_over_at IS NOT NULL",
            (DEFAULT_CLIENT,),
        )
        return frozenset(model for row in rows for model in row)


def begin(tx: sa.Connection, model_from: str, model_to: str) -> Reembedding:
    """Raises ConstraintViolatedError where one is under way."""
    tx.exec_driver_sql(SET_TENANT, (DEFAULT_CLIENT,))
    row = tx.exec_driver_sql(
        f"INSERT INTO reembeddings (client_id, model_from, model_to, state) VALUES (%s, %s, %s, 'filling') "
        f"RETURNING {_COLUMNS}",
        (DEFAULT_CLIENT, model_from, model_to),
    )
    record(tx, DEFAULT_CLIENT, "reembed.begin", model_from=model_from, model_to=model_to)
    return Reembedding.from_row(row.mappings().one())


def advance(tx: sa.Connection, change: Reembedding, state: ReembeddingState, **counts: int) -> Reembedding:
    """Record the next state, and in the audit log who did it, with the counts.

    Raises ConflictError where another process has brought it further meanwhile.
    """
    moment = {"ready": "ready_at", "cut_over": "cut_over_at"}.get(state, "ended_at")
    if change.state == "cut_over" and state == "ready":
        moment = "rolled_back_at"
    tx.exec_driver_sql(SET_TENANT, (DEFAULT_CLIENT,))
    row = (
        tx.exec_driver_sql(
            f"UPDATE reembeddings SET state = %s, {moment} = now() WHERE client_id = %s AND id = %s AND state = %s "
            f"RETURNING {_COLUMNS}",
            (state, DEFAULT_CLIENT, change.id, change.state),
        )
        .mappings()
        .first()
    )
    if row is None:
        raise ConflictError("Another process has gone on with this change of the model. See `faceward reembed status`.")
    action = _ACTIONS.get((change.state, state))
    if action is not None:
        record(tx, DEFAULT_CLIENT, action, model_from=change.model_from, model_to=change.model_to, **counts)
    return Reembedding.from_row(row)


def _latest(tx: sa.Connection) -> Reembedding | None:
    row = (
        tx.exec_driver_sql(
            f"SELECT {_COLUMNS} FROM reembeddings WHERE client_id = %s ORDER BY ({_OPEN}) DESC, id DESC LIMIT 1",
            (DEFAULT_CLIENT,),
        )
        .mappings()
        .first()
    )
    return None if row is None else Reembedding.from_row(row)
