"""New jobs in the database: each with its event, hand-over and labels, all in one transaction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.database.notify import WEBHOOKS, ChannelNotifier
from common.database.tables import handovers, job_batches, jobs
from common.jobs.answer import COLUMNS, Job, as_jobs, date_of
from common.jobs.events import EventType, NewEvent, record_events
from common.jobs.lifecycle import Source, Status
from common.jobs.quota import count_unfinished, lock_counts
from common.outbox.item import OutboxState
from common.runtime.batching import Batcher
from gateway.jobs.errors import BatchNameTaken, KeyBusy, NameTaken, TooManyUnfinished
from gateway.jobs.idempotency.claims import Claim, ClaimsLost, keep_answers
from gateway.jobs.labels import add_labels, label_rows
from gateway.jobs.turns import next_turn

_INSERT_PAUSE: Final = 0.01
"""Minimum seconds between two insert transactions: a commit costs as much as 20 more rows, so a
short pause makes batches larger."""

_new_batch = insert(job_batches).values(created_at=utc_now()).returning(job_batches.c.id)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to insert: its row, the hand-over's payload, which holds the job's date, and labels;
    and the idempotency key under which the job is the answer."""

    row: dict[str, Any]
    payload: Callable[[datetime | str], str]
    labels: Mapping[str, str] = field(default_factory=dict)
    claim: Claim | None = None


