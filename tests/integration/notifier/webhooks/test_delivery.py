"""Messages to receivers: what arrives, what is tried again, and what disables a webhook."""

import asyncio
from datetime import datetime
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import delete
from standardwebhooks import Webhook

from common.database.engine import Database, utc_now
from common.database.tables import emails, webhook_deliveries, webhooks
from common.notifications.choices import Choice, write_choice
from common.notifications.suppression import suppress
from common.webhooks.keys import SecretBox
from devtools.waiting import eventually
from notifier.settings import RETRY_DELAYS
from notifier.webhooks import courier
from notifier.webhooks.standing import Standings
from tests.integration.notifier.webhooks.conftest import Deliver
from tests.support.fakes import abort
from tests.support.notifier import FakeMailjet
from tests.support.records import end_leases, rows, until
from tests.support.webhooks import (
    KEY,
    PAYLOAD,
    SECRET,
    Message,
    Receiver,
    add_message,
    add_webhook,
    change_webhook,
    make_due,
)

OTHER_SECRET = "whsec_b3RoZXIgc2VjcmV0IG9mIHRoZSB0ZXN0cw=="


async def webhook_row(database: Database) -> Any:
    (row,) = await rows(database, webhooks)
    return row


async def test_a_message_arrives_signed_with_the_body_that_was_written(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    webhook_id = await add_webhook(database, f"{receiver.url}/hooks/1?a=b")
    message = await add_message(database, webhook_id)
    async with deliver():
        await until(database, webhook_deliveries, done=1)
    (got,) = receiver.got
    assert (got.id, got.body, got.path) == (message, PAYLOAD.encode(), "/hooks/1")
    assert len(got.signatures) == 1
    assert got.is_signed_by(SECRET)
    (row,) = await rows(database, webhook_deliveries)
    assert (row["attempts"], row["last_status"]) == (1, 204)


async def test_the_official_library_accepts_what_arrives(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    await add_message(database, await add_webhook(database, receiver.url))

    async def verify(request: web.Request, message: Message) -> None:
        verified = Webhook(SECRET).verify(message.body, dict(request.headers))
        assert verified["type"] == "job.finished"

    receiver.behave = verify  # a refusal would be a 500
    async with deliver():
        await until(database, webhook_deliveries, done=1)


@pytest.mark.parametrize(
    ("until_then", "keys", "count"),
    [(60.0, [KEY], 2), (60.0, [KEY, KEY], 3), (60.0, ["gone", KEY], 2), (-1.0, [KEY], 1)],
)
async def test_replaced_secrets_sign_as_well_for_a_while(
    database: Database,
    receiver: Receiver,
    deliver: Deliver,
    until_then: float,
    keys: list[str],
    count: int,
) -> None:
    previous = " ".join(SecretBox([key]).seal(OTHER_SECRET) for key in keys)
    webhook_id = await add_webhook(
        database, receiver.url, previous_secret=previous, previous_until=utc_now(until_then)
    )
    await add_message(database, webhook_id)
    async with deliver():
        await until(database, webhook_deliveries, done=1)
    (got,) = receiver.got
    assert len(got.signatures) == count
    assert got.is_signed_by(SECRET)
    assert got.is_signed_by(OTHER_SECRET) is (count > 1)


async def redirect(request: web.Request, _: Message) -> web.StreamResponse:
    return web.Response(status=307, headers={"Location": f"{request.path}/elsewhere"})


async def fail(_: web.Request, __: Message) -> web.StreamResponse:
    return web.Response(status=500)


async def reset(request: web.Request, _: Message) -> web.StreamResponse:
    return abort(request)


@pytest.mark.parametrize(
    ("behaviour", "status", "reason"),
    [
        (fail, 500, "HTTP 500"),
        (redirect, 307, "HTTP 307"),
        (reset, None, "ServerDisconnectedError"),
    ],
)
async def test_what_is_not_taken_comes_again_with_the_same_id_and_body(
    database: Database,
    receiver: Receiver,
    deliver: Deliver,
    behaviour: Any,
    status: int | None,
    reason: str,
) -> None:
    await add_message(database, await add_webhook(database, receiver.url))
    receiver.behave = behaviour
    async with deliver(retry_delays=(3_600.0,)):

        async def has_failed() -> bool:
            (row,) = await rows(database, webhook_deliveries)
            is_failing = (await webhook_row(database))["failing_since"] is not None
            return is_failing and (row["state"], row["attempts"]) == ("pending", 1)

        await eventually(has_failed)
        (row,) = await rows(database, webhook_deliveries)
        assert (row["last_status"], row["last_error"]) == (status, reason)
        receiver.behave = None
        await make_due(database)
        await until(database, webhook_deliveries, done=1)
        first, again = receiver.got
        assert (first.id, first.body, first.path) == (again.id, again.body, again.path)

        async def has_recovered() -> bool:
            return (await webhook_row(database))["failing_since"] is None

        await eventually(has_recovered)


async def test_retries_follow_the_published_schedule(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    await add_message(database, await add_webhook(database, receiver.url))
    receiver.behave = fail
    waits = []
    before = await now(database)
    async with deliver():
        for attempt in range(1, len(RETRY_DELAYS) + 1):

            async def is_tried(attempt: int = attempt) -> bool:
                (row,) = await rows(database, webhook_deliveries)
                return row["state"] == "pending" and row["attempts"] == attempt

            await eventually(is_tried)
            (row,) = await rows(database, webhook_deliveries)
            waits.append((row["due_at"] - before).total_seconds())
            before = await now(database)
            await make_due(database)
        await until(database, webhook_deliveries, failed=1)
    assert len(receiver.got) == 1 + len(RETRY_DELAYS)
    for waited, published in zip(
        waits, [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400], strict=True
    ):
        assert published <= waited < published + 15


async def now(database: Database) -> datetime:
    async with database.reading() as connection:
        found: datetime = (await connection.execute(utc_now().select())).scalar_one()
        return found


async def test_a_receiver_that_is_gone_disables_its_webhook(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    webhook_id = await add_webhook(database, receiver.url)
    for _ in range(3):
        await add_message(database, webhook_id)

    async def gone(_: web.Request, __: Message) -> web.StreamResponse:
        return web.Response(status=410)

    receiver.behave = gone
    async with deliver():
        await until(database, webhook_deliveries, failed=1, dropped=2)
    assert len(receiver.got) == 1
    row = await webhook_row(database)
    assert row["disabled_at"] is not None
    assert not await rows(database, emails)


@pytest.mark.parametrize("waits", [True, False], ids=["at a failure", "after the last one"])
async def test_days_of_failure_disable_a_webhook_with_a_mail(
    database: Database, receiver: Receiver, deliver: Deliver, mailjet: FakeMailjet, waits: bool
) -> None:
    webhook_id = await add_webhook(
        database,
        receiver.url,
        failing_since=utc_now(-5 * 86_400.0),
        mail_to="ada@example.org",
    )
    receiver.behave = fail
    if waits:
        await add_message(database, webhook_id)
    async with deliver():
        await until(database, emails, done=1)
    assert (await webhook_row(database))["disabled_at"] is not None
    (mail,) = mailjet.sent
    assert mail["To"] == [{"Email": "ada@example.org"}]
    assert f"PATCH /webhooks/{webhook_id}" in mail["TextPart"]
    if waits:
        (row,) = await rows(database, webhook_deliveries)
        assert row["state"] == "dropped"


@pytest.mark.parametrize(
    "why", ["unsubscribed", "suppressed", "enabled again", "deleted", "without an address"]
)
async def test_the_mail_about_a_webhook_is_stopped_like_any_other(
    database: Database, receiver: Receiver, deliver: Deliver, mailjet: FakeMailjet, why: str
) -> None:
    webhook_id = await add_webhook(
        database,
        receiver.url,
        failing_since=utc_now(-5 * 86_400.0),
        mail_to=None if why == "without an address" else "ada@example.org",
    )
    async with database.transaction() as tx:
        if why == "unsubscribed":
            await write_choice(tx, "ada", Choice.NONE)
        elif why == "suppressed":
            await suppress(tx, "ada@example.org", "bounced for good")
    await Standings(database, first_pause=5.0, give_up_after=432_000.0).sweep()
    assert (await webhook_row(database))["disabled_at"] is not None
    if why == "without an address":
        assert not await rows(database, emails)
        return
    if why == "enabled again":
        await change_webhook(database, webhook_id, disabled_at=None, failing_since=None)
    elif why == "deleted":
        async with database.transaction() as tx:
            await tx.execute(delete(webhooks))
    async with deliver():
        await until(database, emails, dropped=1)
    assert not mailjet.requests


async def test_what_is_taken_ends_the_failure_of_a_message_just_before_it(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    webhook_id = await add_webhook(database, receiver.url)
    refused, _ = [await add_message(database, webhook_id) for _ in range(2)]

    async def refuse_one(_: web.Request, message: Message) -> web.StreamResponse | None:
        return web.Response(status=500) if message.id == refused else None

    receiver.behave = refuse_one
    async with deliver(retry_delays=(3_600.0,)):
        await until(database, webhook_deliveries, pending=1, done=1)
    row = await webhook_row(database)
    assert (row["failing_since"], row["failures"]) == (None, 0)


async def test_a_receiver_has_recovered_before_what_it_took_is_settled(
    database: Database, receiver: Receiver, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill in between would have it given up, if nothing else is sent to it for days."""
    webhook_id = await add_webhook(database, receiver.url, failing_since=utc_now(-60.0))
    await add_message(database, webhook_id)
    states, recovered = [], Standings.recovered

    async def record(self: Standings, of_id: int) -> None:
        await recovered(self, of_id)
        states.extend(row["state"] for row in await rows(database, webhook_deliveries))

    monkeypatch.setattr(Standings, "recovered", record)
    async with deliver():
        await until(database, webhook_deliveries, done=1)
    assert states == ["sending"]


async def test_a_day_less_disables_nothing(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    webhook_id = await add_webhook(
        database, receiver.url, failing_since=utc_now(-4 * 86_400.0), mail_to="ada@example.org"
    )
    receiver.behave = fail
    await add_message(database, webhook_id)
    async with deliver():
        await eventually(lambda: receiver.got)
        await until(database, webhook_deliveries, pending=1)
    assert (await webhook_row(database))["disabled_at"] is None


async def test_a_receivers_messages_arrive_in_their_order(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    webhook_id = await add_webhook(database, receiver.url)
    under_way = 0

    async def one_at_a_time(_: web.Request, __: Message) -> None:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        await asyncio.sleep(0)
        under_way -= 1

    receiver.behave = one_at_a_time
    sent = [await add_message(database, webhook_id) for _ in range(20)]
    async with deliver(), deliver():
        sent += [await add_message(database, webhook_id) for _ in range(20)]
        await until(database, webhook_deliveries, done=40)
    assert receiver.ids == sent


async def test_receivers_that_hang_hold_up_no_other(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    released = asyncio.Event()

    async def hang(_: web.Request, __: Message) -> None:
        await released.wait()

    async with Receiver(hang).served() as dead:
        sent = set()
        for number in range(50):
            is_dead = number % 10 < 3
            webhook_id = await add_webhook(database, dead.url if is_dead else receiver.url)
            messages = {await add_message(database, webhook_id) for _ in range(2)}
            sent |= set() if is_dead else messages
        async with deliver():
            await eventually(lambda: set(receiver.ids) == sent and len(dead.got) == 15)
            await until(database, webhook_deliveries, done=len(sent), sending=30)
            released.set()
            await until(database, webhook_deliveries, done=100)


async def test_a_receiver_that_fails_message_after_message_is_paused(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    webhook_id = await add_webhook(database, receiver.url)
    for _ in range(20):
        await add_message(database, webhook_id)
    receiver.behave = fail

    async def is_paused() -> bool:
        row = await webhook_row(database)
        return row["paused_until"] is not None and row["paused_until"] > await now(database)

    async with deliver(retry_delays=(3_600.0,)):
        await eventually(is_paused)
        await until(database, webhook_deliveries, pending=20)
        attempts = [row["attempts"] for row in await rows(database, webhook_deliveries)]
        assert attempts == [1] * 5 + [0] * 15

        receiver.behave = None
        await change_webhook(database, webhook_id, paused_until=utc_now(-1.0))
        await until(database, webhook_deliveries, pending=5, done=15)
        row = await webhook_row(database)
        assert (row["failures"], row["failing_since"], row["paused_until"]) == (0, None, None)


async def test_retries_of_one_message_pause_nothing(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    await add_message(database, await add_webhook(database, receiver.url))
    receiver.behave = fail
    async with deliver(retry_delays=(0.0,) * 9):
        await until(database, webhook_deliveries, failed=1)
    row = await webhook_row(database)
    assert (row["failures"], row["paused_until"]) == (1, None)


async def test_nothing_goes_to_a_private_address(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    port = receiver.url.rpartition(":")[2]
    await add_message(database, await add_webhook(database, f"https://127.0.0.1:{port}/"))
    await add_message(database, await add_webhook(database, f"https://localhost:{port}/"))
    await add_message(database, await add_webhook(database, f"http://127.0.0.1:{port}/"))
    async with deliver(allow_private=False):

        async def all_failed() -> bool:
            found = await rows(database, webhook_deliveries)
            return all(row["last_error"] and row["state"] == "pending" for row in found)

        await eventually(all_failed)
    assert not receiver.got
    *forbidden, plain = [row["last_error"] for row in await rows(database, webhook_deliveries)]
    assert all(reason.endswith("is not a public one") for reason in forbidden)
    assert plain == "the URL does not begin with https://"


async def test_a_secret_that_no_key_opens_costs_no_attempt(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    sealed = SecretBox(["a key that is gone"]).seal(SECRET)
    webhook_id = await add_webhook(database, receiver.url, secret=sealed)
    await add_message(database, webhook_id)
    async with deliver():

        async def is_postponed() -> bool:
            (row,) = await rows(database, webhook_deliveries)
            return row["attempts"] == row["attempts_before"] == 1 and row["state"] == "pending"

        await eventually(is_postponed)
        assert (await webhook_row(database))["failing_since"] is None
        await change_webhook(database, webhook_id, secret=SecretBox([KEY]).seal(SECRET))
        await make_due(database)
        await until(database, webhook_deliveries, done=1)


async def test_a_webhook_that_is_disabled_meanwhile_gets_nothing(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    webhook_id = await add_webhook(database, receiver.url, disabled_at=utc_now())
    await add_message(database, webhook_id)
    async with deliver():
        await until(database, webhook_deliveries, dropped=1)
    assert not receiver.got


async def test_a_change_counts_for_what_waits_behind_a_few_others(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    webhook_id = await add_webhook(database, f"{receiver.url}/old")

    async def change(_: web.Request, __: Message) -> None:
        await change_webhook(database, webhook_id, url=f"{receiver.url}/new")

    receiver.behave = change
    sent = [await add_message(database, webhook_id) for _ in range(50)]
    async with deliver():
        await until(database, webhook_deliveries, done=50)
    assert receiver.ids == sent
    paths = [message.path for message in receiver.got]
    assert paths[0] == "/old"
    assert set(paths[20:]) == {"/new"}


async def test_a_webhook_that_is_disabled_gets_no_more_than_what_was_read_a_moment_before(
    database: Database, receiver: Receiver, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook_id = await add_webhook(database, receiver.url)
    for _ in range(3):
        await add_message(database, webhook_id)
    monkeypatch.setattr(courier, "_FRESH", 0.0)

    async def disable(_: web.Request, __: Message) -> None:
        await change_webhook(database, webhook_id, disabled_at=utc_now())

    receiver.behave = disable
    async with deliver():
        await until(database, webhook_deliveries, done=1, dropped=2)
    assert len(receiver.got) == 1


async def test_a_webhook_may_be_deleted_during_a_delivery(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    webhook_id = await add_webhook(database, receiver.url)
    kept = await add_webhook(database, receiver.url)
    for _ in range(2):
        await add_message(database, webhook_id)
    reached, released = asyncio.Event(), asyncio.Event()

    async def hold(_: web.Request, __: Message) -> None:
        reached.set()
        await released.wait()

    receiver.behave = hold
    async with deliver():
        await asyncio.wait_for(reached.wait(), 15)
        async with database.transaction() as tx:
            await tx.execute(webhooks.delete().where(webhooks.c.id == webhook_id))
        released.set()
        later = await add_message(database, kept)
        await until(database, webhook_deliveries, done=1)
    assert receiver.ids[-1] == later


async def test_a_long_body_arrives_whole(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    long = PAYLOAD.replace('"id":1', f'"runtime_details":"{"é" * 300_000}"')
    await add_message(database, await add_webhook(database, receiver.url), payload=long)
    async with deliver():
        await until(database, webhook_deliveries, done=1)
    assert receiver.got[0].body == long.encode()


async def test_long_messages_to_failing_receivers_are_few_at_a_time_and_hold_up_no_others(
    database: Database, receiver: Receiver, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.webhooks.courier._LONG_TO_FAILING", 1)
    monkeypatch.setattr("notifier.webhooks.courier._LONG_AT_ONCE", 1)
    long = PAYLOAD[:-1] + f', "more": "{"x" * 20_000}"}}'
    released = asyncio.Event()

    async def hang(request: web.Request, _: Message) -> None:
        if request.path == "/hangs":
            await released.wait()

    def hanging() -> int:
        return [message.path for message in receiver.got].count("/hangs")

    receiver.behave = hang
    for _ in range(3):
        failing = await add_webhook(database, f"{receiver.url}/hangs", failing_since=utc_now())
        await add_message(database, failing, payload=long)
    await add_message(database, await add_webhook(database, receiver.url), payload=long)
    async with deliver():
        await until(database, webhook_deliveries, done=1, sending=3)
        await eventually(hanging)
        assert hanging() == 1
        released.set()
        await until(database, webhook_deliveries, done=4)
    assert {message.body.decode() for message in receiver.got} == {long}


async def test_a_message_whose_notifier_did_not_report_back_is_sent_again(
    database: Database, receiver: Receiver, deliver: Deliver
) -> None:
    webhook_id = await add_webhook(database, receiver.url)
    message = await add_message(
        database, webhook_id, state="sending", owner="gone", attempts=1, leased_until=utc_now(600.0)
    )
    await end_leases(database, webhook_deliveries)
    async with deliver():
        await until(database, webhook_deliveries, done=1)
    assert receiver.ids == [message]
    (row,) = await rows(database, webhook_deliveries)
    assert row["attempts"] == 2
