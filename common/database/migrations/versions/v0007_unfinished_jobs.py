"""An index of the jobs that have not ended: they are counted by user and by status."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute(
        "CREATE INDEX ix_jobs_unfinished ON jobs (user_id, status)"
        " WHERE status NOT IN ('finished', 'error') AND deleted_at IS NULL"
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_unfinished", "jobs")
