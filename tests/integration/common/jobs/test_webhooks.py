"""Messages to webhooks, written with the change of a job."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import event, insert, text

from common.database.engine import Database, utc_now
from common.database.notify import ChannelNotifier
from common.database.tables import job_labels, webhook_deliveries, webhooks
from common.jobs import updates
from common.jobs import webhooks as module
from common.jobs.cancellation import Wish, cancel_jobs
from common.jobs.lifecycle import Report, Source, Status
from common.jobs.timeline import read_story
from common.jobs.webhooks import JobChange, write_messages
from devtools.waiting import eventually
from tests.support.records import add_job, rows
from tests.support.webhooks import add_webhook

URL = "https://example.org/"


async def report(database: Database, job_id: int, status: str) -> updates.Applied:
    words = Report(Status(status), None, Source.WORKER)
    notifier = ChannelNotifier(database)
    applied = await updates.report_of_worker(database, notifier, job_id, words)
    await notifier.close()
    assert applied is not None
    return applied


async def label(database: Database, job_id: int, **labels: str) -> None:
    added = [
        {"job_id": job_id, "user_id": "ada", "key": key, "value": value}
        for key, value in labels.items()
    ]
    async with database.transaction() as tx:
        await tx.execute(insert(job_labels), added)


async def written(database: Database) -> list[tuple[int, str]]:
    """Webhook and type of each message."""
    found = await rows(database, webhook_deliveries)
    return [(row["webhook_id"], row["event"]) for row in found]


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ([], True),
        (["exp"], True),
        (["exp:7"], True),
        (["exp:7", "site"], True),
        (["exp:8"], False),
        (["exp:7", "site:b"], False),
        (["other"], False),
        (["exp:"], False),
    ],
)
async def test_all_labels_of_a_webhook_must_be_on_the_job(
    database: Database, wanted: list[str], matches: bool
) -> None:
    webhook_id = await add_webhook(database, URL, labels=wanted)
    job_id = await add_job(database, status="running")
    await label(database, job_id, exp="7", site="a:b")
    applied = await report(database, job_id, "finished")
    assert applied.webhook_due is matches
    assert await written(database) == [(webhook_id, "job.finished")] * matches


async def test_only_the_users_enabled_webhooks_get_a_message(database: Database) -> None:
    own = await add_webhook(database, URL)
    await add_webhook(database, URL, user_id="eve")
    await add_webhook(database, URL, disabled_at=utc_now())
    await report(database, await add_job(database, status="running"), "error")
    assert await written(database) == [(own, "job.error")]


async def test_a_user_without_webhooks_costs_no_statement_more(database: Database) -> None:
    job_id = await add_job(database, status="running")
    await add_webhook(database, URL, user_id="eve")
    statements: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    applied = await report(database, job_id, "finished")
    assert not applied.webhook_due
    assert [s for s in statements if "webhooks" in s and "INSERT INTO job_events" not in s] == []


async def test_many_cancelled_jobs_are_many_messages(database: Database) -> None:
    webhook_id = await add_webhook(database, URL, events=["cancelled"])
    ids = [await add_job(database) for _ in range(40)]
    notifier = ChannelNotifier(database)
    await cancel_jobs(database, notifier, Wish("ada", "ada", None), ids)
    await notifier.close()
    assert await written(database) == [(webhook_id, "job.cancelled")] * 40
    assert [row["job_id"] for row in await rows(database, webhook_deliveries)] == ids


async def is_held_up(database: Database) -> bool:
    """Whether a transaction waits for another one."""
    if database.is_sqlite:
        return "waiters" in repr(database._write_lock)
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    async with database.reading() as connection:
        return bool((await connection.execute(waiting)).scalar_one())


async def test_a_webhook_is_not_deleted_between_its_look_up_and_its_message(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook_id = await add_webhook(database, URL, labels=["exp"])
    job_id = await add_job(database, status="finished")
    await label(database, job_id, exp="7")
    deleting: list[asyncio.Task[None]] = []
    labels_of = module._labels_of

    async def delete() -> None:
        async with database.transaction() as tx:
            await tx.execute(webhooks.delete().where(webhooks.c.id == webhook_id))

    async def between(*arguments: Any) -> Any:
        deleting.append(asyncio.create_task(delete()))
        await eventually(lambda: is_held_up(database))
        return await labels_of(*arguments)

    monkeypatch.setattr(module, "_labels_of", between)
    async with database.transaction() as tx:
        assert await write_messages(tx, [JobChange(job_id, "ada", ("finished",))])
    await asyncio.gather(*deleting)
    assert len(deleting) == 1
    assert await written(database) == []


@pytest.mark.parametrize("rounds", [20])
async def test_deletions_and_changes_of_webhooks_never_fail_a_report(
    database: Database, rounds: int
) -> None:
    async def come_and_go() -> None:
        for _ in range(rounds):
            webhook_id = await add_webhook(database, URL, events=["status"])
            async with database.transaction() as tx:
                await tx.execute(webhooks.delete().where(webhooks.c.id == webhook_id))

    async def run() -> None:
        job_id = await add_job(database)
        for status in ("pulled", "running", "finished"):
            await report(database, job_id, status)

    await asyncio.gather(come_and_go(), come_and_go(), *(run() for _ in range(rounds)))
    assert await written(database) == []


async def test_the_story_of_a_job_shows_its_messages(database: Database) -> None:
    webhook_id = await add_webhook(database, URL)
    job_id = await add_job(database, status="running")
    await report(database, job_id, "finished")
    story = await read_story(database, job_id)
    (row,) = await rows(database, webhook_deliveries)
    text = story.as_text()
    assert f"'job.finished' to webhook {webhook_id} written as {row['message']}" in text
    assert f"'job.finished' to webhook {webhook_id}: waiting to be sent" in text
    assert "payload" not in story.as_json().decode()
