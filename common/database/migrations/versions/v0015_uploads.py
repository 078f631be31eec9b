"""Resumable uploads: how much of each has arrived, and who writes."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

_INDEXES = {
    "expiring ON uploads (expires_at)": "swept_at IS NULL",
    "unplaced ON uploads (user_id, received)": "finished_at IS NULL AND swept_at IS NULL",
    "whole ON uploads (id)": "sha256 IS NOT NULL AND finished_at IS NULL AND swept_at IS NULL",
    "swept ON uploads (swept_at)": "swept_at IS NOT NULL",
}


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("user_id", sa.String, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("staged_name", sa.Text, nullable=False),
        sa.Column("sent_metadata", sa.Text, nullable=False, server_default=""),
        sa.Column("length", sa.BigInteger, nullable=False),
        sa.Column("received", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("digest_state", sa.LargeBinary, nullable=False),
        sa.Column("expected_sha256", sa.String),
        sa.Column("sha256", sa.String),
        sa.Column("owner", sa.String),
        sa.Column("leased_until", sa.DateTime),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("expires_at", sa.DateTime, nullable=False),
        sa.Column("finished_at", sa.DateTime),
        sa.Column("etag", sa.Text),
        sa.Column("swept_at", sa.DateTime),
    )
    for index, condition in _INDEXES.items():
        op.execute(f"CREATE INDEX ix_uploads_{index} WHERE {condition}")
    op.create_index("ix_uploads_staged_name", "uploads", ["staged_name"])


def downgrade() -> None:
    op.drop_table("uploads")
