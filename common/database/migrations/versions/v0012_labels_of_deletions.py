"""Deletions keep the labels of their jobs, for streams that are restricted to a label."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("job_deletions", sa.Column("labels", sa.JSON))


def downgrade() -> None:
    op.drop_column("job_deletions", "labels")
