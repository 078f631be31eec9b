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
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    collate,
    text,
)

from common.database.facet import job_facet

metadata: Final = MetaData()

MAX_JOB_ID: Final = 2**31 - 1
"""The largest id that the column can hold."""

ENVIRONMENTS: Final = ("cloud", "local", "any")
"""Labels of the existing type `environmenttypes`; `any` and NULL both mean null."""

ONCE_SETTLED: Final = "once_settled"
"""Key of the value (in `Column.info`) that an outbox's column has once the item is settled."""

_big_key = BigInteger().with_variant(Integer, "sqlite")


def _job_key(*, nullable: bool = False) -> Column[int]:
    return Column("job_id", Integer, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=nullable)


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
    Column("batch_id", Integer),
    # the job that this one repeats, which may be gone
    Column("repeated_from", Integer),
    # the user's cancellation: when, by whom (e-mail address or user id), why, and when a worker
    # was told to stop
    Column("cancelled_at", DateTime),
    Column("cancelled_by", String),
    Column("cancel_reason", Text),
    Column("cancel_confirmed_at", DateTime),
    # which mails about this job the submission asked for; NULL: the user's choice decides
    Column("notify", String),
    UniqueConstraint("user_id", "job_name", name="_user_job_name_unique"),
    sqlite_autoincrement=True,
)

job_events = Table(
    "job_events",
    metadata,
    Column("id", _big_key, primary_key=True),
    _job_key(),
    # the status as it was reported
    Column("status", String, nullable=False),
    Column("details", Text),
    # worker, dispatcher, reconciler or user
    Column("source", String, nullable=False),
    Column("created_at", DateTime, nullable=False),
    # NULL in this column and the next: written by a version before 0009
    Column("type", String),
    # the job's status after the event; a trigger fills in the user for versions before 0009
    Column("job_status", String),
    Column("user_id", String),
    Index("ix_job_events_job", "job_id", "id"),
    sqlite_autoincrement=True,  # ids are cursors: one must never be used again
)

job_deletions = Table(
    "job_deletions",
    metadata,
    # a cursor as well, kept until live streams have passed it
    Column("id", _big_key, primary_key=True),
    Column("job_id", Integer, nullable=False),
    Column("user_id", String, nullable=False),
    Column("created_at", DateTime, nullable=False),
    # of the job, for streams that are restricted to some
    Column("labels", JSON),
    Index("ix_job_deletions_user", "user_id", "id"),
    Index("ix_job_deletions_age", "created_at"),
    sqlite_autoincrement=True,
)

job_labels = Table(
    "job_labels",
    metadata,
    Column("job_id", Integer, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String, primary_key=True),
    Column("value", String, nullable=False),
    Column("user_id", String, nullable=False),
    # that of the job, so that the indexes have the jobs in their order
    Column("date_created", DateTime),
)