class JobInsertion:
    """Inserts jobs; concurrent calls of `one` share transactions."""

    def __init__(
        self, database: Database, notifier: ChannelNotifier | None = None, *, unfinished: int = 0
    ) -> None:
        """`notifier` announces messages to webhooks; `unfinished`: how many jobs that have not
        ended a user may have (0: any number)."""
        self._database = database
        self._notifier = notifier
        self._unfinished = unfinished
        self.one: Batcher[NewJob, Job] = Batcher(self._insert_some, limit=50, pause=_INSERT_PAUSE)
        dialect = sqlite if database.is_sqlite else postgresql
        self._new_job = (
            dialect.insert(jobs)
            .values(date_created=utc_now())
            .on_conflict_do_nothing(index_elements=[jobs.c.user_id, jobs.c.job_name])
            .returning(*COLUMNS)
        )
        self._new_handover = insert(handovers).values(
            state=OutboxState.PENDING,
            due_at=utc_now(),
            created_at=utc_now(),
            turn=next_turn(is_sqlite=database.is_sqlite),
        )

    async def check_unfinished(self, user_id: str, new: int = 1) -> None:
        """Raise `TooManyUnfinished` for a user who may not have so many `new` jobs, before more is
        done."""
        if self._unfinished:
            async with self._database.reading() as connection:
                if await count_unfinished(connection, user_id) + new > self._unfinished:
                    raise TooManyUnfinished(self._unfinished)

    async def batch(
        self, user_id: str, new: Sequence[NewJob], claim: Claim | None
    ) -> dict[str, Any]:
        """Insert all jobs or none, as a batch of one user; returns the answer to it.

        Raises `BatchNameTaken`, `TooManyUnfinished`, and `KeyBusy` if another request has taken
        over the claim.
        """
        try:
            async with self._database.transaction() as tx:
                added = await tx.execute(_new_batch, {"user_id": user_id})
                batch_id = added.scalar_one()
                new = [replace(job, row={**job.row, "batch_id": batch_id}) for job in new]
                results = await self._insert(tx, new)
                answer = {"batch_id": batch_id, "jobs": _all_inserted(new, results)}
                if claim is not None:
                    await keep_answers(tx, [(claim, orjson.dumps(answer))])
                are_heard = await _record_submissions(tx, results)
        except ClaimsLost as error:
            raise KeyBusy from error
        self._announce(are_heard)
        return answer

    async def _insert_some(self, new: Sequence[NewJob]) -> list[Job | Exception]:
        """Insert each job for itself.

        `NameTaken` for a job whose name the user has used, also within the batch;
        `TooManyUnfinished` for one beyond the user's limit, which no race exceeds; `KeyBusy` for
        one whose claim another request has taken over.
        """
        lost: frozenset[str] = frozenset()
        while True:
            try:
                async with self._database.transaction() as tx:
                    results = await self._insert(tx, new, lost)
                    answers = [
                        (item.claim, orjson.dumps(job))
                        for item, job in zip(new, results, strict=True)
                        if item.claim is not None and not isinstance(job, Exception)
                    ]
                    if answers:
                        await keep_answers(tx, answers)
                    are_heard = await _record_submissions(tx, results)
            except ClaimsLost as error:
                lost |= error.owners
            else:
                self._announce(are_heard)
                return results

    def _announce(self, are_heard: bool) -> None:
        if are_heard and self._notifier is not None:
            self._notifier.notify(WEBHOOKS)

    async def _insert(
        self, tx: AsyncConnection, new: Sequence[NewJob], lost: frozenset[str] = frozenset()
    ) -> list[Job | Exception]:
        """Insert jobs with their hand-overs and labels; their events have to follow.

        What is `lost`, by the owners of claims, is refused.
        """
        refused: dict[int, Exception] = {
            id(item): KeyBusy() for item in new if item.claim and item.claim.owner in lost
        }
        if self._unfinished:
            left = [item for item in new if id(item) not in refused]
            refused |= await self._over_limit(tx, left)
        admitted = [item.row for item in new if id(item) not in refused]
        rows = (await tx.execute(self._new_job, admitted)).all() if admitted else []
        inserted = {(job["user_id"], job["job_name"]): job for job in as_jobs(rows)}
        results: list[Job | Exception] = []
        handover_rows, labels = [], []
        for item in new:
            if (refusal := refused.get(id(item))) is not None:
                results.append(refusal)
                continue
            job = inserted.pop((item.row["user_id"], item.row["job_name"]), None)
            if job is None:
                results.append(NameTaken())
                continue
            results.append(job)
            labels += label_rows(job, date_of(job["date_created"]), item.labels)
            handover_rows.append(_handover_row(item, job))
        if handover_rows:
            await tx.execute(self._new_handover, handover_rows)
        if labels:
            await tx.execute(add_labels, labels)
        return results

    async def _over_limit(self, tx: AsyncConnection, new: Sequence[NewJob]) -> dict[int, Exception]:
        """The refusals (by `id()`) of jobs beyond their users' limits, in order of arrival."""
        users = {job.row["user_id"] for job in new}
        await lock_counts(tx, users)
        left = {user: self._unfinished - await count_unfinished(tx, user) for user in users}
        refused: dict[int, Exception] = {}
        for job in new:
            left[job.row["user_id"]] -= 1
            if left[job.row["user_id"]] < 0:
                refused[id(job)] = TooManyUnfinished(self._unfinished)
        return refused


def _handover_row(item: NewJob, job: Job) -> dict[str, Any]:
    return {
        "job_id": job["id"],
        "number": job["id"],
        "user_id": job["user_id"],
        "of_user": job["user_id"],
        "priority": item.row["priority"],
        "of_priority": item.row["priority"],
        "correlation_id": item.row["correlation_id"],
        "payload": item.payload(job["date_created"]),
    }


def _all_inserted(new: Sequence[NewJob], results: Sequence[Job | Exception]) -> list[Job]:
    """The jobs. Raises the refusal of one."""
    inserted = []
    for item, result in zip(new, results, strict=True):
        if isinstance(result, NameTaken):
            raise BatchNameTaken(item.row["job_name"])
        if isinstance(result, Exception):
            raise result
        inserted.append(result)
    return inserted


async def _record_submissions(tx: AsyncConnection, results: Sequence[Job | Exception]) -> bool:
    """Returns whether there are messages to webhooks."""
    events = [
        NewEvent(
            job_id=job["id"],
            user_id=job["user_id"],
            type=EventType.STATUS,
            status=Status.QUEUED,
            source=Source.USER,
        )
        for job in results
        if not isinstance(job, Exception)
    ]
    return bool(events) and await record_events(tx, events)
