"""Reports on jobs: what they change in the job, its hand-over and its mails."""

import asyncio
import re
from datetime import datetime
from functools import partial
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.database.notify import ChannelNotifier
from common.database.tables import emails, handover_numbers, handovers, job_events, jobs
from common.jobs import updates
from common.jobs.lifecycle import Report, Source, Status
from common.jobs.mails import DETAILS_WAIT
from common.jobs.updates import Applied
from tests.support.gateway import fresh
from tests.support.metrics import metric
from tests.support.records import add_handover, add_job, change, job_row, outbox_row, rows


async def report(
    database: Database, number: int, status: str, details: str | None = None
) -> Applied | None:
    words = Report(Status(status), details, Source.WORKER)
    return await updates.report_of_worker(database, ChannelNotifier(database), number, words)


async def is_mail_due(
    database: Database, number: int, status: str, details: str | None = None
) -> bool:
    """Whether a mail is due after this report."""
    applied = await report(database, number, status, details)
    return applied is not None and applied.mail_due


@pytest.fixture
async def running(database: Database) -> int:
    """A running job."""
    return await add_job(database, status="running")


async def renumbered_job(database: Database) -> tuple[int, int]:
    """A job that was sent a second time; its id and the delivery number."""
    job_id = await add_handover(database)
    fresh = await add_job(database)  # a number that the sequence will not give out again
    async with database.transaction() as tx:
        await tx.execute(jobs.delete().where(jobs.c.id == fresh))
        await tx.execute(
            handover_numbers.insert().values(number=fresh, job_id=job_id, created_at=utc_now())
        )
    return job_id, fresh


async def test_a_hundred_final_updates_at_once_are_one(database: Database, running: int) -> None:
    outcomes = await asyncio.gather(*(report(database, running, "finished") for _ in range(100)))
    assert all(outcomes)
    assert len(await rows(database, job_events)) == 1
    (mail,) = await rows(database, emails)
    assert (mail["kind"], mail["recipient"]) == ("finished", "ada@example.org")
    first = (await job_row(database, running))["date_finished"]
    await report(database, running, "finished")
    assert (await job_row(database, running))["date_finished"] == first


async def test_parallel_details_are_all_kept(database: Database, running: int) -> None:
    lines = [f"line {number}" for number in range(50)]
    await asyncio.gather(*(report(database, running, "running", line) for line in lines))
    kept = (await job_row(database, running))["runtime_details"].split("\n")
    assert sorted(kept) == sorted(lines)


MIB = 1 << 20
CUT = re.compile(r"\[(\d+) bytes were cut: only the newest MiB is kept\]\n")


async def stored_bytes(database: Database) -> int:
    texts = [row["runtime_details"] for row in await rows(database, jobs)]
    texts += [row["details"] for row in await rows(database, job_events)]
    return sum(len((text or "").encode()) for text in texts)


async def test_of_long_details_the_newest_mebibyte_is_kept(
    database: Database, running: int
) -> None:
    sent = 0
    for number in range(15):
        text = f"{number} " + "ü" * (2 * MIB) + f" the end of {number}"
        sent += len(text.encode()) + 1
        await report(database, running, "running", text)
        kept = (await job_row(database, running))["runtime_details"]
        line = CUT.match(kept)
        assert line
        assert kept.endswith(f"ü the end of {number}")
        assert kept.count("bytes were cut") == 1
        size = len(kept[line.end() :].encode())
        assert MIB - 4 < size <= MIB
        assert abs(int(line[1]) + size - sent) < 20  # of one line end each
    assert await stored_bytes(database) < 3.1 * MIB
    details = [row["details"] for row in await rows(database, job_events)]
    assert len(details) == 15
    assert all("bytes were cut" in text for text in details)


async def test_many_short_details_are_bounded_as_well(database: Database, running: int) -> None:
    for number in range(40):
        await report(database, running, "running", f"{number} " + "x" * 100_000)
    assert await stored_bytes(database) < 2.2 * MIB
    kept = (await job_row(database, running))["runtime_details"]
    assert CUT.match(kept)
    assert kept.endswith("x\n39 " + "x" * 100_000)
    newest = [row["details"] for row in await rows(database, job_events)][-10:]
    assert [text.split()[0] for text in newest] == [str(number) for number in range(30, 40)]


async def test_a_long_report_that_is_repeated_is_noted_once(
    database: Database, running: int
) -> None:
    for _ in range(2):
        await report(database, running, "error", "x" * 3 * MIB)
    assert len(await rows(database, job_events)) == 1
    kept = (await job_row(database, running))["runtime_details"]
    assert kept == f"[{2 * MIB} bytes were cut: only the newest MiB is kept]\n" + "x" * MIB


