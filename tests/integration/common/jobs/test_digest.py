"""Who gets which mails; one digest for all jobs, in every order in which they may end."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from common.database.engine import Database
from common.database.notify import ChannelNotifier
from common.database.tables import digest_jobs, emails
from common.jobs import updates
from common.jobs.cancellation import Wish, cancel_jobs
from common.jobs.deletion import mark_deleted
from common.jobs.digest import change_choice
from common.jobs.lifecycle import Report, Source, Status
from common.notifications.choices import Choice, read_choice
from common.notifications.suppression import find_suppressed, suppress
from tests.support.records import add_job, rows

ROUNDS = 8


async def end(database: Database, job_id: int, status: str = "finished") -> bool:
    """The job ends; whether a mail is due."""
    words = Report(Status(status), "the end", Source.WORKER)
    applied = await updates.report_of_worker(database, ChannelNotifier(database), job_id, words)
    return applied is not None and applied.mail_due


async def cancel(database: Database, *job_ids: int) -> None:
    await cancel_jobs(database, ChannelNotifier(database), Wish("ada", "ada", None), job_ids)


async def delete(database: Database, job_id: int) -> None:
    async with database.transaction() as tx:
        await mark_deleted(tx, "ada", job_id)


async def running(database: Database, count: int = 1, **values: Any) -> list[int]:
    return [await add_job(database, status="running", **values) for _ in range(count)]


async def digests(database: Database) -> list[list[int]]:
    """The jobs that each digest names."""
    named = select(digest_jobs.c.job_id, digest_jobs.c.mail_id).order_by(digest_jobs.c.job_id)
    async with database.reading() as connection:
        of_mail: dict[int, list[int]] = {}
        for row in await connection.execute(named):
            of_mail.setdefault(row.mail_id, []).append(row.job_id)
    mails = [row for row in await rows(database, emails) if row["kind"] == "digest"]
    assert all((row["job_id"], row["user_id"]) == (None, "ada") for row in mails)
    return [of_mail.get(row["id"], []) for row in mails]


@pytest.fixture
async def last(database: Database) -> None:
    await change_choice(database, "ada", Choice.LAST)


@pytest.mark.parametrize("status", ["finished", "error"])
@pytest.mark.parametrize(
    ("choice", "notify", "wanted"),
    [
        (None, None, {"finished", "error"}),
        ("all", None, {"finished", "error"}),
        ("errors", None, {"error"}),
        ("none", None, set()),
        ("none", "all", {"finished", "error"}),
        ("none", "errors", {"error"}),
        ("all", "errors", {"error"}),
        ("all", "none", set()),
        ("last", "all", {"finished", "error"}),
        ("last", "none", set()),
    ],
)
async def test_the_jobs_choice_decides_before_the_users(
    database: Database, choice: str | None, notify: str | None, wanted: set[str], status: str
) -> None:
    if choice:
        await change_choice(database, "ada", Choice(choice))
    (job_id,) = await running(database, notify=notify)
    assert await end(database, job_id, status) is (status in wanted)
    assert {row["kind"] for row in await rows(database, emails)} == wanted & {status}


async def test_the_choice_of_another_user_does_not_count(database: Database) -> None:
    await change_choice(database, "eve", Choice.NONE)
    async with database.reading() as connection:
        choices = [await read_choice(connection, user) for user in ("ada", "eve")]
    assert choices == [Choice.ALL, Choice.NONE]


@pytest.mark.usefixtures("last")
async def test_one_digest_names_all_jobs_once_none_is_under_way(database: Database) -> None:
    first, second, third = await running(database, 3)
    others = await running(database, user_id="eve")
    assert not await end(database, first)
    assert not await end(database, second, "error")
    assert await digests(database) == []
    assert await end(database, third)
    assert await digests(database) == [[first, second, third]]
    (mail,) = await rows(database, emails)
    assert mail["recipient"] == "ada@example.org"
    assert await end(database, others[0])  # eve's, who has chosen nothing
    (later,) = await running(database)
    assert await end(database, later)
    assert await digests(database) == [[first, second, third], [later]]


@pytest.mark.usefixtures("last")
async def test_of_jobs_that_end_at_once_exactly_one_writes_the_digest(database: Database) -> None:
    expected: list[list[int]] = []
    for _ in range(ROUNDS):
        job_ids = await running(database, 6)
        due = await asyncio.gather(*(end(database, job_id) for job_id in job_ids))
        assert sum(due) == 1
        expected.append(job_ids)
        assert await digests(database) == expected


@pytest.mark.usefixtures("last")
async def test_the_end_of_a_job_with_a_choice_of_its_own_counts_as_the_last(
    database: Database,
) -> None:
    for _ in range(ROUNDS):
        before = len(await digests(database))
        (gathered,) = await running(database)
        (silent,) = await running(database, notify="none")
        await asyncio.gather(end(database, gathered), end(database, silent))
        assert (await digests(database))[before:] == [[gathered]]


@pytest.mark.usefixtures("last")
@pytest.mark.parametrize("leave", [cancel, delete])
async def test_a_digest_follows_when_the_last_job_is_cancelled_or_deleted(
    database: Database, leave: Any
) -> None:
    for _ in range(ROUNDS):
        before = len(await digests(database))
        first, second, third = await running(database, 3)
        await end(database, first)
        await asyncio.gather(end(database, second), leave(database, third))
        assert (await digests(database))[before:] == [[first, second]]


@pytest.mark.usefixtures("last")
async def test_cancelled_and_deleted_jobs_alone_cause_no_digest(database: Database) -> None:
    first, second, third = await running(database, 3)
    await end(database, first, "error")
    await end(database, first, "queued")  # a retry, which is cancelled
    await cancel(database, first, second)
    await end(database, third)
    assert await digests(database) == [[third]]
    (fourth,) = await running(database)
    await delete(database, fourth)
    assert len(await digests(database)) == 1


@pytest.mark.usefixtures("last")
async def test_a_job_without_an_address_is_in_no_digest(database: Database) -> None:
    (first,) = await running(database)
    (second,) = await running(database, user_email=None)
    await end(database, first)
    assert await end(database, second)
    assert await digests(database) == [[first]]


@pytest.mark.usefixtures("last")
@pytest.mark.parametrize(
    ("choice", "found"), [("all", [[0]]), ("errors", [[0]]), ("none", []), ("last", [])]
)
async def test_another_choice_sends_what_was_gathered_and_none_forgets_it(
    database: Database, choice: str, found: list[list[int]]
) -> None:
    first, second = await running(database, 2)
    await end(database, first)
    assert await change_choice(database, "ada", Choice(choice)) is bool(found)
    assert await digests(database) == [[first] for _ in found]
    await end(database, second)
    kinds = [row["kind"] for row in await rows(database, emails)]
    assert kinds.count("finished") == (choice == "all")
    assert await digests(database) == (
        [[first, second]] if choice == "last" else [[first]] * len(found)
    )


@pytest.mark.usefixtures("last")
async def test_a_choice_that_races_the_end_of_a_job_leaves_nothing_behind(
    database: Database,
) -> None:
    for _ in range(ROUNDS):
        ended, _under_way = await running(database, 2)
        await asyncio.gather(end(database, ended), change_choice(database, "ada", Choice.NONE))
        assert await rows(database, digest_jobs) == []
        await change_choice(database, "ada", Choice.LAST)


async def test_a_user_who_wants_mails_gets_them_at_an_address_that_bounced(
    database: Database,
) -> None:
    async with database.transaction() as tx:
        await suppress(tx, "Ada@Example.org", "bounced")
        await suppress(tx, "eve@example.org", "bounced")
    known = {"ada@example.org", "eve@example.org"}

    async def suppressed() -> set[str]:
        async with database.reading() as connection:
            return set(await find_suppressed(connection, ["ADA@example.org", "eve@example.org"]))

    await change_choice(database, "ada", Choice.NONE, address="ada@example.org")
    assert await suppressed() == known
    await change_choice(database, "ada", Choice.ERRORS, address="ada@example.org")
    assert await suppressed() == {"eve@example.org"}
