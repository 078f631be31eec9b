"""What each user's files take: measured from time to time, and what has changed since.

Users with unfinished jobs are to be measured first: their workers write.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    big_key = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "user_usage",
        sa.Column("user_id", sa.String, primary_key=True),
        sa.Column("bytes", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("measured_at", sa.DateTime),
        sa.Column("measured_until", sa.DateTime),
        sa.Column("active_until", sa.DateTime, nullable=False),
        sa.Column("rest_until", sa.DateTime),
        sa.Column("due_at", sa.DateTime),
        sa.Column("owner", sa.String),
    )
    op.execute("CREATE INDEX ix_user_usage_due ON user_usage (due_at) WHERE due_at IS NOT NULL")
    op.create_table(
        "usage_changes",
        sa.Column("id", big_key, primary_key=True),
        sa.Column("user_id", sa.String, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("began_at", sa.DateTime, nullable=False),
        sa.Column("ended_at", sa.DateTime, nullable=False),
    )
    op.create_index("ix_usage_changes_user", "usage_changes", ["user_id", "ended_at"])
    op.create_table(
        "usage_uploads",
        sa.Column("owner", sa.String, primary_key=True),
        sa.Column("user_id", sa.String, primary_key=True),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.DateTime, nullable=False),
    )
    op.create_index("ix_usage_uploads_user", "usage_uploads", ["user_id"])
    now = (
        "timezone('utc', now())"
        if op.get_bind().dialect.name == "postgresql"
        else "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
    )
    op.execute(
        f"INSERT INTO user_usage (user_id, active_until, due_at) SELECT DISTINCT user_id, {now},"
        f" {now} FROM jobs WHERE status NOT IN ('finished', 'error')"
    )


def downgrade() -> None:
    for table in ("usage_uploads", "usage_changes", "user_usage"):
        op.drop_table(table)
