import asyncio
from typing import Any

import pytest

from common.database.engine import Database, utc_now
from common.database.errors import DatabaseUnavailable
from common.database.tables import emails, handovers
from common.outbox.maintenance import Upkeep
from common.outbox.outbox import Claimed, Outbox
from devtools.waiting import eventually
from tests.support.records import add_handover, add_mail, change, outbox_row, rows


def outbox_of(database: Database, owner: str = "me", *, lease: float = 60.0) -> Outbox:
    return Outbox(database, handovers, owner=owner, lease=lease)


def upkeep_of(database: Database) -> Upkeep:
    return Upkeep(database, handovers)


async def state_of(database: Database, job_id: int) -> str:
    return str((await outbox_row(database, handovers, job_id))["state"])


async def expire_lease(database: Database, job_id: int) -> None:
    await change(database, handovers, job_id, leased_until=utc_now(-1.0))


async def test_items_are_claimed_by_priority_then_age(database: Database) -> None:
    low = [await add_handover(database) for _ in range(2)]
    high = [await add_handover(database, priority=5) for _ in range(2)]
    claimed = await outbox_of(database).claim(3)
    assert [item.job_id for item in claimed] == [*high, low[0]]


async def test_what_is_not_due_is_not_claimed(database: Database) -> None:
    await add_handover(database, due_at=utc_now(3600.0))
    assert await outbox_of(database).claim(10) == []


async def test_a_claim_counts_as_an_attempt_and_says_who_has_it(database: Database) -> None:
    job_id = await add_handover(database)
    (item,) = await outbox_of(database, "me").claim(1)
    row = await outbox_row(database, handovers, job_id)
    assert (item.attempt, row["attempts"], row["owner"], row["state"]) == (1, 1, "me", "sending")


async def test_a_look_for_proof_reads_no_payloads_which_may_be_megabytes(
    database: Database,
) -> None:
    await add_handover(database)
    await add_handover(database, state="in_doubt", doubts=1)
    (to_send,) = await outbox_of(database).claim(1)
    (to_look_for,) = await outbox_of(database).claim_doubtful(1)
    assert to_send.row.keys() - to_look_for.row.keys() == {"payload"}


async def test_racing_claimers_never_share_an_item(database: Database) -> None:
    expected = [await add_handover(database) for _ in range(60)]
    taken: list[int] = []

    async def drain(owner: str) -> int:
        outbox, count = outbox_of(database, owner), 0
        while items := await outbox.claim(3):
            taken.extend(item.job_id for item in items)
            count += len(items)
        return count

    shares = await asyncio.gather(*(drain(f"owner-{number}") for number in range(8)))
    assert sorted(taken) == expected
    assert sum(shares) == 60


async def test_delivered_items_are_done_and_no_longer_claimed(database: Database) -> None:
    job_ids = [await add_handover(database) for _ in range(3)]
    outbox = outbox_of(database)
    await outbox.done(await outbox.claim(3))
    assert [await state_of(database, job_id) for job_id in job_ids] == ["done"] * 3
    assert await outbox.claim(3) == []


async def test_an_owner_whose_lease_ran_out_changes_nothing(database: Database) -> None:
    job_id = await add_handover(database)
    slow, quick = outbox_of(database, "slow"), outbox_of(database, "quick")
    (stale,) = await slow.claim(1)
    await expire_lease(database, job_id)
    assert await upkeep_of(database).doubt_expired(0.0, 10) == 1
    (doubtful,) = await quick.claim_doubtful(1)
    await quick.lost(doubtful)
    (fresh,) = await quick.claim(1)
    await slow.done([stale])
    assert await state_of(database, job_id) == "sending"
    await quick.done([fresh])
    await slow.retry([stale], 0.0, "late")
    assert await state_of(database, job_id) == "done"


async def test_an_earlier_attempt_of_the_same_owner_changes_nothing(database: Database) -> None:
    job_id = await add_handover(database)
    outbox = outbox_of(database)
    (first,) = await outbox.claim(1)
    await outbox.retry([first], 0.0, "not taken")
    (second,) = await outbox.claim(1)
    await outbox.done([first])
    assert await state_of(database, job_id) == "sending"
    assert second.attempt == first.attempt + 1


async def test_what_a_lost_claim_took_was_never_sent_and_is_due_again(
    database: Database, monkeypatch: Any
) -> None:
    first, second = [await add_handover(database) for _ in range(2)]
    outbox = outbox_of(database)
    (sent,) = await outbox.claim(1)
    others = await outbox_of(database, "somebody else").claim(1)
    third = await add_handover(database)
    await _lose_the_answer_of_a_claim(outbox, monkeypatch)
    assert await state_of(database, third) == "sending"
    (again,) = await outbox.claim(10)
    assert (again.job_id, again.attempt) == (third, 1)
    assert [await state_of(database, job_id) for job_id in (first, second)] == ["sending"] * 2
    assert ([sent.job_id], [item.job_id for item in others]) == ([first], [second])


