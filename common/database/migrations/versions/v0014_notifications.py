"""Users' choices about mails, digests of several jobs, and addresses that get none.

A digest is a mail without a job. A notifier of the version before would send one without its list,
which can only concern a user who chooses `last` while both versions run.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_OUTBOX = (
    "id, state, attempts, doubts, due_at, owner, leased_until, last_error, correlation_id,"
    " created_at, settled_at"
)
_EMAIL = f"{_OUTBOX}, job_id, priority, kind, recipient, custom_id, awaits_details, alone"


def _big_key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("notify", sa.String))
    if op.get_bind().dialect.name == "sqlite":
        _rebuild_emails(sa.Column("user_id", sa.String), job_may_lack=True)
    else:
        op.alter_column("emails", "job_id", nullable=True)
        op.add_column("emails", sa.Column("user_id", sa.String))
    op.create_table(
        "notification_choices",
        sa.Column("user_id", sa.String, primary_key=True),
        sa.Column("mail", sa.String, nullable=False),
        sa.Column("changed_at", sa.DateTime, nullable=False),
    )
    op.create_table(
        "digest_jobs",
        sa.Column("id", _big_key(), primary_key=True),
        sa.Column("user_id", sa.String, nullable=False),
        sa.Column(
            "job_id", sa.Integer, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("mail_id", _big_key(), sa.ForeignKey("emails.id", ondelete="CASCADE")),
    )
    op.execute(
        "CREATE UNIQUE INDEX ix_digest_jobs_gathered ON digest_jobs (user_id, job_id)"
        " WHERE mail_id IS NULL"
    )
    op.create_index("ix_digest_jobs_job", "digest_jobs", ["job_id"])
    op.create_index("ix_digest_jobs_mail", "digest_jobs", ["mail_id"])
    op.create_table(
        "suppressed_addresses",
        sa.Column("address", sa.String, primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
    )


def _rebuild_emails(*added: sa.Column[str], job_may_lack: bool) -> None:
    """SQLite cannot change whether a column may be NULL."""
    for index in ("pending", "unsettled", "settled"):
        op.drop_index(f"ix_emails_{index}", "emails")
    op.rename_table("emails", "emails_before")
    job = sa.ForeignKey("jobs.id", ondelete="CASCADE")
    op.create_table(
        "emails",
        sa.Column("id", sa.Integer, primary_key=True),
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
        sa.Column("job_id", sa.Integer, job, nullable=job_may_lack),
        sa.Column("priority", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("recipient", sa.String, nullable=False),
        sa.Column("custom_id", sa.String(64), nullable=False),
        sa.Column("awaits_details", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("alone", sa.Boolean, nullable=False, server_default=sa.false()),
        *added,
        sa.UniqueConstraint("job_id", "kind", name="uq_emails_job_kind"),
        sa.UniqueConstraint("custom_id", name="uq_emails_custom_id"),
    )
    op.execute(f"INSERT INTO emails ({_EMAIL}) SELECT {_EMAIL} FROM emails_before")
    op.drop_table("emails_before")
    op.execute(
        "CREATE INDEX ix_emails_pending ON emails (priority DESC, id, due_at)"
        " WHERE state = 'pending'"
    )
    op.execute(
        "CREATE INDEX ix_emails_unsettled ON emails (state, leased_until)"
        " WHERE state IN ('sending', 'in_doubt', 'held')"
    )
    op.execute("CREATE INDEX ix_emails_settled ON emails (settled_at) WHERE settled_at IS NOT NULL")


def downgrade() -> None:
    for table in ("suppressed_addresses", "digest_jobs", "notification_choices"):
        op.drop_table(table)
    op.execute("DELETE FROM emails WHERE job_id IS NULL")
    if op.get_bind().dialect.name == "sqlite":
        _rebuild_emails(job_may_lack=False)
    else:
        op.drop_column("emails", "user_id")
        op.alter_column("emails", "job_id", nullable=False)
    op.drop_column("jobs", "notify")
