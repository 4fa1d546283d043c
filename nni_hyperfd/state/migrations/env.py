"""Alembic runs this to migrate: over the connection that it is given, in the transaction that is open there."""

from __future__ import annotations

from alembic import context

from nni_hyperfd.state.tables import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
