"""Mails about webhooks that were disabled.

They take the place of `webhooks.notice_due_at`, which nothing uses any more. A notifier of the
version before would send one as if it were about a job, which can only happen to a webhook that is
disabled while both versions run.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("emails", sa.Column("webhook_id", sa.Integer))


def downgrade() -> None:
    op.execute("DELETE FROM emails WHERE webhook_id IS NOT NULL")
    op.drop_column("emails", "webhook_id")