@pytest.mark.parametrize("state", ["pending", "sending", "in_doubt", "held", "failed"])
async def test_any_update_settles_a_hand_over_in_any_state(database: Database, state: str) -> None:
    job_id = await add_handover(database, state=state)
    applied = await report(database, job_id, "queued")
    assert applied is not None
    assert applied.confirmed_handover
    row = await outbox_row(database, handovers, job_id)
    assert (row["state"], row["owner"], row["payload"]) == ("done", None, "")
    assert row["settled_at"] is not None


@pytest.mark.parametrize("first", [0, 1], ids=["its id", "the delivery number"])
async def test_the_first_number_heard_wins_and_any_other_has_to_stop(
    database: Database, first: int
) -> None:
    numbers = await renumbered_job(database)
    winner, loser = numbers[first], numbers[1 - first]
    assert await report(database, winner, "pulled") is not None
    assert await report(database, loser, "pulled") is None
    assert await report(database, winner, "finished") is not None
    assert await report(database, loser, "running") is None
    job = await job_row(database, numbers[0])
    assert (job["status"], job["worker_number"]) == ("finished", winner)


async def test_one_of_two_copies_heard_at_once_wins(database: Database) -> None:
    numbers = await renumbered_job(database)
    outcomes = await asyncio.gather(
        *(report(database, number, "pulled") for number in numbers for _ in range(5))
    )
    winners = {bool(outcome) for outcome in outcomes[:5]}, {bool(o) for o in outcomes[5:]}
    assert winners in (({True}, {False}), ({False}, {True}))


async def test_the_mail_of_an_error_waits_for_its_details(database: Database, running: int) -> None:
    assert not await is_mail_due(database, running, "error")
    assert DETAILS_WAIT / 2 < await _mail_wait(database) <= DETAILS_WAIT
    await report(database, running, "postprocessing")
    assert await is_mail_due(database, running, "error", "the log's tail")
    assert await _mail_wait(database) <= 1.0
    assert len(await rows(database, emails)) == 1


async def _mail_wait(database: Database) -> float:
    (mail,) = await rows(database, emails)
    async with database.transaction() as tx:
        now: Any = (await tx.execute(utc_now().select())).scalar_one()
    return float((mail["due_at"] - now).total_seconds())


async def test_a_job_without_an_address_gets_no_mail(database: Database) -> None:
    job_id = await add_job(database, user_email=None)
    assert not await is_mail_due(database, job_id, "finished")
    assert await rows(database, emails) == []


@pytest.mark.parametrize("status", ["queued", "finished"])
async def test_a_status_after_a_workers_error_keeps_its_date_and_sends_its_mail(
    database: Database, running: int, status: str
) -> None:
    await report(database, running, "error")
    ended = (await job_row(database, running))["date_finished"]
    assert await is_mail_due(database, running, status)
    job = await job_row(database, running)
    assert (job["status"], job["date_finished"]) == (status, ended)
    mails = await rows(database, emails)
    assert [mail["kind"] for mail in mails] == ["error", "finished"][: 1 + (status == "finished")]
    assert not any(mail["awaits_details"] for mail in mails)


async def test_a_job_that_fails_twice_gets_one_mail(database: Database, running: int) -> None:
    await report(database, running, "error", "first")
    await change(database, emails, running, state="done", settled_at=utc_now())
    await report(database, running, "queued")
    await report(database, running, "error", "second")
    assert len(await rows(database, emails)) == 1


async def stall(database: Database, job_id: int) -> None:
    """Reconciliation's report of a stalled job."""
    report = Report(Status.ERROR, "no sign of life", Source.RECONCILER)
    assert await updates.report(database, ChannelNotifier(database), job_id, report) is not None


@pytest.mark.parametrize("state", ["pending", "held", "done", "in_doubt"])
async def test_the_unsent_mail_of_an_error_that_is_undone_is_withdrawn(
    database: Database, running: int, state: str
) -> None:
    await stall(database, running)
    await change(database, emails, running, state=state)
    assert await report(database, running, "running") is not None
    job = await job_row(database, running)
    assert (job["status"], job["date_finished"]) == ("running", None)
    left = [mail["state"] for mail in await rows(database, emails)]
    assert left == ([] if state in {"pending", "held"} else [state])


