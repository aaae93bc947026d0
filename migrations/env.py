"""Runs the migrations on the connection that tern.store.schema hands over; never finds a database by itself."""

from alembic import context

from tern.store.evidence_tables import METADATA

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
