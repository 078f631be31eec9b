"""Free space on the pages of `jobs`, so that keep-alives and status updates stay on the row's page.

`last_seen_at` is in no index: with free space on its page an update touches no index and leaves
nothing for vacuum (a heap-only tuple). This applies to pages written from now on. Rows are updated
a few times before they rest, so vacuum runs early, as for the outboxes.
"""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "ALTER TABLE jobs SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02,"
            " autovacuum_vacuum_threshold = 1000)"
        )


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "ALTER TABLE jobs RESET (fillfactor, autovacuum_vacuum_scale_factor,"
            " autovacuum_vacuum_threshold)"
        )
