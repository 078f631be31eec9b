"""Webhooks, and the outbox of what is delivered to them."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_PARTIAL = {
    "ix_webhook_deliveries_pending": (
        "webhook_deliveries (priority DESC, id, due_at) WHERE state = 'pending'"
    ),
    "ix_webhook_deliveries_unsettled": (
        "webhook_deliveries (state, leased_until) WHERE state IN ('sending', 'in_doubt', 'held')"
    ),
    "ix_webhook_deliveries_settled": (
        "webhook_deliveries (settled_at) WHERE settled_at IS NOT NULL"
    ),
    "ix_webhook_deliveries_sending": "webhook_deliveries (webhook_id) WHERE state = 'sending'",
    "ix_webhooks_paused": "webhooks (paused_until) WHERE paused_until IS NOT NULL",
    "ix_webhooks_failing": "webhooks (failing_since) WHERE failing_since IS NOT NULL",
    "ix_webhooks_notices": "webhooks (notice_due_at) WHERE notice_due_at IS NOT NULL",
}


def upgrade() -> None:
    _create_webhooks()
    _create_deliveries()
    for name, columns in _PARTIAL.items():
        op.execute(f"CREATE INDEX {name} ON {columns}")
    if op.get_bind().dialect.name == "postgresql":
        # as the other outboxes: rows are updated a few times and then removed
        op.execute(
            "ALTER TABLE webhook_deliveries SET (fillfactor = 70,"
            " autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000)"
        )


def _create_webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("user_id", sa.String, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("events", sa.JSON, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("previous_secret", sa.Text),
        sa.Column("previous_until", sa.DateTime),
        sa.Column("mail_to", sa.String),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("disabled_at", sa.DateTime),
        sa.Column("failing_since", sa.DateTime),
        sa.Column("failures", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("paused_until", sa.DateTime),
        sa.Column("notice_due_at", sa.DateTime),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_webhooks_user", "webhooks", ["user_id"])


def _create_deliveries() -> None:
    big_key = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", big_key, primary_key=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("doubts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("due_at", sa.DateTime, nullable=False),
        sa.Column("owner", sa.String),
        sa.Column("leased_until", sa.DateTime),
        sa.Column("last_error", sa.Text),
        sa.Column("correlation_id", sa.String),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("settled_at", sa.DateTime),
        sa.Column(
            "webhook_id",
            sa.Integer,
            sa.ForeignKey("webhooks.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("job_id", sa.Integer, sa.ForeignKey("jobs.id", ondelete="CASCADE")),
        sa.Column("priority", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("message", sa.String(64), nullable=False),
        sa.Column("event", sa.String, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("last_status", sa.Integer),
        sa.Column("attempts_before", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.UniqueConstraint("message", name="uq_webhook_deliveries_message"),
    )
    op.create_index("ix_webhook_deliveries_webhook", "webhook_deliveries", ["webhook_id", "id"])
    op.create_index("ix_webhook_deliveries_job", "webhook_deliveries", ["job_id"])


def downgrade() -> None:
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")
