"""Which model made the galleries of a database: one, since the embeddings of two can't be compared."""

from __future__ import annotations

import sqlalchemy as sa

from faceward.errors import ModelMismatchError
from faceward.store.database import EVERY_MODEL, Database

MODEL_LOCK = 0x6D6F6465  # "mode"
"""Held by whoever begins a tenant's gallery, and by a cut-over to another model."""


def ensure_model(tx: sa.Connection, client_id: str, model_id: str) -> None:
    """Record the model with a tenant's first face, and refuse any other from then on. Raises ModelMismatchError."""
    own = tx.exec_driver_sql("SELECT model_id FROM embedding_models WHERE client_id = %s", (client_id,))
    models = set(own.scalars())
    if models == {model_id}:
        return
    if not models:
        # Two services with different packs may write the first faces of a database at once.
        tx.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (MODEL_LOCK,))
        tx.exec_driver_sql(EVERY_MODEL)
        models = set(tx.exec_driver_sql("SELECT DISTINCT model_id FROM embedding_models").scalars())
    if models - {model_id}:
        raise ModelMismatchError(
            f"The gallery was made by the model {', '.join(sorted(models))}; the pack in use is {model_id}. Their "
            "embeddings can't be compared. Use the pack that made it, or a database of its own for this one."
        )
    tx.exec_driver_sql(
        "INSERT INTO embedding_models (client_id, model_id) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (client_id, model_id),
    )


def models_in_use(database: Database) -> frozenset[str]:
    """The models that made the galleries of all tenants: one, or none yet."""
    with database.unscoped() as tx:
        tx.exec_driver_sql(EVERY_MODEL)
        return frozenset(tx.exec_driver_sql("SELECT DISTINCT model_id FROM embedding_models").scalars())
