"""Digests of files, each of one version of the file at a path."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

_PATH = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "file_digests",
        sa.Column("user_id", sa.String, nullable=False),
        sa.Column("path", _PATH, nullable=False),
        sa.Column("etag", sa.Text, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("checked_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "path"),
    )
    op.create_index("ix_file_digests_checked", "file_digests", ["checked_at"])


def downgrade() -> None:
    op.drop_table("file_digests")
