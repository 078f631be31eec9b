"""The order in which the jobs of several users go out."""

import asyncio

import pytest

from common.database.engine import Database, utc_now
from common.database.tables import handovers
from common.outbox.outbox import Outbox
from dispatcher.handover import Handover
from gateway.jobs.insertion import JobInsertion
from gateway.jobs.turns import HEAD_START, STEP
from tests.support.dispatcher import outbox_of
from tests.support.records import add_handover, change, rows, submission


class Users:
    """Submit jobs, and note whose they are."""

    def __init__(self, database: Database) -> None:
        self._insertion = JobInsertion(database)
        self._names: dict[int, str] = {}

    async def submit(self, user: str, count: int = 1, priority: int = 0) -> list[str]:
        """Names such as ada-5-0 by user, priority and number."""
        names = [f"{user}-{priority}-{number}" for number in range(count)]
        jobs = await asyncio.gather(
            *(self._insertion.one(submission(user, priority)) for _ in names)
        )
        self._names |= {job["id"]: name for job, name in zip(jobs, names, strict=True)}
        return names

    async def claim(self, outbox: Outbox[Handover], limit: int) -> list[str]:
        """The next jobs, each after those before it have arrived."""
        found: list[str] = []
        while len(found) < limit and (items := await outbox.claim(limit - len(found))):
            found += [self._names[item.job_id] for item in items]
            await outbox.done(items)
        return found


@pytest.fixture
def users(database: Database) -> Users:
    return Users(database)


@pytest.fixture
def outbox(database: Database) -> Outbox[Handover]:
    return outbox_of(database)


async def test_many_jobs_of_one_user_leave_room_for_those_of_others(
    users: Users, outbox: Outbox[Handover]
) -> None:
    for user in ("ada", "eve"):
        await users.submit(user, 120, priority=5)
    await users.submit("bob", priority=5)
    order = await users.claim(outbox, 241)
    assert order.index("bob-5-0") <= 20 / STEP  # the submissions took less than 10 s
    for number in range(120):
        places = [order.index(f"{user}-5-{number}") for user in ("ada", "eve")]
        assert abs(places[0] - places[1]) <= 20 / STEP


async def test_jobs_of_a_user_and_priority_go_out_in_order_of_submission(
    users: Users, outbox: Outbox[Handover]
) -> None:
    submitted = await users.submit("ada", 70)
    assert await users.claim(outbox, 70) == submitted


async def test_urgent_jobs_go_first_but_keep_nobody_back_for_long(
    users: Users, outbox: Outbox[Handover]
) -> None:
    await users.submit("bob")
    ahead = int(5 * HEAD_START / STEP)
    await users.submit("ada", ahead + 60, priority=5)
    order = await users.claim(outbox, ahead + 61)
    assert order[0] == "ada-5-0"
    assert ahead - 30 <= order.index("bob-0-0") <= ahead + 1


async def test_what_is_settled_counts_no_longer(
    database: Database, users: Users, outbox: Outbox[Handover]
) -> None:
    await users.submit("ada", 50)
    assert [row["turn"] for row in await rows(database, handovers)][-1] > 0
    await outbox.done(await outbox.claim(50))
    await users.submit("ada")
    await users.submit("bob")
    assert await users.claim(outbox, 2) == ["ada-0-0", "bob-0-0"]


async def test_a_job_that_is_tried_again_keeps_its_turn(
    database: Database, users: Users, outbox: Outbox[Handover]
) -> None:
    first, *_ = await users.submit("ada", 3)
    items = await outbox.claim(1)
    await outbox.retry(items, 60.0, "HTTP 503")
    later = await users.submit("ada", 2, priority=1)
    await change(database, handovers, items[0].job_id, due_at=utc_now())
    assert (await users.claim(outbox, 4))[:3] == [*later, first]


async def test_rows_of_the_version_before_go_first_by_priority_and_age(
    database: Database, users: Users, outbox: Outbox[Handover]
) -> None:
    await users.submit("ada", priority=5)
    old = [await add_handover(database, priority=priority) for priority in (0, 1, 1)]
    found = [item.job_id for item in await outbox.claim(3)]
    assert found == [old[1], old[2], old[0]]
