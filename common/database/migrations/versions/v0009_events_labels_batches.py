"""Events as a feed of each user, cancellation, labels, batches and idempotency keys.

The version before may run beside this one: a trigger gives its events their user. Events from
before this revision have none, since no feed could have announced them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_JOB_COLUMNS = {
    "batch_id": sa.Integer,
    "repeated_from": sa.Integer,
    "cancelled_at": sa.DateTime,
    "cancelled_by": sa.String,
    "cancel_reason": sa.Text,
    "cancel_confirmed_at": sa.DateTime,
}
_EVENT_COLUMNS = ("type", "job_status", "user_id")
_OLD_EVENT = "id, job_id, status, details, source, created_at"


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    _create_tables()
    for name, kind in _JOB_COLUMNS.items():
        op.add_column("jobs", sa.Column(name, kind))
    if is_sqlite:
        _rebuild_events(("type", "job_status", "user_id"), autoincrement=True)
        op.execute(
            "CREATE TRIGGER job_events_user AFTER INSERT ON job_events WHEN NEW.user_id IS NULL"
            " BEGIN UPDATE job_events"
            " SET user_id = (SELECT user_id FROM jobs WHERE id = NEW.job_id)"
            " WHERE id = NEW.id; END"
        )
    else:
        for name in _EVENT_COLUMNS:
            op.add_column("job_events", sa.Column(name, sa.String))
        op.execute(
            "CREATE FUNCTION job_events_fill_user() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " SELECT user_id INTO NEW.user_id FROM jobs WHERE id = NEW.job_id;"
            " RETURN NEW; END $$"
        )
        op.execute(
            "CREATE TRIGGER job_events_user BEFORE INSERT ON job_events FOR EACH ROW"
            " WHEN (NEW.user_id IS NULL) EXECUTE FUNCTION job_events_fill_user()"
        )
    op.execute("CREATE INDEX ix_jobs_batch ON jobs (batch_id) WHERE batch_id IS NOT NULL")
    op.execute(
        "CREATE INDEX ix_job_events_user ON job_events (user_id, id) WHERE user_id IS NOT NULL"
    )


def _big_key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _create_tables() -> None:
    op.create_table(
        "job_deletions",
        sa.Column("id", _big_key(), primary_key=True),
        sa.Column("job_id", sa.Integer, nullable=False),
        sa.Column("user_id", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_job_deletions_user", "job_deletions", ["user_id", "id"])
    op.create_index("ix_job_deletions_age", "job_deletions", ["created_at"])
    op.create_table(
        "job_labels",
        sa.Column(
            "job_id", sa.Integer, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("value", sa.String, nullable=False),
        sa.Column("user_id", sa.String, nullable=False),
    )
    op.create_index("ix_job_labels_user", "job_labels", ["user_id", "key", "value", "job_id"])
    op.create_table(
        "job_batches",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("user_id", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", sa.String, primary_key=True),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("owner", sa.String),
        sa.Column("busy_until", sa.DateTime),
        sa.Column("status", sa.Integer),
        sa.Column("body", sa.Text),
        sa.Column("headers", sa.JSON),
    )
    op.create_index("ix_idempotency_keys_age", "idempotency_keys", ["created_at"])


def _rebuild_events(added: tuple[str, ...], *, autoincrement: bool) -> None:
    """SQLite: with AUTOINCREMENT, since ids that are cursors must never be used again."""
    op.drop_index("ix_job_events_job", "job_events")
    op.rename_table("job_events", "job_events_before")
    op.create_table(
        "job_events",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "job_id", sa.Integer, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("details", sa.Text),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        *(sa.Column(name, sa.String) for name in added),
        sqlite_autoincrement=autoincrement,
    )
    op.create_index("ix_job_events_job", "job_events", ["job_id", "id"])
    op.execute(f"INSERT INTO job_events ({_OLD_EVENT}) SELECT {_OLD_EVENT} FROM job_events_before")
    op.drop_table("job_events_before")


def downgrade() -> None:
    op.execute("DELETE FROM job_events WHERE type IN ('cancel', 'cancelled', 'deleted')")
    op.drop_index("ix_job_events_user", "job_events")
    op.drop_index("ix_jobs_batch", "jobs")
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER job_events_user")
        _rebuild_events((), autoincrement=False)
    else:
        op.execute("DROP TRIGGER job_events_user ON job_events")
        op.execute("DROP FUNCTION job_events_fill_user()")
        for column in _EVENT_COLUMNS:
            op.drop_column("job_events", column)
    for column in _JOB_COLUMNS:
        op.drop_column("jobs", column)
    for table in ("idempotency_keys", "job_labels", "job_deletions", "job_batches"):
        op.drop_table(table)
