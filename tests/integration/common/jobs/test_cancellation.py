"""Cancelled jobs: what ends with them, and that nothing that comes later changes them.

A cancellation races whatever else may happen to the job; each pair is started at the same time,
many times over, and has to come out right in every order.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from common.database.engine import Database, utc_now
from common.database.notify import ChannelNotifier
from common.database.tables import emails, handovers, job_events
from common.jobs import updates
from common.jobs.cancellation import AT_ONCE, Wish, cancel_jobs
from common.jobs.deletion import mark_deleted
from common.jobs.lifecycle import Cancellation, Report, Source, Status
from common.outbox.outbox import Outbox
from dispatcher.handover import Handover
from dispatcher.resend import DoubtfulHandover, Resender
from tests.support.records import add_handover, add_job, add_mail, job_row, outbox_row, rows

ROUNDS = 12
WISH = Wish("ada", "ada@example.org", "wrong file")
LINE = "Cancelled by ada@example.org: wrong file"


async def cancel(database: Database, *job_ids: int, wish: Wish = WISH) -> list[Cancellation]:
    return [*(await cancel_jobs(database, ChannelNotifier(database), wish, job_ids)).values()]


async def report(database: Database, number: int, status: str, details: str | None = None) -> bool:
    """Whether the worker that reports may go on."""
    words = Report(Status(status), details, Source.WORKER)
    notifier = ChannelNotifier(database)
    return await updates.report_of_worker(database, notifier, number, words) is not None


async def events_of(database: Database, job_id: int) -> list[tuple[str, str, str | None, str]]:
    return [
        (row["type"], row["job_status"], row["details"], row["source"])
        for row in await rows(database, job_events)
        if row["job_id"] == job_id
    ]


async def test_a_cancelled_job_ends_in_error_with_a_line_and_an_event_and_no_mail(
    database: Database,
) -> None:
    job_id = await add_handover(database)
    await add_mail(database, job_id, kind="error")
    assert await cancel(database, job_id) == [Cancellation.CANCELLED]
    job = await job_row(database, job_id)
    assert (job["status"], job["runtime_details"]) == ("error", LINE)
    assert (job["cancelled_by"], job["cancel_reason"]) == ("ada@example.org", "wrong file")
    assert job["date_finished"] is not None
    assert await events_of(database, job_id) == [("cancel", "error", LINE, "user")]
    item = await outbox_row(database, handovers, job_id)
    assert (item["state"], item["payload"]) == ("dropped", "")
    assert await rows(database, emails) == []


@pytest.mark.parametrize("state", ["pending", "held", "sending", "in_doubt"])
async def test_a_hand_over_that_is_not_settled_is_never_sent_again(
    database: Database, state: str
) -> None:
    job_id = await add_handover(database, state=state, owner="other", due_at=utc_now(-1.0))
    await cancel(database, job_id)
    outbox = Outbox(database, handovers, Handover, lease=60.0)
    doubtful = Outbox(database, handovers, DoubtfulHandover, lease=60.0)
    assert await outbox.claim(10) == await outbox.claim_held(10) == []
    assert await doubtful.claim_doubtful(10) == []
    assert not await outbox.has_work(60.0)


async def test_every_later_report_stops_its_worker_and_changes_nothing(database: Database) -> None:
    job_id = await add_handover(database, state="done")
    assert await report(database, job_id, "running", "epoch 1")
    await cancel(database, job_id)
    before = await job_row(database, job_id)
    for status in ("running", "finished", "error", "queued", "running"):
        assert not await report(database, job_id, status, "words")
    after = await job_row(database, job_id)
    assert after["cancel_confirmed_at"] is not None
    assert {**after, "cancel_confirmed_at": None} == before
    assert [kind for kind, *_ in await events_of(database, job_id)] == [
        "status",
        "cancel",
        "cancelled",
    ]
    assert await rows(database, emails) == []


async def test_our_own_reports_change_a_cancelled_job_neither(database: Database) -> None:
    job_id = await add_job(database, status="running")
    await cancel(database, job_id)
    before = await job_row(database, job_id)
    lost = Report(Status.ERROR, "no sign of life", Source.RECONCILER)
    await updates.report(database, ChannelNotifier(database), job_id, lost)
    assert await job_row(database, job_id) == before
    assert len(await events_of(database, job_id)) == 1


async def test_again_it_is_unchanged_and_one_that_has_ended_otherwise_stays(
    database: Database,
) -> None:
    running, finished, failed = [
        await add_job(database, status=status) for status in ("running", "finished", "error")
    ]
    others, gone = await add_job(database, user_id="bob"), 999_999
    wanted = (gone, failed, running, others, finished, running)
    assert await cancel(database, *wanted) == [
        Cancellation.NOT_FOUND,
        Cancellation.ENDED,
        Cancellation.CANCELLED,
        Cancellation.NOT_FOUND,
        Cancellation.ENDED,
    ]
    before = [await job_row(database, job) for job in (running, finished, failed, others)]
    assert [row["status"] for row in before] == ["error", "finished", "error", "queued"]
    again = Wish("ada", "somebody else", "another reason")
    assert await cancel(database, running, wish=again) == [Cancellation.CANCELLED]
    assert await job_row(database, running) == before[0]


async def test_many_are_cancelled_in_several_transactions(database: Database) -> None:
    many = [await add_job(database) for _ in range(AT_ONCE + 3)]
    assert set(await cancel(database, *many)) == {Cancellation.CANCELLED}
    kinds = [row["type"] for row in await rows(database, job_events)]
    assert kinds == ["cancel"] * len(many)


# -- races ----------------------------------------------------------------------------------------

Race = Callable[[Database, int], Awaitable[Any]]


async def hand_over(database: Database, job_id: int) -> None:
    outbox = Outbox(database, handovers, Handover, lease=60.0)
    await outbox.done(await outbox.claim(1))


async def refuse(database: Database, job_id: int) -> None:
    outbox = Outbox(database, handovers, Handover, lease=60.0)
    items = await outbox.claim(1)

    async def settle(tx: Any) -> int:
        return await outbox.fail(items, "no", tx)

    words = Report(Status.ERROR, "refused", Source.DISPATCHER)
    notifier = ChannelNotifier(database)
    await updates.report(database, notifier, job_id, words, settle=settle)


async def send_again(database: Database, job_id: int) -> None:
    outbox = Outbox(database, handovers, DoubtfulHandover, lease=60.0)
    resender = Resender(database=database, outbox=outbox, worker_api=None, wait=60.0)  # type: ignore[arg-type]
    for item in await outbox.claim_doubtful(1):
        await resender.renumber(item)


async def finish(database: Database, job_id: int) -> bool:
    return await report(database, job_id, "finished")


async def remove(database: Database, job_id: int) -> None:
    async with database.transaction() as tx:
        await mark_deleted(tx, "ada", job_id)


@pytest.mark.parametrize(
    ("other", "state"),
    [
        (hand_over, "pending"),
        (refuse, "pending"),
        (send_again, "in_doubt"),
        (finish, "done"),
        (remove, "pending"),
        (cancel, "pending"),
    ],
)
async def test_a_cancellation_comes_out_right_whatever_it_races(
    database: Database, other: Race, state: str
) -> None:
    for round_ in range(ROUNDS):
        settled = {"settled_at": utc_now()} if state == "done" else {}
        job_id = await add_handover(database, state=state, due_at=utc_now(-1.0), **settled)

        async def later(work: Awaitable[Any], turns: int) -> Any:
            for _ in range(turns):
                await asyncio.sleep(0)
            return await work

        (outcome,), heard = await asyncio.gather(
            later(cancel(database, job_id), round_ % 4),
            later(other(database, job_id), round_ % 3),
        )
        await check(database, job_id, other, outcome, heard)


async def check(
    database: Database, job_id: int, other: Race, outcome: Cancellation, heard: Any
) -> None:
    kinds = [kind for kind, *_ in await events_of(database, job_id)]
    job = await job_row(database, job_id)
    hand_overs = [row for row in await rows(database, handovers) if row["job_id"] == job_id]
    assert kinds.count("cancel") == (outcome is Cancellation.CANCELLED)
    assert all(row["settled_at"] is not None for row in hand_overs)
    if other is remove:
        assert job["deleted_at"] is not None
        assert hand_overs == []
    elif outcome is Cancellation.CANCELLED:
        assert (job["status"], job["cancel_reason"]) == ("error", "wrong file")
        assert other is not finish or not heard
        assert not await report(database, job_id, "running")
        after = await job_row(database, job_id)
        unconfirmed = {"cancel_confirmed_at": None}
        assert {**after, **unconfirmed} == {**job, **unconfirmed}
    else:
        assert other in {finish, refuse}
        assert outcome is Cancellation.ENDED
        assert job["cancelled_at"] is None
        assert other is not finish or heard