@pytest.mark.parametrize("state", ["pending", "held"])
async def test_an_undone_error_after_a_workers_own_leaves_that_ones_date_and_mail(
    database: Database, running: int, state: str
) -> None:
    await report(database, running, "error", "the log's tail")
    await change(database, emails, running, state=state)
    ended = (await job_row(database, running))["date_finished"]
    await report(database, running, "queued")
    await report(database, running, "running")
    await stall(database, running)
    await report(database, running, "running")
    job = await job_row(database, running)
    assert (job["status"], job["date_finished"]) == ("running", ended)
    assert [(mail["kind"], mail["state"]) for mail in await rows(database, emails)] == [
        ("error", state)
    ]


async def test_a_held_mail_stops_waiting_for_details_that_have_come(
    database: Database,
    running: int,
) -> None:
    await report(database, running, "error")
    await change(database, emails, running, state="held")
    await report(database, running, "error", "the log's tail")
    (mail,) = await rows(database, emails)
    assert (mail["state"], mail["awaits_details"]) == ("held", False)


@pytest.mark.parametrize(
    "seen", [(Status.QUEUED, None), (Status.RUNNING, datetime(2026, 1, 1))],  # noqa: DTZ001
    ids=["status", "time"],
)  # fmt: skip
async def test_a_report_of_ours_does_not_apply_after_a_workers(
    database: Database, running: int, seen: tuple[Status, datetime | None]
) -> None:
    lost = Report(Status.ERROR, "no sign of life", Source.RECONCILER)
    wakes = ChannelNotifier(database)
    assert await updates.report(database, wakes, running, lost, if_still=seen) is None
    assert (await job_row(database, running))["status"] == "running"
    still = (Status.RUNNING, None)
    assert await updates.report(database, wakes, running, lost, if_still=still, heard=True)
    job = await job_row(database, running)
    assert (job["status"], job["last_seen_at"] is None) == ("error", False)


async def test_a_report_applies_only_if_its_outbox_row_is_settled(database: Database) -> None:
    job_id = await add_job(database)
    refusal = Report(Status.ERROR, "refused", Source.DISPATCHER)
    settled: list[bool] = []
    for answer, expected in ((False, "queued"), (True, "error")):

        async def settle(tx: AsyncConnection, answer: bool = answer) -> bool:
            settled.append(tx.in_transaction())
            return answer

        await updates.report(database, ChannelNotifier(database), job_id, refusal, settle=settle)
        assert (await job_row(database, job_id))["status"] == expected
    await updates.report(database, ChannelNotifier(database), 4711, refusal, settle=settle)
    assert settled == [True] * 3


def outcomes() -> dict[str, float]:
    return {
        outcome: metric("opencloud_jobs_ended_total", outcome=outcome)
        for outcome in ("finished", "error")
    }


def observed(name: str, application: str) -> tuple[float, float]:
    """How many values a histogram has observed, and their sum."""
    metric_of = partial(REGISTRY.get_sample_value, labels={"application": application})
    return metric_of(f"{name}_count") or 0.0, metric_of(f"{name}_sum") or 0.0


async def test_waits_and_runs_are_observed_once_by_application(database: Database) -> None:
    application = {"application": fresh("app"), "version": "v1", "entrypoint": "train"}
    job_id = await add_job(database, date_created=utc_now(-600.0), application=application)
    before = outcomes()
    for status in ("pulled", "pulled", "running"):
        await report(database, job_id, status)
    name = application["application"]
    count, seconds = observed("opencloud_job_queued_seconds", name)
    assert (count, observed("opencloud_job_run_seconds", name)) == (1, (0, 0))
    assert 600 <= seconds < 660
    await change(database, jobs, job_id, date_started=utc_now(-60.0))
    for _ in range(2):
        await report(database, job_id, "finished")
    count, seconds = observed("opencloud_job_run_seconds", name)
    assert count == 1
    assert 60 <= seconds < 120
    assert outcomes() == before | {"finished": before["finished"] + 1}


async def test_a_job_without_a_start_is_counted_but_has_no_run_time(database: Database) -> None:
    name = fresh("app")
    job_id = await add_job(database, date_created=None, application={"application": name})
    before = outcomes()
    await report(database, job_id, "error", "no image")
    assert outcomes() == before | {"error": before["error"] + 1}
    assert observed("opencloud_job_run_seconds", name)[0] == 0
    assert observed("opencloud_job_queued_seconds", name)[0] == 0


async def test_a_change_that_is_not_committed_is_not_counted(database: Database) -> None:
    job_id = await add_job(database)
    before = outcomes()

    async def fail(_: AsyncConnection) -> bool:
        raise RuntimeError

    words = Report(Status.ERROR, None, Source.DISPATCHER)
    with pytest.raises(RuntimeError):
        await updates.report(database, ChannelNotifier(database), job_id, words, settle=fail)
    assert outcomes() == before
