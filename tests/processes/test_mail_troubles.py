"""A Mailjet that is choosy: about our key, about the rate, and about what it remembers."""

import asyncio
from collections import Counter
from typing import Any

from aiohttp import web

from common.database.engine import Database
from common.database.tables import emails
from devtools.waiting import eventually
from tests.conftest import settings_of
from tests.support.cloud import Cloud, on_postgresql
from tests.support.notifier import SECRET_KEY, FakeMailjet
from tests.support.records import add_mail, rows

BATCH = 50
PATIENT = {"EMAIL_TIMEOUT": 15}
"""Answers are late rather than lost where many processes share few cores."""


async def states(database: Database) -> Counter[str]:
    return Counter(str(row["state"]) for row in await rows(database, emails))


async def are_done(database: Database, count: int) -> bool:
    return await states(database) == {"done": count}


def assert_sent_once(mailjet: FakeMailjet, count: int) -> None:
    sent = Counter(mail["CustomID"] for mail in mailjet.sent)
    assert len(sent) == count
    assert set(sent.values()) == {1}


async def test_a_backlog_drains_at_the_rate_that_mailjet_allows(postgresql_cloud: Cloud) -> None:
    database = Database(settings_of(postgresql_cloud.database_url))
    batches, every = 5, 1.0
    for _ in range(batches * BATCH):
        await add_mail(database)
    opens = 0.0

    async def allow_one_in_a_while(_: web.Request, __: Any) -> web.StreamResponse | None:
        nonlocal opens
        now = asyncio.get_running_loop().time()
        if now < opens:
            return web.json_response({}, status=429, headers={"Retry-After": "1"})
        opens = now + every
        return None

    async with FakeMailjet().served() as mailjet:
        mailjet.behave = allow_one_in_a_while
        notifier = postgresql_cloud.notifier(mailjet.url, **PATIENT)
        started = asyncio.get_running_loop().time()
        await eventually(lambda: are_done(database, batches * BATCH), within=40)
        took = asyncio.get_running_loop().time() - started
        assert_sent_once(mailjet, batches * BATCH)
        assert took < 4 * batches * every + 5  # the start of the process included
        assert len(mailjet.requests) < 4 * batches
        assert await notifier.terminate() == 0
    await database.close()


@on_postgresql
async def test_a_key_that_mailjet_refuses_raises_the_alarm_and_loses_nothing(
    cloud: Cloud, database: Database
) -> None:
    count = BATCH + 10
    for _ in range(count):
        await add_mail(database)
    async with FakeMailjet().served() as mailjet:
        mailjet.secret_key = "another"
        notifier = cloud.notifier(mailjet.url, **PATIENT)
        await notifier.wait_until_ready()

        async def alarm() -> bool:
            return await notifier.metric("opencloud_mail_held") > 0

        await eventually(alarm, within=20)
        assert '"event":"peer.refused_us"' in notifier.output
        assert '"level":"error"' in notifier.output
        tries = len(mailjet.requests)
        await asyncio.sleep(3.0)
        assert len(mailjet.requests) - tries <= 20  # trials at growing intervals
        assert mailjet.sent == []
        assert set(await states(database)) <= {"held", "pending", "sending"}
        mailjet.secret_key = SECRET_KEY
        await eventually(lambda: are_done(database, count), within=20)
        assert_sent_once(mailjet, count)

        async def all_clear() -> bool:
            return await notifier.metric("opencloud_mail_held") == 0

        await eventually(all_clear, within=20)


@on_postgresql
async def test_a_duplicate_is_counted_when_mailjet_forgot_what_it_sent(
    cloud: Cloud, database: Database
) -> None:
    await add_mail(database)
    async with FakeMailjet().served() as mailjet:
        mailjet.finds = False

        async def send_and_break_off(request: web.Request, mails: Any) -> web.StreamResponse | None:
            if len(mailjet.requests) > 1:
                return None
            for mail in mails:
                mailjet.deliver(mail)
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        mailjet.behave = send_and_break_off
        notifier = cloud.notifier(mailjet.url, EMAIL_LOOKUP_WAIT=1)
        await eventually(lambda: are_done(database, 1), within=30)
        assert len(mailjet.sent) == 2
        assert len(mailjet.lookups) >= 1
        assert await notifier.metric("opencloud_mail_resends_total") == 1
