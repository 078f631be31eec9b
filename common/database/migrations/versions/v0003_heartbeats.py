"""When each part of the service was last healthy; gaps are outages.

A worker's silence means nothing during an outage, when its updates could not arrive.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "heartbeats",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("last_at", sa.DateTime, nullable=False),
        sa.Column("outage_ended_at", sa.DateTime, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("heartbeats")
