"""Alembic's entry: runs on the connection that `faceward.store.schema.upgrade` hands over, never on one of its own."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transaction_per_migration=False)
with context.begin_transaction():
    context.run_migrations()
