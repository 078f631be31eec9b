"""Alembic's entry point: `common.database.schema` provides a connection in a transaction."""

from alembic import context

from common.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=False,
)
with context.begin_transaction():
    context.run_migrations()
