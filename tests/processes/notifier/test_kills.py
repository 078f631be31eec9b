"""Notifiers as real processes that are killed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from common.database.engine import Database
from common.database.tables import emails
from devtools.services import Process
from devtools.waiting import eventually
from tests.support.notifier import FakeMailjet, environment
from tests.support.records import add_mail, outbox_row

StartNotifier = Callable[..., Process]


@pytest.fixture
async def start(
    database_url: str, mailjet: FakeMailjet, tmp_path: Path
) -> AsyncIterator[StartNotifier]:
    processes: list[Process] = []

    def start_notifier(**changes: Any) -> Process:
        settings = environment(database_url, mailjet.url, **changes)
        processes.append(Process("notifier", settings, tmp_path))
        return processes[-1]

    yield start_notifier
    for process in processes:
        process.kill()


async def is_done(database: Database, job_id: int) -> bool:
    return bool((await outbox_row(database, emails, job_id))["state"] == "done")


@pytest.mark.parametrize("sent", [False, True], ids=["before", "after"])
async def test_a_notifier_killed_around_the_call_sends_one_mail(
    database: Database, mailjet: FakeMailjet, start: StartNotifier, sent: bool
) -> None:
    job_id = await add_mail(database)
    reached = asyncio.Event()

    async def hang_once(_: web.Request, messages: list[Any]) -> web.StreamResponse | None:
        if reached.is_set():
            return None
        if sent:
            for message in messages:
                mailjet.deliver(message)
        reached.set()
        await asyncio.sleep(60)
        return web.Response()

    mailjet.behave = hang_once
    first = start()
    await asyncio.wait_for(reached.wait(), 20)
    first.kill()
    start()
    await eventually(lambda: is_done(database, job_id), within=30)
    assert len(mailjet.sent) == 1
    assert len(mailjet.lookups) == 1


async def test_a_stopped_notifier_exits_cleanly_and_its_log_tells_no_secret(
    database: Database, mailjet: FakeMailjet, start: StartNotifier
) -> None:
    job_id = await add_mail(database)
    process = start()
    await eventually(lambda: is_done(database, job_id), within=30)
    assert await process.terminate() == 0
    assert f'"correlation_id":"correlation-{job_id}"' in process.output
    assert "mailjet-secret-key" not in process.output
    assert "mailjet-api-key" not in process.output


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"EMAIL_SENDER_SERVICE": "pigeon"},
            "EMAIL_SENDER_SERVICE must be 'mailjet' or empty, not 'pigeon'",
        ),
        (
            {"EMAIL_SENDER_API_URL": "https://mail:jet"},
            (
                "EMAIL_SENDER_API_URL must name a host, and a port if any,"
                " as in https://example.org:8443"
            ),
        ),
        ({"EMAIL_SENDER_ADDRESS": ""}, "EMAIL_SENDER_ADDRESS is missing"),
        ({"EMAIL_SENDER_SECRET_KEY": ""}, "EMAIL_SENDER_SECRET_KEY is missing"),
    ],
)
async def test_wrong_settings_end_the_start_with_one_sentence(
    tmp_path: Path, changes: dict[str, str], sentence: str
) -> None:
    settings = environment("sqlite:///./mails.db", "http://127.0.0.1:1", **changes)
    process = Process("notifier", settings, tmp_path)
    assert await process.wait() == 1
    assert process.output == f"notifier: settings: {sentence}.\n"
