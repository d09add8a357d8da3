"""Runs a step on the connection that `control.store.database` hands over; there is no alembic.ini."""

from alembic import context

from belljar.control.store.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
