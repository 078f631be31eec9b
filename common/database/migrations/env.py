"""Alembic's entry point: `common.migrate` hands over a connection that is in a transaction."""

from alembic import context

from common.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=False,
)
with context.begin_transaction():
    context.run_migrations()
