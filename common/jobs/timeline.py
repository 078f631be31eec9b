"""One job's life across the tables, as `python -m common.story` prints it for operators.

The job's row, its events, its hand-over with every delivery number, its mails with the digests that
name it, what keeps mails from its user, and its messages to webhooks, as a time line in UTC. A job
is found by its id or by any of its delivery numbers. User input is not shown.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import orjson
from sqlalchemy import Table, or_, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from common.config.settings import DatabaseSettings
from common.database.engine import Database, utc_now
from common.database.errors import DatabaseUnavailable
from common.database.tables import (
    MAX_JOB_ID,
    digest_jobs,
    emails,
    handover_numbers,
    handovers,
    job_events,
    jobs,
    suppressed_addresses,
    webhook_deliveries,
)
from common.jobs.events import EventType
from common.jobs.terminal import as_shown
from common.notifications.choices import Choice, read_choice
from common.notifications.suppression import normalised
from common.outbox.item import OutboxState
from common.runtime.startup import accepted

_LINES_SHOWN: Final = 3
_USER_INPUT: Final = frozenset({"payload", "attributes", "hardware", "paths_out"})
"""Columns that are not shown."""

Record = dict[str, Any]


class StoryError(Exception):
    """There is no story; the message is a sentence without a full stop."""


@dataclass(frozen=True, slots=True)
class Moment:
    """An event in the job's life: when (UTC), by whom, and what."""

    at: datetime
    source: str
    what: str


@dataclass(frozen=True, slots=True)
class Story:
    """The job's rows by table, and `now` by the database's clock."""

    now: datetime
    job: Record
    events: Sequence[Record]
    handover: Record | None
    numbers: Sequence[Record]
    mails: Sequence[Record]
    suppressed: Sequence[Record]
    """The addresses of the job and its mails to which no mails go."""
    choice: Choice
    """The user's, which the job's own overrides."""
    deliveries: Sequence[Record]

    def time_line(self) -> list[Moment]:
        """Everything that has a time, in order."""
        return sorted(self._moments(), key=attrgetter("at"))

    def _moments(self) -> Iterator[Moment]:
        if not self.events:  # a job of the earlier service
            yield from _at(self.job["date_created"], "user", "submitted")
            yield from _at(self.job["date_started"], "worker", "started")
            yield from _at(self.job["date_finished"], "worker", "ended")
        for event in self.events:
            details = _shown(event["details"])
            yield from _at(event["created_at"], event["source"], f"{_what(event)}{details}")
        if self.handover is not None:
            written = f"hand-over written, number {self.job['id']}"
            yield from _at(self.handover["created_at"], "gateway", written)
            outcome = f"hand-over {_settled(self.handover)}"
            by = "gateway" if self.handover["state"] == OutboxState.DROPPED else "dispatcher"
            yield from _at(self.handover["settled_at"], by, outcome)
        for number in self.numbers:
            what = f"no proof of arrival: sent again under the delivery number {number['number']}"
            yield from _at(number["created_at"], "dispatcher", what)
        for mail in self.mails:
            kind = f"mail '{mail['kind']}'"
            yield from _at(mail["created_at"], "gateway", f"{kind} written to {mail['recipient']}")
            yield from _at(mail["settled_at"], "notifier", f"{kind} {_settled(mail)}")
        for one in self.deliveries:
            what = f"'{one['event']}' to webhook {one['webhook_id']}"
            yield from _at(one["created_at"], "gateway", f"{what} written as {one['message']}")
            yield from _at(one["settled_at"], "notifier", f"{what} {_settled(one)}")
        for address in self.suppressed:
            what = f"mails to {address['address']} stopped: {address['reason']}"
            yield from _at(address["created_at"], "mailjet", what)
        removal = "deleted; its files and rows are being removed"
        yield from _at(self.job["deleted_at"], "user", removal)

    def standing(self) -> list[str]:
        """The current state of hand-over, worker and mails, one sentence each."""
        state = "none (settled and pruned, or of an earlier service)"
        if self.handover is not None:
            state = _state(self.handover, self.now)
        sentences = [f"Hand-over: {state}", *_cancellation(self.job)]
        if self.job["last_seen_at"] is not None:
            sentences.append(f"Worker: last heard of at {_time(self.job['last_seen_at'])}")
        sentences += [f"Mail '{mail['kind']}': {_state(mail, self.now)}" for mail in self.mails]
        sentences += [
            f"'{one['event']}' to webhook {one['webhook_id']}: {_state(one, self.now)}"
            for one in self.deliveries
        ]
        if not self.job["user_email"]:
            sentences.append("Mail: none, the job has no e-mail address")
        elif chosen := self.job["notify"]:
            sentences.append(f"Mails wanted: {chosen}, as the submission chose")
        else:
            sentences.append(f"Mails wanted: {self.choice}, as the user chose")
        return sentences

    def as_json(self) -> bytes:
        return orjson.dumps(
            {
                "now": self.now,
                "job": self.job,
                "time_line": self.time_line(),
                "events": self.events,
                "handover": self.handover,
                "handover_numbers": self.numbers,
                "emails": self.mails,
                "webhook_deliveries": self.deliveries,
                "suppressed_addresses": self.suppressed,
                "choice": self.choice,
            },
            option=orjson.OPT_INDENT_2,
        )

    def as_text(self) -> str:
        job = self.job
        chosen = job["application"] if isinstance(job["application"], dict) else {}
        application = "/".join(str(value) for value in chosen.values())
        head = [
            f"Job {job['id']} {job['job_name']!r} of {job['user_id']}: {job['status']}",
            f"application {application}, priority {job['priority']}",
            f"correlation id {job['correlation_id'] or 'none'}",
            f"worker's number {job['worker_number'] or 'none yet'}",
        ]
        line = [f"{_time(one.at)}  {one.source:<10}  {one.what}" for one in self.time_line()]
        return _printable("\n".join([*head, "", *line, "", *self.standing()]))


