"""When the parts of the service were last all right, so that an outage's end is remembered.

Silence of a job's worker means nothing while nobody could have heard it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "heartbeats",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("last_at", sa.DateTime, nullable=False),
        sa.Column("outage_ended_at", sa.DateTime, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("heartbeats")
