"""The deliverer by itself: what becomes of mails that it cannot send."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.database.tables import emails
from common.outbox.breaker import Allowance, CircuitBreaker
from common.outbox.consumer import Consumer
from common.outbox.outbox import Outbox
from common.runtime.claim_loop import WorkSignal
from common.telemetry.redaction import NO_REDACTION
from devtools.waiting import eventually
from notifier import compose
from notifier.compose import Composer
from notifier.deliver import Deliverer
from notifier.mailjet import Mailjet
from notifier.messages import MAX_DETAILS, MAX_OUTPUT, Job, Mail, Site
from tests.support.metrics import metric
from tests.support.notifier import FakeMailjet, mailjet_settings, outbox_of
from tests.support.records import add_job, add_mail, rows


@pytest.fixture
def outbox(database: Database) -> Outbox[Mail]:
    return outbox_of(database)


@pytest.fixture
async def deliverer(
    database: Database, outbox: Outbox[Mail], breaker: CircuitBreaker, mailjet: FakeMailjet
) -> AsyncIterator[Deliverer]:
    async with aiohttp.ClientSession() as session:
        yield Deliverer(
            outbox=outbox,
            consumer=Consumer(outbox, breaker, WorkSignal()),
            mailjet=Mailjet(
                session, mailjet_settings(mailjet.url), timeout=2.0, redaction=NO_REDACTION
            ),
            composer=Composer(database, Site()),
            lookup_wait=1.0,
        )


async def states(database: Database) -> list[tuple[str, int]]:
    return [(row["state"], row["doubts"]) for row in await rows(database, emails)]


async def test_a_mail_that_cannot_be_written_blocks_neither_the_breaker_nor_the_others(
    database: Database,
    breaker: CircuitBreaker,
    deliverer: Deliverer,
    mailjet: FakeMailjet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(3):
        await add_mail(database, recipient=f"user{number}@example.org")
    write = Composer.compose

    async def fail_for_one(composer: Composer, batch: list[Mail]) -> Any:
        if any(item.recipient == "user1@example.org" for item in batch):
            raise RuntimeError
        return await write(composer, batch)

    monkeypatch.setattr(Composer, "compose", fail_for_one)
    (batch,) = await deliverer.take(2)
    with pytest.raises(RuntimeError):
        await deliverer.deliver(batch)
    assert await states(database) == [("pending", 0)] * 3
    assert "could not be written" in (await rows(database, emails))[0]["last_error"]
    while len(mailjet.sent) < 2:
        for single in await eventually(lambda: deliverer.take(2)):
            with contextlib.suppress(RuntimeError):
                await deliverer.deliver(single)
    assert sorted(mailjet.recipients) == ["user0@example.org", "user2@example.org"]
    breaker.unreachable()
    await eventually(lambda: breaker.allowance() is Allowance.ONE)
    (single,) = await eventually(lambda: deliverer.take(2))
    with pytest.raises(RuntimeError):
        await deliverer.deliver(single)
    assert breaker.allowance() is Allowance.ONE
    assert sorted(await states(database)) == [("done", 0), ("done", 0), ("pending", 0)]


async def test_mails_that_cannot_go_alone_all_at_once_are_given_back_however_long_it_takes(
    database: Database, outbox: Outbox[Mail], deliverer: Deliverer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(20):
        await add_mail(database, alone=True)
    release, failures = outbox.release, [DatabaseUnavailable("away")] * 2

    async def fail_at_first(mails: list[Mail]) -> None:
        if failures:
            raise failures.pop()
        await release(mails)

    monkeypatch.setattr(outbox, "release", fail_at_first)
    *singles, surplus = await deliverer.take(2)
    assert [len(batch) for batch in singles] == [1] * 8
    await deliverer.deliver(surplus)
    found = await states(database)
    assert (found.count(("sending", 0)), found.count(("pending", 0))) == (8, 12)


@pytest.mark.parametrize("length", [0, 1, MAX_DETAILS, MAX_DETAILS + 1, MAX_OUTPUT + 3])
async def test_of_long_details_no_more_is_read_than_a_mail_is_made_from(
    database: Database, deliverer: Deliverer, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    details = "".join(chr(0x100 + number % 0x100) for number in range(length))
    await add_mail(database, await add_job(database, runtime_details=details))
    read: list[str] = []

    def write(_: Mail, job: Job, __: Site) -> None:
        read.append(job.details or "")

    monkeypatch.setattr(compose, "write_message", write)
    (batch,) = await deliverer.take(2)
    await deliverer.composer.compose(batch)
    assert read == [details[-MAX_OUTPUT - 1 :]]


async def test_a_held_mail_that_is_refused_again_is_counted_once(
    database: Database, deliverer: Deliverer, mailjet: FakeMailjet
) -> None:
    mailjet.secret_key = "another"
    await add_mail(database)
    before = metric("opencloud_mail_held")
    (batch,) = await deliverer.take(2)
    await deliverer.deliver(batch)
    assert metric("opencloud_mail_held") == before + 1
    (batch,) = await eventually(lambda: deliverer.take(2))
    await deliverer.deliver(batch)
    assert (len(mailjet.requests), metric("opencloud_mail_held")) == (2, before + 1)