async def _lose_the_answer_of_a_claim(outbox: Outbox, monkeypatch: Any) -> None:
    claim = outbox._claim

    async def claim_and_lose(*arguments: Any) -> list[Claimed]:
        await claim(*arguments)
        raise DatabaseUnavailable("connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "_claim", claim_and_lose)
        with pytest.raises(DatabaseUnavailable):
            await outbox.claim(10)


async def test_what_was_sent_and_could_not_be_settled_is_no_lost_claim(
    database: Database, monkeypatch: Any
) -> None:
    job_id = await add_handover(database)
    outbox = outbox_of(database)
    await outbox.claim(1)  # and sent, and the database went away
    await _lose_the_answer_of_a_claim(outbox, monkeypatch)
    assert await outbox.claim(10) == []
    assert await state_of(database, job_id) == "sending"


async def test_a_lease_that_runs_out_leaves_the_item_in_doubt(database: Database) -> None:
    job_id = await add_handover(database)
    outbox = outbox_of(database)
    await outbox.claim(1)
    assert await upkeep_of(database).doubt_expired(60.0, 10) == 0
    await expire_lease(database, job_id)
    assert await upkeep_of(database).doubt_expired(60.0, 10) == 1
    row = await outbox_row(database, handovers, job_id)
    assert (row["state"], row["doubts"], row["owner"]) == ("in_doubt", 1, None)
    assert await outbox.claim_doubtful(1) == []  # proof is waited for


async def test_after_an_outage_owners_write_before_their_leases_are_called_expired(
    database: Database, monkeypatch: Any
) -> None:
    job_id = await add_handover(database)
    outbox, upkeep = outbox_of(database), Upkeep(database, handovers, courtesy=0.3)
    (item,) = await outbox.claim(1)
    await expire_lease(database, job_id)

    def fail() -> Any:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(database, "statement", fail)
        with pytest.raises(DatabaseUnavailable):
            await upkeep.doubt_expired(60.0, 10)
    other = await add_handover(database, state="sending", leased_until=utc_now(-1.0))
    assert await upkeep.doubt_expired(60.0, 10) == 0
    await outbox.done([item])
    assert await eventually(lambda: upkeep.doubt_expired(60.0, 10)) == 1
    assert [await state_of(database, one) for one in (job_id, other)] == ["done", "in_doubt"]


async def test_a_doubt_is_looked_into_by_one_at_a_time(database: Database) -> None:
    job_id = await add_handover(database)
    one, other = outbox_of(database, "one"), outbox_of(database, "other")
    (item,) = await one.claim(1)
    await one.doubt([item], 0.0, "lost")
    (looked,) = await one.claim_doubtful(1)
    assert await other.claim_doubtful(1) == []
    assert await state_of(database, job_id) == "in_doubt"
    await one.found(looked)
    assert await state_of(database, job_id) == "done"


async def test_a_retry_comes_due_when_its_delay_has_passed(database: Database) -> None:
    await add_handover(database)
    outbox = outbox_of(database)
    (item,) = await outbox.claim(1)
    await outbox.retry([item], 0.3, "not taken")
    assert await outbox.claim(1) == []
    assert await eventually(lambda: outbox.claim(1))


async def test_held_items_are_tried_in_turn_and_released_together(database: Database) -> None:
    job_ids = [await add_handover(database) for _ in range(3)]
    outbox = outbox_of(database)
    for item in await outbox.claim(3):
        await outbox.hold([item], "HTTP 401")
    assert await outbox.claim(3) == []
    tried = []
    for _ in range(3):
        (item,) = await outbox.claim_held(1)
        tried.append(item.job_id)
        await outbox.hold([item], "HTTP 401")
    assert sorted(tried) == job_ids
    assert await outbox.release_held() == 3
    assert len(await outbox.claim(3)) == 3


async def test_an_item_given_back_was_not_tried(database: Database) -> None:
    job_id = await add_handover(database)
    outbox = outbox_of(database)
    (item,) = await outbox.claim(1)
    await outbox.release([item])
    row = await outbox_row(database, handovers, job_id)
    assert (row["state"], row["attempts"], row["owner"]) == ("pending", 0, None)


async def test_only_settled_items_that_are_old_are_pruned(database: Database) -> None:
    old, new, pending = [await add_handover(database) for _ in range(3)]
    outbox = outbox_of(database)
    await outbox.done((await outbox.claim(2))[:2])
    await change(database, handovers, old, settled_at=utc_now(-100.0))
    assert await upkeep_of(database).prune(50.0, 10) == 1
    assert [row["job_id"] for row in await rows(database, handovers)] == [new, pending]


async def test_the_backlog_is_counted_by_state(database: Database) -> None:
    for _ in range(5):
        await add_handover(database)
    await add_handover(database, due_at=utc_now(60.0))
    outbox = outbox_of(database)
    held, doubtful, _ = await outbox.claim(3)
    await change(database, handovers, held.job_id, created_at=utc_now(-100.0))
    await outbox.hold([held], "HTTP 401")
    await outbox.doubt([doubtful], 60.0, "lost")
    backlog = await upkeep_of(database).backlog()
    assert (backlog.due, backlog.waiting, backlog.sending) == (2, 1, 1)
    assert (backlog.in_doubt, backlog.held) == (1, 1)
    assert 0.0 <= backlog.oldest_due_age < 60.0
    assert 100.0 <= backlog.oldest_age < 160.0


async def test_an_empty_backlog_has_no_age(database: Database) -> None:
    await add_handover(database, created_at=utc_now(-100.0))
    outbox = outbox_of(database)
    await outbox.done(await outbox.claim(1))
    backlog = await upkeep_of(database).backlog()
    assert (backlog.oldest_due_age, backlog.oldest_age) == (0.0, 0.0)


@pytest.mark.parametrize("seconds", [0.25, 7.5, -7.5, 86_400.0])
async def test_the_databases_clock_counts_fractions_of_a_second(
    database: Database, seconds: float
) -> None:
    await add_mail(database, due_at=utc_now(seconds), created_at=utc_now())
    row: Any = (await rows(database, emails))[0]
    assert (row["due_at"] - row["created_at"]).total_seconds() == pytest.approx(seconds, abs=0.2)
