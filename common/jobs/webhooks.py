"""Messages to users' webhooks about a change of a job, written in the change's transaction.

A message holds the job as it is after the change, so that a late one says what it said at once.
Users without webhooks cost the look-up that `has_webhooks` is (ADR 16).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

import orjson
from sqlalchemy import (
    ColumnElement,
    bindparam,
    exists,
    insert,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import padded, utc_now
from common.database.tables import job_labels, jobs, webhook_deliveries, webhooks
from common.jobs.answer import COLUMNS, as_jobs
from common.outbox.item import OutboxState

EVENTS: Final = ("finished", "error", "cancelled", "status")
"""What a webhook may ask for; `status` is every change."""

_JOBS_AT_ONCE: Final = 16
"""Jobs of which the text is in memory at a time: one may have a MiB of run-time details."""


@dataclass(frozen=True, slots=True)
class JobChange:
    """A change of a job, and which of `EVENTS` it is."""

    job_id: int
    user_id: str
    events: tuple[str, ...]


def has_webhooks(user_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a user has webhooks that are not disabled, by the index on their users."""
    return exists().where(webhooks.c.user_id == user_id, webhooks.c.disabled_at.is_(None))


_listening = (
    select(webhooks.c.id, webhooks.c.user_id, webhooks.c.events, webhooks.c.labels)
    .where(
        webhooks.c.user_id.in_(bindparam("users", expanding=True)),
        webhooks.c.disabled_at.is_(None),
    )
    .order_by(webhooks.c.id)
    .with_for_update(read=True, key_share=True)  # none of them can be deleted meanwhile
)

_jobs = select(*COLUMNS, jobs.c.correlation_id, utc_now().label("now")).where(
    jobs.c.id.in_(bindparam("ids", expanding=True))
)

_labels = select(job_labels.c.job_id, job_labels.c.key, job_labels.c.value).where(
    job_labels.c.job_id.in_(bindparam("ids", expanding=True))
)

_deliver = insert(webhook_deliveries).values(
    state=OutboxState.PENDING, due_at=utc_now(), created_at=utc_now()
)


async def write_messages(tx: AsyncConnection, changes: Sequence[JobChange]) -> bool:
    """Write a message for each webhook and event that asks for one; returns whether any did.

    The jobs' rows have their new values already.
    """
    users = padded(sorted({change.user_id for change in changes}))
    listening = (await tx.execute(_listening, {"users": users})).all()
    asked = [
        (change, webhook, event)
        for change in changes
        for webhook in listening
        if webhook.user_id == change.user_id
        for event in change.events
        if event in webhook.events
    ]
    if any(webhook.labels for _, webhook, _ in asked):
        labels = await _labels_of(tx, {change.job_id for change, _, _ in asked})
        asked = [
            (change, webhook, event)
            for change, webhook, event in asked
            if all(_carries(labels[change.job_id], label) for label in webhook.labels)
        ]
    wanted = list(dict.fromkeys(change.job_id for change, _, _ in asked))
    for start in range(0, len(wanted), _JOBS_AT_ONCE):
        ids = wanted[start : start + _JOBS_AT_ONCE]
        rows = {row.id: row for row in await tx.execute(_jobs, {"ids": padded(ids)})}
        messages = [
            _message(rows[change.job_id], webhook.id, event)
            for change, webhook, event in asked
            if change.job_id in rows and change.job_id in ids
        ]
        await tx.execute(_deliver, messages)
    return bool(wanted)


async def _labels_of(tx: AsyncConnection, job_ids: Iterable[int]) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {job_id: {} for job_id in job_ids}
    for row in await tx.execute(_labels, {"ids": padded([*found])}):
        found[row.job_id][row.key] = row.value
    return found


def _carries(labels: Mapping[str, str], wanted: str) -> bool:
    """Whether a job has a label, wanted as `key` or `key:value`."""
    key, colon, value = wanted.partition(":")
    return key in labels and (not colon or labels[key] == value)


def _message(row: Any, webhook_id: int, event: str) -> dict[str, Any]:
    (job,) = as_jobs([row[: len(COLUMNS)]])
    kind = f"job.{event}"
    return {
        "webhook_id": webhook_id,
        "job_id": row.id,
        "correlation_id": row.correlation_id,
        "message": new_message_id(),
        "event": kind,
        "payload": write_body(kind, row.now, job),
    }


def new_message_id() -> str:
    return f"msg_{uuid4().hex}"


def write_body(kind: str, now: datetime, data: Mapping[str, Any]) -> str:
    """The body of a message (Standard Webhooks 1.0, payload structure); `now` is UTC."""
    timestamp = f"{now.isoformat(timespec='microseconds')}Z"
    return orjson.dumps({"type": kind, "timestamp": timestamp, "data": data}).decode()
