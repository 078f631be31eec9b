"""The tables in SQLAlchemy Core; the migrations create them.

All times are UTC without a time zone, as the existing deployment's table has them.
"""

from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata: Final = MetaData()

MAX_JOB_ID: Final = 2**31 - 1
"""The largest id that the column can hold."""

ENVIRONMENTS: Final = ("cloud", "local", "any")
"""Labels of the existing type `environmenttypes`; `any` and NULL both mean null."""

_big_key = BigInteger().with_variant(Integer, "sqlite")


def _job_key() -> Column[int]:
    return Column("job_id", Integer, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False)


jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True, index=True),
    Column("user_id", String, nullable=False),
    Column("user_email", String),
    Column("job_name", String),
    Column("date_created", DateTime),
    Column("date_started", DateTime),
    Column("date_finished", DateTime),
    Column("status", String, nullable=False),
    Column("paths_out", JSON, nullable=False),
    Column("runtime_details", Text),
    Column("environment", Enum(*ENVIRONMENTS, name="environmenttypes", create_constraint=False)),
    Column("priority", Integer, nullable=False),
    Column("application", JSON, nullable=False),
    Column("attributes", JSON, nullable=False),
    Column("hardware", JSON),
    # time of a worker's last update; keep-alives refresh it every half minute (the gateway's
    # `touch_every`), other reports at once
    Column("last_seen_at", DateTime),
    Column("correlation_id", String),
    # the delivery number under which a worker was first heard: updates under others are refused
    Column("worker_number", Integer),
    # set when the user deletes the job, which from then on only the clean-up sees
    Column("deleted_at", DateTime),
    UniqueConstraint("user_id", "job_name", name="_user_job_name_unique"),
    sqlite_autoincrement=True,
)

job_events = Table(
    "job_events",
    metadata,
    Column("id", _big_key, primary_key=True),
    _job_key(),
    Column("status", String, nullable=False),
    Column("details", Text),
    # worker, dispatcher, reconciler or user
    Column("source", String, nullable=False),
    Column("created_at", DateTime, nullable=False),
    Index("ix_job_events_job", "job_id", "id"),
)


def _outbox_columns() -> tuple[Column[object], ...]:
    """The columns of every outbox; `common.outbox.item` explains the states."""
    return (
        Column("id", _big_key, primary_key=True),
        Column("state", String, nullable=False),
        Column("attempts", Integer, nullable=False, server_default=text("0")),
        # how often a delivery was left in doubt
        Column("doubts", Integer, nullable=False, server_default=text("0")),
        # pending: not to be tried before; in_doubt: when the wait for proof ends
        Column("due_at", DateTime, nullable=False),
        Column("owner", String),
        Column("leased_until", DateTime),
        Column("last_error", Text),
        Column("correlation_id", String),
        Column("created_at", DateTime, nullable=False),
        Column("settled_at", DateTime),
    )


handovers = Table(
    "handovers",
    metadata,
    *_outbox_columns(),
    _job_key(),
    Column("priority", Integer, nullable=False),
    # the delivery number: meta.job_id of the next (or current) submission
    Column("number", Integer, nullable=False),
    # the body of a submission without its number, as JSON text
    Column("payload", Text, nullable=False),
    UniqueConstraint("job_id", name="uq_handovers_job"),
)

handover_numbers = Table(
    "handover_numbers",
    metadata,
    # a further delivery number, from the sequence of job ids: never a job's id, never used twice
    Column("number", Integer, primary_key=True, autoincrement=False),
    _job_key(),
    Column("created_at", DateTime, nullable=False),
    Index("ix_handover_numbers_job", "job_id"),
)

emails = Table(
    "emails",
    metadata,
    *_outbox_columns(),
    _job_key(),
    Column("priority", Integer, nullable=False, server_default=text("0")),
    # the final status that the mail announces
    Column("kind", String, nullable=False),
    Column("recipient", String, nullable=False),
    Column("custom_id", String(64), nullable=False),
    # the mail waits for the details of an error
    Column("awaits_details", Boolean, nullable=False, server_default=text("false")),
    # not to be sent in one request with other mails: such a request was refused as a whole
    Column("alone", Boolean, nullable=False, server_default=text("false")),
    UniqueConstraint("job_id", "kind", name="uq_emails_job_kind"),
    UniqueConstraint("custom_id", name="uq_emails_custom_id"),
)

heartbeats = Table(
    "heartbeats",
    metadata,
    # the part of the service that was healthy at `last_at`
    Column("name", String, primary_key=True),
    Column("last_at", DateTime, nullable=False),
    # end of the latest gap between two heartbeats; initially the time of the first one
    Column("outage_ended_at", DateTime, nullable=False),
)

OUTBOXES: Final = (handovers, emails)


def _add_partial_index(name: str, *columns: Any, where: str) -> None:
    Index(name, *columns, postgresql_where=text(where), sqlite_where=text(where))


for _table in OUTBOXES:
    _name, _columns = f"ix_{_table.name}", _table.c
    _add_partial_index(
        f"{_name}_pending",
        _columns.priority.desc(),
        _columns.id,
        _columns.due_at,  # so that items not due are skipped within the index
        where="state = 'pending'",
    )
    _add_partial_index(
        f"{_name}_unsettled",
        _columns.state,
        _columns.leased_until,
        where="state IN ('sending', 'in_doubt', 'held')",
    )
    _add_partial_index(f"{_name}_settled", _columns.settled_at, where="settled_at IS NOT NULL")

Index(
    "ix_jobs_user_newest",
    jobs.c.user_id,
    jobs.c.date_created.desc().nulls_last(),  # SQLite: the default of DESC, not to be written
    jobs.c.id.desc(),
)
_add_partial_index(
    "ix_jobs_with_worker",
    jobs.c.id,
    where="status IN ('pulled', 'preprocessing', 'running', 'postprocessing')",
)
_add_partial_index(
    "ix_jobs_unfinished",
    jobs.c.status,
    where="status NOT IN ('finished', 'error') AND deleted_at IS NULL",
)
_add_partial_index("ix_jobs_deleted", jobs.c.deleted_at, where="deleted_at IS NOT NULL")
