"""A Mailjet that limits the rate, refuses the key, or loses track of what it sent."""

import asyncio
from collections import Counter
from typing import Any

from aiohttp import web

from common.database.engine import Database
from common.database.tables import emails
from devtools.waiting import eventually
from tests.support.cloud import Cloud, on_postgresql
from tests.support.notifier import SECRET_KEY, FakeMailjet
from tests.support.records import add_mail, all_done, rows

BATCH = 50

pytestmark = on_postgresql


def assert_sent_once(mailjet: FakeMailjet, count: int) -> None:
    sent = Counter(mail["CustomID"] for mail in mailjet.sent)
    assert len(sent) == count
    assert set(sent.values()) == {1}


async def test_a_backlog_drains_at_the_rate_that_mailjet_allows(
    cloud: Cloud, database: Database, mailjet: FakeMailjet
) -> None:
    batches, every = 4, 1.0
    for _ in range(batches * BATCH):
        await add_mail(database)
    now = asyncio.get_running_loop().time
    opens = first = 0.0

    async def allow_one_in_a_while(_: web.Request, __: Any) -> web.StreamResponse | None:
        nonlocal opens, first
        first = first or now()
        if now() < opens:
            return web.json_response({}, status=429, headers={"Retry-After": "1"})
        opens = now() + every
        return None

    mailjet.behave = allow_one_in_a_while
    notifier = cloud.notifier()
    await eventually(lambda: all_done(database, emails, batches * BATCH), within=40)
    assert_sent_once(mailjet, batches * BATCH)
    assert now() - first < 4 * batches * every + 2
    assert len(mailjet.requests) < 4 * batches
    assert await notifier.terminate() == 0


async def test_a_key_that_mailjet_refuses_raises_the_alarm_and_loses_nothing(
    cloud: Cloud, database: Database, mailjet: FakeMailjet
) -> None:
    count = BATCH + 10
    for _ in range(count):
        await add_mail(database)
    mailjet.secret_key = "another"
    notifier = cloud.notifier()
    await notifier.wait_until_ready()

    async def alarm_is(raised: bool) -> bool:
        return (await notifier.metric("opencloud_mail_held") > 0) is raised

    await eventually(lambda: alarm_is(True))
    await eventually(lambda: '"event":"peer.refused_us"' in notifier.output)
    assert '"level":"error"' in notifier.output
    tries, started = len(mailjet.requests), asyncio.get_running_loop().time()
    await eventually(lambda: len(mailjet.requests) >= tries + 4)
    took = asyncio.get_running_loop().time() - started
    assert took > 0.1  # trials, at growing intervals, of which each is any up to a limit
    assert mailjet.sent == []
    assert {row["state"] for row in await rows(database, emails)} <= {"held", "pending", "sending"}
    mailjet.secret_key = SECRET_KEY
    await eventually(lambda: all_done(database, emails, count))
    assert_sent_once(mailjet, count)
    await eventually(lambda: alarm_is(False))


async def test_a_duplicate_is_counted_when_mailjet_does_not_find_what_it_sent(
    cloud: Cloud, database: Database, mailjet: FakeMailjet
) -> None:
    await add_mail(database)
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
    notifier = cloud.notifier()
    await eventually(lambda: all_done(database, emails), within=30)
    assert len(mailjet.sent) == 2
    assert len(mailjet.lookups) >= 1
    assert await notifier.metric("opencloud_mail_resends_total") == 1
