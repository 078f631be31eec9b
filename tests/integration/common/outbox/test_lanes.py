"""Of one user and priority, nothing is claimed before what is ahead of it and still to be sent."""

import asyncio
import random
from typing import Any

import pytest

from common.database.engine import Database, utc_now
from common.outbox.laned import LanedOutbox
from dispatcher.handover import Handover
from tests.support.dispatcher import outbox_of
from tests.support.records import add_handover

LEASE, PATIENCE = 60.0, 5.0  # of `outbox_of`
A_WHILE = 600.0  # longer than any test


@pytest.fixture
def outbox(database: Database) -> LanedOutbox[Handover]:
    return outbox_of(database)


async def add(database: Database, turn: float, user: str = "ada", **values: Any) -> int:
    return await add_handover(database, user_id=user, turn=turn, **values)


def jobs_of(items: list[Handover]) -> list[int]:
    return [item.job_id for item in items]


@pytest.mark.parametrize(
    "ahead",
    [
        {"due_at": utc_now(A_WHILE)},
        {"state": "held"},
        {"state": "sending", "leased_until": utc_now(LEASE - PATIENCE + A_WHILE)},
    ],
    ids=["waits for its retry", "held", "being sent"],
)
async def test_an_item_waits_for_what_is_ahead_of_it_in_its_lane(
    database: Database, outbox: LanedOutbox[Handover], ahead: dict[str, Any]
) -> None:
    await add(database, 1.0, **ahead)
    await add(database, 2.0)
    others = [await add(database, 3.0, priority=5), await add(database, 4.0, "bob")]
    assert jobs_of(await outbox.claim_one()) == others[:1]
    assert jobs_of(await outbox.claim(9)) == others[1:]


@pytest.mark.parametrize(
    "ahead",
    [
        {"state": "in_doubt"},
        {"state": "failed", "settled_at": utc_now()},
        {"set_aside": True, "due_at": utc_now(A_WHILE)},
        {"state": "sending", "leased_until": utc_now(LEASE - PATIENCE - 1.0)},
    ],
    ids=["in doubt", "refused", "set aside", "being sent for long"],
)
async def test_an_item_passes_what_need_not_arrive_before_it(
    database: Database, outbox: LanedOutbox[Handover], ahead: dict[str, Any]
) -> None:
    await add(database, 1.0, **ahead)
    behind = await add(database, 2.0)
    assert jobs_of(await outbox.claim(9)) == [behind]


async def test_what_is_due_together_is_claimed_together_up_to_the_first_that_is_not(
    database: Database, outbox: LanedOutbox[Handover]
) -> None:
    jobs = [await add(database, 1.0) for _ in range(2)]  # the same turn: ids decide
    jobs += [await add(database, 2.0), await add(database, 3.0, due_at=utc_now(A_WHILE))]
    await add(database, 4.0)
    assert jobs_of(await outbox.claim(2)) == jobs[:2]
    assert await outbox.claim(9) == []


async def test_held_items_are_tried_by_the_first_of_their_lane(
    database: Database, outbox: LanedOutbox[Handover]
) -> None:
    first = await add(database, 1.0, state="held")
    await add(database, 2.0, state="held", due_at=utc_now(-60.0))
    assert jobs_of(await outbox.claim_held(9)) == [first]


@pytest.mark.parametrize("kind", ["due", "held", "waits"])
async def test_the_next_one_behind_an_item_can_be_claimed_all_the_same(
    database: Database, outbox: LanedOutbox[Handover], kind: str
) -> None:
    await add(database, 1.0)
    values = {"held": {"state": "held"}, "waits": {"due_at": utc_now(A_WHILE)}}
    await add(database, 2.0, state="in_doubt")
    behind = await add(database, 3.0, **values.get(kind, {}))
    await add(database, 4.0)
    await add(database, 3.0, "bob")
    (item,) = await outbox.claim_one()
    found = [
        jobs_of(await outbox.claim_behind(item)),
        jobs_of(await outbox.claim_held_behind(item)),
    ]
    assert found == [[behind] * (kind == "due"), [behind] * (kind == "held")]


async def test_a_lane_at_a_standstill_hides_no_other(
    database: Database, outbox: LanedOutbox[Handover]
) -> None:
    await add(database, 0.0, due_at=utc_now(A_WHILE))
    for turn in range(150):
        await add(database, float(turn + 1))
    other = await add(database, 1_000.0, "bob")
    assert jobs_of(await outbox.claim(9)) == [other]


async def test_claims_that_race_never_share_a_lane(database: Database) -> None:
    lanes = ["ada", "bob", "eve"]
    for turn in range(40):
        for user in lanes:
            await add(database, float(turn), user)
    out: dict[str | None, int] = {}
    sent: dict[str | None, list[int]] = {user: [] for user in lanes}

    async def drain(claimer: int) -> None:
        outbox, chance = outbox_of(database), random.Random(claimer)
        while sum(map(len, sent.values())) < 120:
            items = await outbox.claim(chance.randint(1, 9))
            for item in items:
                assert out.setdefault(item.user_id, claimer) == claimer
                sent[item.user_id].append(item.job_id)
            await asyncio.sleep(chance.random() / 200)
            back = items[len(items) // 2 :] if chance.random() < 0.3 else []
            for item in back:
                sent[item.user_id].remove(item.job_id)
            for item in items:
                out.pop(item.user_id, None)
            await outbox.release(back)
            await outbox.done([item for item in items if item not in back])

    await asyncio.gather(*map(drain, range(6)))
    assert all(jobs == sorted(jobs) for jobs in sent.values())