def _at(when: datetime | None, source: str, what: str) -> Iterator[Moment]:
    if when is not None:
        yield Moment(when, source, what)


def _printable(text: str) -> str:
    """Without control characters, which workers' logs may hold and a terminal would execute."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)


def _time(when: datetime) -> str:
    return when.isoformat(sep=" ", timespec="milliseconds")


def _shown(details: str | None) -> str:
    """The last lines of a report's details, indented; the end of a log matters most."""
    lines = as_shown(details or "").strip().splitlines()
    left_out = [f"({len(lines) - _LINES_SHOWN} lines more)"] * (len(lines) > _LINES_SHOWN)
    return "".join(f"\n{'':37}| {line}" for line in [*left_out, *lines[-_LINES_SHOWN:]])


def _what(event: Mapping[str, Any]) -> str:
    """An event in a few words; rows of versions before the types have none."""
    words = {
        EventType.CANCEL: "cancelled",
        EventType.CANCELLED: "a worker of the cancelled job was stopped",
        EventType.REPORTED: f"{event['status']}, which changed nothing",
    }
    return str(words.get(event["type"], event["status"]))


def _cancellation(job: Mapping[str, Any]) -> Iterator[str]:
    if job["cancelled_at"] is None:
        return
    reason = f", {job['cancel_reason']!r}," if job["cancel_reason"] else ""
    confirmed = job["cancel_confirmed_at"]
    end = "no worker has reported since" if confirmed is None else f"confirmed {_time(confirmed)}"
    yield f"Cancelled: by {job['cancelled_by']}{reason} at {_time(job['cancelled_at'])}; {end}"


def _settled(item: Mapping[str, Any]) -> str:
    if item["state"] == OutboxState.DONE:  # a mail may have come back since
        afterwards = f"; {item['last_error']}" if item["last_error"] else ""
        return f"done after {item['attempts']} attempt(s){afterwards}"
    return f"{item['state']}: {item['last_error']}"


def _state(item: Mapping[str, Any], now: datetime) -> str:
    seconds = round((item["due_at"] - now).total_seconds())
    due = f"due in {seconds} s" if seconds > 0 else f"due for {-seconds} s"
    facts = {
        OutboxState.PENDING: f"waiting to be sent, {due}",
        OutboxState.SENDING: f"being sent by {item['owner']}, lease until {item['leased_until']}",
        OutboxState.IN_DOUBT: f"in doubt, wait for proof {due}",
        OutboxState.HELD: "held, since the peer refused our key or address",
        OutboxState.DONE: "done",
        OutboxState.DROPPED: "dropped",
        OutboxState.FAILED: "failed for good",
    }
    reason = f"; last error: {item['last_error']}" if item["last_error"] else ""
    return (
        f"{facts[item['state']]}; {item['attempts']} attempt(s), {item['doubts']} doubt(s){reason}"
    )


async def read_story_once(settings: DatabaseSettings, number: int) -> Story:
    """`read_story` on a connection of its own. Raises `StoryError`, also for a bad database."""
    _check_file(settings)
    try:
        database = Database(await accepted(replace(settings, startup_timeout=0.0)))
    except DatabaseUnavailable as error:
        raise StoryError(f"the database did not answer ({error})") from error
    try:
        return await read_story(database, number)
    except DatabaseUnavailable as error:
        raise StoryError(f"the database did not answer ({error})") from error
    except DBAPIError as error:
        raise StoryError("the database lacks our tables: run python -m common.migrate") from error
    finally:
        await database.close()


def _check_file(settings: DatabaseSettings) -> None:
    """Connecting to a missing SQLite file would create it."""
    file = settings.url.database
    if settings.is_sqlite and not (file and Path(file).is_file()):
        raise StoryError(f"there is no database file {file}")


async def read_story(database: Database, number: int) -> Story:
    """The story of the job with this id or delivery number. Raises `StoryError`."""
    if not 0 < number <= MAX_JOB_ID:
        raise StoryError(f"there is no job {number}")
    async with database.reading() as connection:
        alias = select(handover_numbers.c.job_id).where(handover_numbers.c.number == number)
        found = await _rows(connection, jobs, or_(jobs.c.id == number, jobs.c.id.in_(alias)))
        if not found:
            raise StoryError(f"there is no job {number}")
        job = found[0]
        events, handover, numbers, deliveries = [
            await _rows(connection, table, table.c.job_id == job["id"])
            for table in (job_events, handovers, handover_numbers, webhook_deliveries)
        ]
        naming = select(digest_jobs.c.mail_id).where(digest_jobs.c.job_id == job["id"])
        own = or_(emails.c.job_id == job["id"], emails.c.id.in_(naming))
        mails = await _rows(connection, emails, own)
        addresses = {job["user_email"] or "", *(mail["recipient"] for mail in mails)}
        stopped = suppressed_addresses.c.address.in_([*map(normalised, addresses)])
        suppressed = await _rows(connection, suppressed_addresses, stopped)
        choice = await read_choice(connection, job["user_id"])
        now = (await connection.execute(select(utc_now()))).scalar_one()
    handed_over = handover[0] if handover else None
    return Story(now, job, events, handed_over, numbers, mails, suppressed, choice, deliveries)


async def _rows(connection: AsyncConnection, table: Table, condition: Any) -> list[Record]:
    columns = [column for column in table.columns if column.name not in _USER_INPUT]
    key = next(iter(table.primary_key))
    result = await connection.execute(select(*columns).where(condition).order_by(key))
    return [{str(name): value for name, value in row.items()} for row in result.mappings()]
