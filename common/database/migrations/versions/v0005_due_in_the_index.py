"""The index for claims holds the due times as well.

A claim skips items that are not due yet (retries after many refusals) without reading their rows,
whose payloads are large; and counting the backlog reads the index alone.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

_OUTBOXES = ("handovers", "emails")


def upgrade() -> None:
    _replace("priority DESC, id, due_at")


def downgrade() -> None:
    _replace("priority DESC, id")


def _replace(columns: str) -> None:
    for table in _OUTBOXES:
        op.drop_index(f"ix_{table}_pending", table)
        op.execute(
            f"CREATE INDEX ix_{table}_pending ON {table} ({columns}) WHERE state = 'pending'"
        )
