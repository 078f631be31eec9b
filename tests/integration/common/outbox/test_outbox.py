import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from common.database.engine import Database, utc_now
from common.database.errors import DatabaseUnavailable
from common.database.tables import handovers
from common.outbox.maintenance import OutboxMaintenance
from common.outbox.outbox import Outbox
from dispatcher.handover import Handover
from tests.support.clock import Clock
from tests.support.dispatcher import outbox_of
from tests.support.records import add_handover, change, end_leases, outbox_row, rows, states


@pytest.fixture
def outbox(database: Database) -> Outbox[Handover]:
    return outbox_of(database)


@pytest.fixture
def maintenance(database: Database) -> OutboxMaintenance:
    return OutboxMaintenance(database, handovers)


# -- claiming


async def test_due_items_are_claimed_by_priority_then_age(
    database: Database, outbox: Outbox[Handover]
) -> None:
    low = [await add_handover(database) for _ in range(2)]
    await add_handover(database, due_at=utc_now(3600.0))
    high = [await add_handover(database, priority=5) for _ in range(2)]
    assert [item.job_id for item in await outbox.claim(3)] == [*high, low[0]]
    assert [item.job_id for item in await outbox.claim(3)] == low[1:]


async def test_a_claim_counts_as_an_attempt_under_a_token_of_its_own(
    database: Database, outbox: Outbox[Handover]
) -> None:
    job_ids = [await add_handover(database) for _ in range(2)]
    items = [*await outbox.claim(1), *await outbox.claim(1)]
    found = [await outbox_row(database, handovers, job_id) for job_id in job_ids]
    assert [item.owner for item in items] == [row["owner"] for row in found]
    assert len({item.owner for item in items}) == 2
    assert [(row["attempts"], row["state"]) for row in found] == [(1, "sending")] * 2
    assert [item.attempts for item in items] == [1, 1]


async def test_racing_claimers_never_share_an_item(database: Database) -> None:
    expected = [await add_handover(database) for _ in range(60)]
    taken: list[int] = []

    async def drain() -> None:
        outbox = outbox_of(database)
        while items := await outbox.claim(3):
            taken.extend(item.job_id for item in items)

    await asyncio.gather(*(drain() for _ in range(8)))
    assert sorted(taken) == expected


async def test_an_owner_whose_lease_ran_out_changes_nothing(
    database: Database, outbox: Outbox[Handover], maintenance: OutboxMaintenance
) -> None:
    job_id = await add_handover(database)
    (stale,) = await outbox.claim(1)
    await end_leases(database, handovers)
    assert await maintenance.doubt_expired(0.0, 10) == 1
    await outbox.resend(await outbox.claim_doubtful(1))
    (current,) = await outbox.claim(1)
    await outbox.done([stale])
    assert await states(database, handovers) == ["sending"]
    await outbox.retry([current], 60.0, "not taken")
    assert await outbox.claim(1) == []
    await change(database, handovers, job_id, due_at=utc_now())
    (again,) = await outbox.claim(1)
    assert again.attempts == current.attempts + 1
    await outbox.done([current])  # of an earlier attempt
    assert await states(database, handovers) == ["sending"]
    await outbox.done([again])
    await outbox.retry([stale], 0.0, "late")
    assert await states(database, handovers) == ["done"]


async def lose_the_answer_of_a_claim(outbox: Outbox[Handover], error: BaseException) -> None:
    """The claim is made, but its answer does not arrive."""
    database = outbox._database
    statement = database.statement

    @asynccontextmanager
    async def broken() -> AsyncIterator[Any]:
        async with statement() as connection:
            yield connection
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "statement", broken)
        with pytest.raises(type(error)):
            await outbox.claim(10)


@pytest.mark.parametrize("error", [DatabaseUnavailable("lost"), asyncio.CancelledError()])
async def test_items_of_a_lost_claim_were_never_sent_and_are_due_again(
    database: Database, outbox: Outbox[Handover], error: BaseException
) -> None:
    sent, of_another, lost = [await add_handover(database) for _ in range(3)]
    await outbox.claim(1)  # and sent, but not settled yet
    await outbox_of(database).claim(1)
    await lose_the_answer_of_a_claim(outbox, error)
    assert await states(database, handovers) == ["sending"] * 3
    await lose_the_answer_of_a_claim(outbox, error)  # of what gives it back, this time
    assert await states(database, handovers) == ["sending", "sending", "pending"]
    (again,) = await outbox.claim(10)
    assert (again.job_id, again.attempts) == (lost, 1)
    assert await outbox.claim(10) == []
    for job_id in (sent, of_another):
        assert (await outbox_row(database, handovers, job_id))["attempts"] == 1


# -- settling


async def test_items_of_several_claims_are_settled_together(
    database: Database, outbox: Outbox[Handover]
) -> None:
    for _ in range(3):
        await add_handover(database)
    await outbox.done([*await outbox.claim(2), *await outbox.claim(2)])
    await outbox.done([])
    assert await states(database, handovers) == ["done"] * 3


