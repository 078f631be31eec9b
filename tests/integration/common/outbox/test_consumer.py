from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.database.engine import Database, utc_now
from common.database.errors import DatabaseUnavailable
from common.database.tables import handovers
from common.outbox.breaker import Gate, Permit, State
from common.outbox.consumer import Intake
from common.outbox.outbox import Claimed, Outbox
from devtools.waiting import eventually
from tests.support.records import add_handover


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    """In front of a peer that answers every probe."""

    async def probe() -> bool:
        return True

    gate = Gate("peer", probe=probe, longest_pause=0.05)
    gate.start()
    yield gate
    await gate.stop()


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database, handovers, owner="me", lease=60.0)


@pytest.fixture
def intake(outbox: Outbox, gate: Gate) -> Intake:
    return Intake(outbox, gate)


def jobs_of(items: list[Claimed]) -> list[int]:
    return [item.job_id for item in items]


async def test_what_is_held_gets_its_try_however_much_else_is_due(
    database: Database, intake: Intake
) -> None:
    held = await add_handover(database, state="held")
    due = [await add_handover(database) for _ in range(8)]
    assert jobs_of(await intake.take(4)) == [held, *due[:3]]
    assert jobs_of(await intake.take(4)) == due[3:7]


async def test_a_trial_is_of_an_item_that_was_not_tried_before(
    database: Database, outbox: Outbox, intake: Intake, gate: Gate
) -> None:
    tried = [await add_handover(database, priority=5, attempts=3) for _ in range(3)]
    fresh = await add_handover(database)
    seen = []
    for _ in range(4):
        gate.unreachable()
        (item,) = await eventually(lambda: intake.take(4))
        seen.append(item.job_id)
        await outbox.retry([item], 0.0, "HTTP 500")
    assert seen == [fresh, *tried]


async def test_trials_of_items_that_were_all_tried_take_turns(
    database: Database, outbox: Outbox, intake: Intake, gate: Gate
) -> None:
    tried = [await add_handover(database, priority=n, attempts=9 - n) for n in range(3)]
    seen = []
    for _ in range(6):
        gate.unreachable()
        (item,) = await eventually(lambda: intake.take(4))
        seen.append(item.job_id)
        await outbox.retry([item], 0.0, "HTTP 500")
    assert seen == [*tried, *tried]


async def test_what_is_claimed_goes_out_though_the_next_claim_fails(
    database: Database, outbox: Outbox, intake: Intake, monkeypatch: Any
) -> None:
    held = await add_handover(database, state="held")

    async def fail(_: int) -> list[Claimed]:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(outbox, "claim", fail)
    assert jobs_of(await intake.take(4)) == [held]
    with pytest.raises(DatabaseUnavailable):
        await intake.take(4)


async def half_open(gate: Gate) -> None:
    gate.unreachable()
    await eventually(lambda: gate.state is State.HALF_OPEN)


async def test_a_gate_whose_peer_is_back_closes_though_there_is_nothing_to_send(
    database: Database, outbox: Outbox, intake: Intake, gate: Gate
) -> None:
    await add_handover(database, state="done", settled_at=utc_now())
    await add_handover(database, due_at=utc_now(600.0))
    await half_open(gate)
    assert await intake.take(4) == []
    assert gate.state is State.CLOSED
    jobs = [await add_handover(database) for _ in range(3)]
    (first,) = await intake.take(4)
    assert (first.job_id, await intake.take(4)) == (jobs[0], [])
    await outbox.done([first])
    intake.succeeded(first)
    assert jobs_of(await intake.take(4)) == jobs[1:]


async def test_a_peer_that_answers_probes_alone_gets_one_item_and_the_gate_opens(
    database: Database, outbox: Outbox, intake: Intake, gate: Gate
) -> None:
    await half_open(gate)
    assert await intake.take(4) == []
    for _ in range(3):
        await add_handover(database)
    (first,) = await intake.take(4)
    await outbox.retry([first], 5.0, "HTTP 500")
    intake.failed(first)
    assert (gate.state, gate.permit) == (State.OPEN, Permit.NOTHING)


@pytest.mark.parametrize("state", ["pending", "sending", "in_doubt"])
async def test_a_gate_stays_half_open_while_what_failed_waits_for_its_next_try(
    database: Database, intake: Intake, gate: Gate, state: str
) -> None:
    await add_handover(
        database, state=state, due_at=utc_now(30.0), owner="other", leased_until=utc_now(30.0)
    )
    await half_open(gate)
    assert await intake.take(4) == []
    assert gate.state is State.HALF_OPEN