job_batches = Table(
    "job_batches",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("user_id", String, nullable=False),
    Column("created_at", DateTime, nullable=False),
    sqlite_autoincrement=True,
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("user_id", String, primary_key=True),
    Column("key", String, primary_key=True),
    # SHA-256 of method, path and parsed body
    Column("fingerprint", String(64), nullable=False),
    Column("created_at", DateTime, nullable=False),
    # while the first request is under way: its token, and until when the key is busy
    Column("owner", String),
    Column("busy_until", DateTime),
    # the answer, once there is one
    Column("status", Integer),
    Column("body", Text),
    Column("headers", JSON),
    Index("ix_idempotency_keys_age", "created_at"),
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
    # NULL, like the turn, in rows of the version before, which go first
    Column("user_id", String),
    # what decides who is next (see `gateway.jobs.turns`)
    Column("turn", Float),
    Column("priority", Integer, nullable=False),
    # those behind it in its lane do not wait for it (see `common.outbox.lanes`)
    Column("set_aside", Boolean, nullable=False, server_default=text("false")),
    # the delivery number: meta.job_id of the next (or current) submission
    Column("number", Integer, nullable=False),
    # the body of a submission without its number, as JSON text; empty once it is settled, since
    # thousands of inputs make megabytes (empty, not NULL: the version before runs beside)
    Column("payload", Text, nullable=False, info={ONCE_SETTLED: ""}),
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
    # NULL: a digest, about the jobs in `digest_jobs`, or about a webhook
    _job_key(nullable=True),
    Column("priority", Integer, nullable=False, server_default=text("0")),
    # the final status that the mail announces, `digest` or `webhook`
    Column("kind", String, nullable=False),
    Column("recipient", String, nullable=False),
    Column("custom_id", String(64), nullable=False),
    # the mail waits for the details of an error
    Column("awaits_details", Boolean, nullable=False, server_default=text("false")),
    # not to be sent in one request with other mails: such a request was refused as a whole
    Column("alone", Boolean, nullable=False, server_default=text("false")),
    # NULL in rows of versions before 0012
    Column("user_id", String),
    # a webhook that was disabled; it may have been deleted since
    Column("webhook_id", Integer),
    UniqueConstraint("job_id", "kind", name="uq_emails_job_kind"),
    UniqueConstraint("custom_id", name="uq_emails_custom_id"),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("user_id", String, nullable=False),
    Column("url", Text, nullable=False),
    # lists of texts, as they were given
    Column("events", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    # encrypted; previous secrets, the newest first, with spaces, sign as well until then
    Column("secret", Text, nullable=False),
    Column("previous_secret", Text),
    Column("previous_until", DateTime),
    # where the owner's mail goes
    Column("mail_to", String),
    Column("created_at", DateTime, nullable=False),
    Column("disabled_at", DateTime),
    # the first failure since the receiver last took something, and failures of new messages since
    Column("failing_since", DateTime),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    # nothing is sent before
    Column("paused_until", DateTime),
    # not used since 0016
    Column("notice_due_at", DateTime),
    Index("ix_webhooks_user", "user_id"),
    sqlite_autoincrement=True,
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    *_outbox_columns(),
    Column("webhook_id", Integer, ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    # NULL: a test
    Column("job_id", Integer, ForeignKey("jobs.id", ondelete="CASCADE")),
    Column("priority", Integer, nullable=False, server_default=text("0")),
    # the message's id, the same at each try
    Column("message", String(64), nullable=False),
    # its type, such as job.finished
    Column("event", String, nullable=False),
    # the body, byte for byte the same at each try
    Column("payload", Text, nullable=False),
    # HTTP status of the last answer
    Column("last_status", Integer),
    # attempts made when the owner last asked for another round
    Column("attempts_before", Integer, nullable=False, server_default=text("0")),
    UniqueConstraint("message", name="uq_webhook_deliveries_message"),
    Index("ix_webhook_deliveries_webhook", "webhook_id", "id"),
    Index("ix_webhook_deliveries_job", "job_id"),
)

notification_choices = Table(
    "notification_choices",
    metadata,
    Column("user_id", String, primary_key=True),
    # all, errors, none or last; without a row: all
    Column("mail", String, nullable=False),
    Column("changed_at", DateTime, nullable=False),
)

digest_jobs = Table(
    "digest_jobs",
    metadata,
    Column("id", _big_key, primary_key=True),
    Column("user_id", String, nullable=False),
    # a job that has ended
    _job_key(),
    # the digest that names it; NULL: it waits for the user's other jobs
    Column("mail_id", _big_key, ForeignKey("emails.id", ondelete="CASCADE")),
    Index("ix_digest_jobs_job", "job_id"),
    Index("ix_digest_jobs_mail", "mail_id"),
)

suppressed_addresses = Table(
    "suppressed_addresses",
    metadata,
    # in lower case
    Column("address", String, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("created_at", DateTime, nullable=False),
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

user_usage = Table(
    "user_usage",
    metadata,
    Column("user_id", String, primary_key=True),
    # size of the user's tree by its last measurement, which began at `measured_at`
    Column("bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("measured_at", DateTime),
    Column("measured_until", DateTime),
    # until when the tree may have changed in ways that only a measurement shows
    Column("active_until", DateTime, nullable=False),
    # no measurement begins before, unless the last one is uncertain
    Column("rest_until", DateTime),
    # when a dispatcher looks at the tree next, or may take over from another; NULL: not at all
    Column("due_at", DateTime),
    # token of the dispatcher's measurement that is under way
    Column("owner", String),
)

usage_changes = Table(
    "usage_changes",
    metadata,
    Column("id", _big_key, primary_key=True),
    Column("user_id", String, nullable=False),
    # growth of the user's tree by what this API did between the two times
    Column("bytes", BigInteger, nullable=False),
    Column("began_at", DateTime, nullable=False),
    Column("ended_at", DateTime, nullable=False),
    Index("ix_usage_changes_user", "user_id", "ended_at"),
)

usage_uploads = Table(
    "usage_uploads",
    metadata,
    # token of a gateway
    Column("owner", String, primary_key=True),
    Column("user_id", String, primary_key=True),
    # what has arrived there of uploads under way
    Column("bytes", BigInteger, nullable=False),
    Column("expires_at", DateTime, nullable=False),
    Index("ix_usage_uploads_user", "user_id"),
)

file_digests = Table(
    "file_digests",
    metadata,
    Column("user_id", String, primary_key=True),
    # of the file, relative to the user's tree; compared byte by byte, many at once
    Column("path", Text().with_variant(Text(collation="C"), "postgresql"), primary_key=True),
    # of the version whose digest this is; of any other nothing is known
    Column("etag", Text, nullable=False),
    # in hexadecimal
    Column("sha256", String, nullable=False),
    # when the file was last found to be that version
    Column("checked_at", DateTime, nullable=False),
)

uploads = Table(
    "uploads",
    metadata,
    # unguessable; part of the upload's URL
    Column("id", String, primary_key=True),
    Column("user_id", String, nullable=False),
    # where the file is to be, relative to the user's tree
    Column("path", Text, nullable=False),
    # the storage's own name of what has arrived
    Column("staged_name", Text, nullable=False),
    # `Upload-Metadata` as it was sent
    Column("sent_metadata", Text, nullable=False, server_default=""),
    Column("length", BigInteger, nullable=False),
    # how much has arrived and is safe; the next byte's offset
    Column("received", BigInteger, nullable=False, server_default="0"),
    # of the SHA-256 of those bytes; empty before the first
    Column("digest_state", LargeBinary, nullable=False),
    # of the whole file, in hexadecimal, as its client announced it
    Column("expected_sha256", String),
    # of the whole file, once all has arrived
    Column("sha256", String),
    # token and lease of the one that writes
    Column("owner", String),
    Column("leased_until", DateTime),
    Column("created_at", DateTime, nullable=False),
    Column("expires_at", DateTime, nullable=False),
    # since then the file is at its place
    Column("finished_at", DateTime),
    Column("etag", Text),
    # since then it is expired, and nothing is staged
    Column("swept_at", DateTime),
)

OUTBOXES: Final = (handovers, emails, webhook_deliveries)


def claim_order(table: Table) -> tuple[Any, ...]:
    """The order in which the items of an outbox are sent: by turn, if it has turns, by priority,
    by age."""
    by_age = (table.c.priority.desc(), table.c.id)
    return (table.c.turn.asc().nulls_first(), *by_age) if "turn" in table.c else by_age


def _add_partial_index(name: str, *columns: Any, where: str, unique: bool = False) -> None:
    condition = text(where)
    Index(name, *columns, unique=unique, postgresql_where=condition, sqlite_where=condition)


for _table in OUTBOXES:
    _name, _columns = f"ix_{_table.name}", _table.c
    _add_partial_index(
        f"{_name}_pending",
        *claim_order(_table),
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

_add_partial_index(
    "ix_webhook_deliveries_sending", webhook_deliveries.c.webhook_id, where="state = 'sending'"
)
_add_partial_index("ix_webhooks_paused", webhooks.c.paused_until, where="paused_until IS NOT NULL")
_add_partial_index(
    "ix_webhooks_failing", webhooks.c.failing_since, where="failing_since IS NOT NULL"
)
_add_partial_index(
    "ix_webhooks_notices", webhooks.c.notice_due_at, where="notice_due_at IS NOT NULL"
)
_add_partial_index(
    "ix_handovers_turns",
    handovers.c.user_id,
    handovers.c.priority,
    handovers.c.turn,
    where="settled_at IS NULL",
)
Index(
    "ix_jobs_user_newest",
    jobs.c.user_id,
    jobs.c.date_created.desc().nulls_last(),  # SQLite: the default of DESC, not to be written
    jobs.c.id.desc(),
)
Index(
    "ix_jobs_user_finished",
    jobs.c.user_id,
    jobs.c.date_finished.desc().nulls_last(),
    jobs.c.id.desc(),
)
Index("ix_jobs_user_status", jobs.c.user_id, jobs.c.status, jobs.c.id)
Index(
    "ix_jobs_facet",
    jobs.c.user_id,
    job_facet(),
    jobs.c.date_created.desc().nulls_last(),
    jobs.c.id.desc(),
)
# by code points, as SQLite's unique index has it
Index("ix_jobs_user_name", jobs.c.user_id, collate(jobs.c.job_name, "C"), jobs.c.id).ddl_if(
    dialect="postgresql"
)
_labels_of_user = (job_labels.c.user_id, job_labels.c.key)
_newest_labelled = (job_labels.c.date_created.desc().nulls_last(), job_labels.c.job_id.desc())
Index("ix_job_labels_key", *_labels_of_user, *_newest_labelled)
Index("ix_job_labels_value", *_labels_of_user, job_labels.c.value, *_newest_labelled)
_add_partial_index(
    "ix_jobs_with_worker",
    jobs.c.id,
    where="status IN ('pulled', 'preprocessing', 'running', 'postprocessing')",
)
_add_partial_index("ix_jobs_batch", jobs.c.batch_id, where="batch_id IS NOT NULL")
_add_partial_index(
    "ix_job_events_user", job_events.c.user_id, job_events.c.id, where="user_id IS NOT NULL"
)
UNFINISHED: Final = "status NOT IN ('finished', 'error') AND deleted_at IS NULL"
"""The condition for jobs under way, as the index has it."""

_add_partial_index("ix_jobs_unfinished", jobs.c.user_id, jobs.c.status, where=UNFINISHED)
_add_partial_index("ix_jobs_deleted", jobs.c.deleted_at, where="deleted_at IS NOT NULL")
_add_partial_index(
    "ix_digest_jobs_gathered",
    digest_jobs.c.user_id,
    digest_jobs.c.job_id,
    where="mail_id IS NULL",
    unique=True,
)
_add_partial_index("ix_user_usage_due", user_usage.c.due_at, where="due_at IS NOT NULL")
_add_partial_index("ix_uploads_expiring", uploads.c.expires_at, where="swept_at IS NULL")
UNPLACED: Final = "finished_at IS NULL AND swept_at IS NULL"
"""The condition for uploads of which bytes are staged, as the index has it."""

_add_partial_index("ix_uploads_unplaced", uploads.c.user_id, uploads.c.received, where=UNPLACED)
_add_partial_index("ix_uploads_whole", uploads.c.id, where=f"sha256 IS NOT NULL AND {UNPLACED}")
_add_partial_index("ix_uploads_swept", uploads.c.swept_at, where="swept_at IS NOT NULL")
Index("ix_uploads_staged_name", uploads.c.staged_name)
Index("ix_file_digests_checked", file_digests.c.checked_at)