async def test_a_payload_is_kept_until_its_item_is_settled(
    database: Database, outbox: Outbox[Handover]
) -> None:
    for _ in range(3):
        await add_handover(database, payload="{}")
    delivered, refused, doubtful = await outbox.claim(3)
    await outbox.done([delivered])
    await outbox.fail([refused], "HTTP 422")
    await outbox.doubt([doubtful], 0.0, "no answer")
    assert [row["payload"] for row in await rows(database, handovers)] == ["", "", "{}"]
    await outbox.resend(await outbox.claim_doubtful(1))
    (again,) = await outbox.claim(1)
    assert again.payload == "{}"


async def test_held_items_are_tried_in_turn_and_released_together(
    database: Database, outbox: Outbox[Handover]
) -> None:
    job_ids = [await add_handover(database) for _ in range(3)]
    await outbox.hold(await outbox.claim(3), "HTTP 401")
    assert await outbox.claim(3) == []
    tried = []
    for _ in range(3):
        (item,) = await outbox.claim_held(1)
        tried.append(item.job_id)
        await outbox.hold([item], "HTTP 401")
    assert sorted(tried) == job_ids
    assert await outbox.release_held() == 3
    assert len(await outbox.claim(3)) == 3


async def test_an_item_given_back_was_not_tried(
    database: Database, outbox: Outbox[Handover]
) -> None:
    job_id = await add_handover(database)
    await outbox.release(await outbox.claim(1))
    row = await outbox_row(database, handovers, job_id)
    assert (row["state"], row["attempts"], row["owner"]) == ("pending", 0, None)


# -- doubts


async def test_a_doubt_is_examined_by_one_daemon_at_a_time(
    database: Database, outbox: Outbox[Handover]
) -> None:
    await add_handover(database)
    await outbox.doubt(await outbox.claim(1), 0.0, "lost")
    one, other = outbox_of(database), outbox_of(database)
    (item,) = await one.claim_doubtful(1)
    assert await other.claim_doubtful(1) == []
    assert await states(database, handovers) == ["in_doubt"]
    await one.done([item])
    assert await states(database, handovers) == ["done"]


async def test_a_lease_that_runs_out_leaves_the_item_in_doubt(
    database: Database, outbox: Outbox[Handover], maintenance: OutboxMaintenance
) -> None:
    job_id = await add_handover(database)
    await outbox.claim(1)
    assert await maintenance.doubt_expired(60.0, 10) == 0
    await end_leases(database, handovers)
    assert await maintenance.doubt_expired(60.0, 10) == 1
    row = await outbox_row(database, handovers, job_id)
    assert (row["state"], row["doubts"], row["owner"]) == ("in_doubt", 1, None)
    assert await outbox.claim_doubtful(1) == []  # its wait for proof is not over


async def test_after_an_outage_owners_may_write_before_their_leases_expire(
    database: Database, outbox: Outbox[Handover], monkeypatch: Any
) -> None:
    clock = Clock()
    monkeypatch.setattr("common.outbox.maintenance.time", SimpleNamespace(monotonic=clock))
    maintenance = OutboxMaintenance(database, handovers, courtesy=3.0)
    await add_handover(database)
    claimed = await outbox.claim(1)
    await end_leases(database, handovers)

    def fail() -> Any:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(database, "statement", fail)
        with pytest.raises(DatabaseUnavailable):
            await maintenance.doubt_expired(60.0, 10)
    await add_handover(database, state="sending", leased_until=utc_now(-1.0))
    for _ in range(2):
        assert await maintenance.doubt_expired(60.0, 10) == 0
        clock.now += 2.9
    await outbox.done(claimed)
    assert await maintenance.doubt_expired(60.0, 10) == 1
    assert await states(database, handovers) == ["done", "in_doubt"]


# -- maintenance


async def test_only_settled_items_that_are_old_are_pruned(
    database: Database, outbox: Outbox[Handover], maintenance: OutboxMaintenance
) -> None:
    old, new, pending = [await add_handover(database) for _ in range(3)]
    await outbox.done(await outbox.claim(2))
    await change(database, handovers, old, settled_at=utc_now(-100.0))
    assert await maintenance.prune(50.0, 10) == 1
    assert [row["job_id"] for row in await rows(database, handovers)] == [new, pending]


async def test_the_backlog_is_counted_by_state(
    database: Database, outbox: Outbox[Handover], maintenance: OutboxMaintenance
) -> None:
    for _ in range(5):
        await add_handover(database)
    await add_handover(database, due_at=utc_now(60.0))
    held, doubtful, _ = await outbox.claim(3)
    await change(database, handovers, held.job_id, created_at=utc_now(-100.0))
    await outbox.hold([held], "HTTP 401")
    await outbox.doubt([doubtful], 60.0, "lost")
    backlog = await maintenance.backlog()
    assert backlog.counts == {"due": 2, "waiting": 1, "sending": 1, "in_doubt": 1, "held": 1}
    assert 0.0 <= backlog.oldest_due_age < 60.0
    assert 100.0 <= backlog.oldest_age < 160.0
    async with database.transaction() as tx:
        await tx.execute(handovers.update().values(state="done"))
    backlog = await maintenance.backlog()
    assert (backlog.oldest_due_age, backlog.oldest_age) == (0.0, 0.0)
