from typing import Any

import pytest

from common.database.engine import Database, utc_now
from common.database.errors import DatabaseUnavailable
from common.outbox.breaker import Allowance, BreakerState, CircuitBreaker
from common.outbox.consumer import Consumer
from common.outbox.outbox import Outbox
from common.outbox.peer_client import Outcome
from common.runtime.claim_loop import WorkSignal
from devtools.waiting import eventually
from dispatcher.handover import Handover
from tests.support.dispatcher import outbox_of
from tests.support.records import add_handover


@pytest.fixture
def outbox(database: Database) -> Outbox[Handover]:
    return outbox_of(database)


@pytest.fixture
def consumer(outbox: Outbox[Handover], breaker: CircuitBreaker) -> Consumer[Handover]:
    return Consumer(outbox, breaker, WorkSignal())


def jobs_of(items: list[Handover]) -> list[int]:
    return [item.job_id for item in items]


async def half_open(breaker: CircuitBreaker) -> None:
    breaker.unreachable()
    await eventually(lambda: breaker.state is BreakerState.HALF_OPEN)


async def test_held_items_get_their_try_however_many_others_are_due(
    database: Database, consumer: Consumer[Handover]
) -> None:
    held = await add_handover(database, state="held")
    due = [await add_handover(database) for _ in range(8)]
    assert jobs_of(await consumer.take(4)) == [held, *due[:3]]
    assert jobs_of(await consumer.take(4)) == due[3:7]


async def test_half_open_an_untried_item_goes_first_and_tried_ones_take_turns(
    database: Database,
    outbox: Outbox[Handover],
    consumer: Consumer[Handover],
    breaker: CircuitBreaker,
) -> None:
    tried = [await add_handover(database, priority=n, attempts=9 - n) for n in range(3)]
    untried = await add_handover(database)
    seen = []
    for _ in range(5):
        await half_open(breaker)
        (item,) = await consumer.take(4)
        seen.append(item.job_id)
        await outbox.retry([item], 0.0, "HTTP 500")
    assert seen == [untried, *tried, untried]


async def test_after_a_refusal_a_held_and_a_due_item_go(
    database: Database, consumer: Consumer[Handover], breaker: CircuitBreaker
) -> None:
    held = [await add_handover(database, state="held") for _ in range(2)]
    due = [await add_handover(database) for _ in range(2)]
    breaker.refused()
    await eventually(lambda: breaker.state is BreakerState.HALF_OPEN)
    items = await consumer.take(4)
    assert jobs_of(items) == [held[0], due[0]]
    assert [consumer.was_held(item) for item in items] == [True, False]
    assert [consumer.succeeded(item) for item in items] == [True, False]
    assert await consumer.release_held() == 1


async def test_an_item_that_stays_held_while_others_flow_opens_nothing(
    database: Database, consumer: Consumer[Handover], breaker: CircuitBreaker
) -> None:
    await add_handover(database, state="held")
    (item,) = await consumer.take(1)
    consumer.refused(item)
    assert breaker.state is BreakerState.CLOSED
    await add_handover(database)
    (other,) = await consumer.take(1)
    consumer.refused(other)
    assert breaker.label == "held"


async def test_claimed_items_go_out_although_the_next_claim_fails(
    database: Database, outbox: Outbox[Handover], consumer: Consumer[Handover], monkeypatch: Any
) -> None:
    held = await add_handover(database, state="held")

    async def fail(_: int) -> list[Handover]:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(outbox, "claim", fail)
    assert jobs_of(await consumer.take(4)) == [held]
    with pytest.raises(DatabaseUnavailable):
        await consumer.take(4)


async def test_a_breaker_whose_peer_is_back_closes_although_there_is_nothing_to_send(
    database: Database,
    outbox: Outbox[Handover],
    consumer: Consumer[Handover],
    breaker: CircuitBreaker,
) -> None:
    await add_handover(database, state="done", settled_at=utc_now())
    await add_handover(database, due_at=utc_now(600.0))
    await half_open(breaker)
    assert await consumer.take(4) == []
    assert breaker.state is BreakerState.CLOSED
    jobs = [await add_handover(database) for _ in range(3)]
    (first,) = await consumer.take(4)
    assert (first.job_id, await consumer.take(4)) == (jobs[0], [])
    await outbox.done([first])
    consumer.succeeded(first)
    assert jobs_of(await consumer.take(4)) == jobs[1:]


async def test_a_peer_that_answers_only_probes_gets_one_item_and_the_breaker_opens(
    database: Database, consumer: Consumer[Handover], breaker: CircuitBreaker
) -> None:
    await half_open(breaker)
    assert await consumer.take(4) == []
    for _ in range(3):
        await add_handover(database)
    (first,) = await consumer.take(4)
    consumer.failed(first, Outcome("not_taken"))
    assert breaker.label == "open"
    assert breaker.allowance() is Allowance.NOTHING


@pytest.mark.parametrize("state", ["pending", "sending", "in_doubt"])
async def test_a_breaker_stays_half_open_while_a_failed_item_waits_for_its_next_try(
    database: Database, consumer: Consumer[Handover], breaker: CircuitBreaker, state: str
) -> None:
    await add_handover(
        database, state=state, due_at=utc_now(30.0), owner="other", leased_until=utc_now(30.0)
    )
    await half_open(breaker)
    assert await consumer.take(4) == []
    assert breaker.state is BreakerState.HALF_OPEN
