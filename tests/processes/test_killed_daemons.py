"""Dispatchers and notifiers that are killed during a call."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from common.database.engine import Database
from common.database.tables import emails, handovers, webhook_deliveries
from devtools.waiting import eventually
from tests.support.cloud import Cloud, Held, on_sqlite
from tests.support.dispatcher import FakePeer, hear
from tests.support.notifier import FakeMailjet
from tests.support.records import add_handover, add_mail, all_done, end_leases
from tests.support.webhooks import KEY, Receiver, add_message, add_webhook


async def kill_dispatcher(cloud: Cloud, peer: FakePeer, take: Callable[[Any], object]) -> None:
    """Start a dispatcher and kill it during its first call."""
    peer.behave = held = Held(first_only=True, take=take)
    dispatcher = cloud.dispatcher()
    await asyncio.wait_for(held.reached.wait(), 60)
    dispatcher.kill()


@pytest.mark.parametrize("taken", [False, True], ids=["before", "after"])
async def test_a_dispatcher_killed_before_or_after_the_peer_took_the_job_makes_it_run_once(
    cloud: Cloud, database: Database, peer: FakePeer, taken: bool
) -> None:
    job_id = await add_handover(database)

    def take(body: Any) -> None:
        if taken:
            peer.taken.append(body["job"]["meta"]["job_id"])

    await kill_dispatcher(cloud, peer, take)
    await end_leases(database, handovers)
    cloud.dispatcher()
    await eventually(lambda: all_done(database, handovers), within=60)
    *first, other = peer.taken
    assert first == [job_id] * taken
    assert other != job_id
    assert await hear(database, other) is not None
    assert await hear(database, job_id) is None


async def test_a_status_update_in_time_prevents_the_resend_after_a_kill(
    cloud: Cloud, database: Database, peer: FakePeer
) -> None:
    job_id = await add_handover(database)
    await kill_dispatcher(cloud, peer, lambda _: None)
    assert await hear(database, job_id, "pulled") is not None
    await end_leases(database, handovers)
    later = await add_handover(database)
    cloud.dispatcher()
    await eventually(lambda: all_done(database, handovers), within=60)
    assert peer.tried == [job_id, later]


@on_sqlite
async def test_dispatchers_on_one_file_share_a_backlog_and_send_nothing_twice(
    cloud: Cloud, database: Database, peer: FakePeer
) -> None:
    expected = [await add_handover(database) for _ in range(200)]
    for _ in range(3):
        cloud.dispatcher()
    await eventually(lambda: len(peer.taken) >= len(expected), within=60)
    assert sorted(peer.taken) == expected


@pytest.mark.parametrize("sent", [False, True], ids=["before", "after"])
async def test_a_notifier_killed_before_or_after_mailjet_took_the_mail_sends_it_once(
    cloud: Cloud, database: Database, mailjet: FakeMailjet, sent: bool
) -> None:
    await add_mail(database)

    def take(messages: Any) -> None:
        for message in messages if sent else ():
            mailjet.deliver(message)

    mailjet.behave = held = Held(first_only=True, take=take)
    notifier = cloud.notifier()
    await asyncio.wait_for(held.reached.wait(), 60)
    notifier.kill()
    await end_leases(database, emails)
    cloud.notifier()
    await eventually(lambda: all_done(database, emails), within=60)
    assert len(mailjet.sent) == 1
    assert len(mailjet.lookups) == 1


@pytest.mark.parametrize("taken", [False, True], ids=["before", "after"])
async def test_a_notifier_killed_before_or_after_a_receiver_took_a_message_sends_it_again(
    cloud: Cloud, database: Database, taken: bool
) -> None:
    settings = {"WEBHOOK_KEY": KEY, "WEBHOOK_ALLOW_PRIVATE": "true"}
    held = Held(first_only=True)
    async with Receiver(held).served() as receiver:
        message = await add_message(database, await add_webhook(database, receiver.url))
        notifier = cloud.notifier(**settings)
        await asyncio.wait_for(held.reached.wait(), 60)
        if taken:
            notifier.suspend()
            held.released.set()
            await eventually(lambda: receiver.answered)
        notifier.kill()
        await end_leases(database, webhook_deliveries)
        cloud.notifier(**settings)
        await eventually(lambda: all_done(database, webhook_deliveries), within=60)
    assert receiver.ids == [message, message]
    assert receiver.got[0].body == receiver.got[1].body
