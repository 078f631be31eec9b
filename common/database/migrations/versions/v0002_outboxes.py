"""History and outboxes beside the jobs, and the columns of `jobs` that they need.

The service before this one has handed over every existing job, so none gets a hand-over. A
downgrade removes what this revision added and keeps `jobs`.
"""

import sqlalchemy as sa
from alembic import op

from common.database.errors import CannotDowngrade

revision = "0002"
down_revision = "0001"

_OUTBOXES = ("handovers", "emails")
_JOB_COLUMNS = ("last_seen_at", "correlation_id", "worker_number", "deleted_at")
_JOB_INDEXES = ("ix_jobs_user_newest", "ix_jobs_with_worker", "ix_jobs_deleted")


def _big_key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _job_key() -> sa.Column[int]:
    return sa.Column(
        "job_id", sa.Integer, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False
    )


def _outbox_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("id", _big_key(), primary_key=True),
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
    ]


def upgrade() -> None:
    op.add_column("jobs", sa.Column("last_seen_at", sa.DateTime))
    op.add_column("jobs", sa.Column("correlation_id", sa.String))
    op.add_column("jobs", sa.Column("worker_number", sa.Integer))
    op.add_column("jobs", sa.Column("deleted_at", sa.DateTime))
    _create_job_indexes()
    op.create_table(
        "job_events",
        sa.Column("id", _big_key(), primary_key=True),
        _job_key(),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("details", sa.Text),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
    )
    op.create_index("ix_job_events_job", "job_events", ["job_id", "id"])
    op.create_table(
        "handovers",
        *_outbox_columns(),
        _job_key(),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.UniqueConstraint("job_id", name="uq_handovers_job"),
    )
    op.create_table(
        "handover_numbers",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        _job_key(),
        sa.Column("created_at", sa.DateTime, nullable=False),
    )
    op.create_index("ix_handover_numbers_job", "handover_numbers", ["job_id"])
    op.create_table(
        "emails",
        *_outbox_columns(),
        _job_key(),
        sa.Column("priority", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("recipient", sa.String, nullable=False),
        sa.Column("custom_id", sa.String(64), nullable=False),
        sa.Column("awaits_details", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.UniqueConstraint("job_id", "kind", name="uq_emails_job_kind"),
        sa.UniqueConstraint("custom_id", name="uq_emails_custom_id"),
    )
    for table in _OUTBOXES:
        _create_outbox_indexes(table)


def _create_job_indexes() -> None:
    last = " NULLS LAST" if op.get_bind().dialect.name == "postgresql" else ""
    op.execute(
        f"CREATE INDEX ix_jobs_user_newest ON jobs (user_id, date_created DESC{last}, id DESC)"
    )
    op.execute(
        "CREATE INDEX ix_jobs_with_worker ON jobs (id)"
        " WHERE status IN ('pulled', 'preprocessing', 'running', 'postprocessing')"
    )
    op.execute("CREATE INDEX ix_jobs_deleted ON jobs (deleted_at) WHERE deleted_at IS NOT NULL")


def _create_outbox_indexes(table: str) -> None:
    op.execute(
        f"CREATE INDEX ix_{table}_pending ON {table} (priority DESC, id) WHERE state = 'pending'"
    )
    op.execute(
        f"CREATE INDEX ix_{table}_unsettled ON {table} (state, leased_until)"
        " WHERE state IN ('sending', 'in_doubt', 'held')"
    )
    op.execute(
        f"CREATE INDEX ix_{table}_settled ON {table} (settled_at) WHERE settled_at IS NOT NULL"
    )
    if op.get_bind().dialect.name == "postgresql":
        # rows are updated a few times and then removed: vacuum early, keep updates on their page
        op.execute(
            f"ALTER TABLE {table} SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02,"
            " autovacuum_vacuum_threshold = 1000)"
        )


def downgrade() -> None:
    _check_deletions()
    for table in ("emails", "handover_numbers", "handovers", "job_events"):
        op.drop_table(table)
    for index in _JOB_INDEXES:
        op.drop_index(index, "jobs")
    for column in _JOB_COLUMNS:
        op.drop_column("jobs", column)


def _check_deletions() -> None:
    """Refuse while a job is being deleted: without its mark it would reappear, some files gone."""
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"))
    found = connection.execute(
        sa.text("SELECT id FROM jobs WHERE deleted_at IS NOT NULL ORDER BY id LIMIT 10")
    )
    if marked := ", ".join(str(job_id) for (job_id,) in found):
        raise CannotDowngrade(
            f"the deletion of jobs is under way ({marked}): a dispatcher finishes it within a"
            " minute, so start one and try again."
        )
