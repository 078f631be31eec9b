"""Hand-overs in doubt: what proves them, and what may race their second sending."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from common.database.engine import Database, utc_now
from common.database.tables import handover_numbers, handovers, jobs
from common.jobs.deletion import mark_deleted
from common.outbox.peer_client import open_session
from deploy.sandbox.ports import free_port
from dispatcher.resend import Resender
from dispatcher.worker_api import WorkerApi
from tests.support.dispatcher import KEY, FakePeer, doubts_of, hear
from tests.support.records import add_handover, change, job_row, outbox_row, rows

DOUBTFUL = 12

FAILING = {
    "sqlite": """
        CREATE TRIGGER fail BEFORE INSERT ON handover_numbers WHEN NEW.job_id = {job_id}
            BEGIN SELECT RAISE(ABORT, 'a fault of ours'); END
    """,
    "postgresql": """
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN RAISE EXCEPTION ''a fault of ours''; END';
        CREATE TRIGGER fail BEFORE INSERT ON handover_numbers FOR EACH ROW
            WHEN (NEW.job_id = {job_id}) EXECUTE FUNCTION fail()
    """,
}
"""No other delivery number for one job; a statement ends where a line does."""


@pytest.fixture
async def resender(database: Database, peer: FakePeer) -> AsyncIterator[Resender]:
    """In front of a peer that can be asked for a job's status."""
    async with open_session("tests", connections=8) as session:
        yield resender_of(database, session, peer.url)


@pytest.fixture
async def unasking(database: Database) -> AsyncIterator[Resender]:
    """In front of a peer that cannot be asked."""
    async with open_session("tests", connections=8) as session:
        yield resender_of(database, session, "http://127.0.0.1:1", path="")


def resender_of(
    database: Database, session: Any, url: str, *, path: str = "/_jobs/{job_id}/status"
) -> Resender:
    worker_api = WorkerApi(session, url, KEY, timeout=5.0, status_path=path)
    return Resender(database=database, doubts=doubts_of(database), worker_api=worker_api, wait=60.0)


async def doubtful(database: Database) -> int:
    """A hand-over whose wait for proof is over; the job's id."""
    return await add_handover(database, state="in_doubt", doubts=1, due_at=utc_now(-1.0))


async def state_of(database: Database, job_id: int) -> str:
    return str((await outbox_row(database, handovers, job_id))["state"])


async def test_what_the_peer_has_is_done_and_what_it_denies_is_sent_again(
    database: Database, resender: Resender, peer: FakePeer
) -> None:
    here = [await doubtful(database) for _ in range(DOUBTFUL)]
    denied = [await doubtful(database) for _ in range(DOUBTFUL)]
    peer.statuses = dict.fromkeys(here, "queued")
    assert await resender.sweep() == DOUBTFUL
    assert {await state_of(database, job_id) for job_id in here} == {"done"}
    assert {await state_of(database, job_id) for job_id in denied} == {"pending"}
    assert [row["job_id"] for row in await rows(database, handover_numbers)] == denied


async def test_a_peer_that_does_not_answer_keeps_doubts_and_is_not_asked_about_each(
    database: Database,
) -> None:
    job_ids = [await doubtful(database) for _ in range(DOUBTFUL)]
    async with open_session("tests", connections=8) as session:
        away = resender_of(database, session, f"http://127.0.0.1:{free_port()}")
        assert await away.sweep() == 0
    assert {await state_of(database, job_id) for job_id in job_ids} == {"in_doubt"}
    left = await doubts_of(database).claim(200)
    assert DOUBTFUL / 2 <= len(left) < DOUBTFUL


async def test_more_doubts_than_one_sweep_may_settle_are_left_to_the_next(
    database: Database, unasking: Resender
) -> None:
    job_ids = [await doubtful(database) for _ in range(DOUBTFUL)]
    bounded = replace(unasking, limit=5)
    assert [await bounded.sweep() for _ in range(4)] == [5, 5, 2, 0]
    new = [row["number"] for row in await rows(database, handover_numbers)]
    assert len(set(new)) == DOUBTFUL
    assert min(new) > max(job_ids)


async def test_a_worker_heard_while_its_job_gets_a_new_number_keeps_it(
    database: Database, unasking: Resender
) -> None:
    job_ids = [await doubtful(database) for _ in range(DOUBTFUL)]
    items = await unasking.doubts.claim(200)
    await asyncio.gather(
        *(unasking.renumber(item) for item in items),
        *(hear(database, job_id) for job_id in job_ids),
    )
    new = {row["number"] for row in await rows(database, handover_numbers)}
    for job_id in job_ids:
        assert await state_of(database, job_id) == "done"
        assert (await job_row(database, job_id))["worker_number"] == job_id
    assert [await hear(database, number) for number in new] == [None] * len(new)


async def test_a_job_deleted_while_it_gets_a_new_number_is_not_sent(
    database: Database, unasking: Resender
) -> None:
    job_ids = [await doubtful(database) for _ in range(DOUBTFUL)]
    items = await unasking.doubts.claim(200)

    async def delete(job_id: int) -> None:
        async with database.transaction() as tx:
            await mark_deleted(tx, "ada", job_id)

    await asyncio.gather(*(unasking.renumber(item) for item in items), *map(delete, job_ids))
    assert await rows(database, handovers) == []
    numbers = {row["number"] for row in await rows(database, handover_numbers)}
    assert [await hear(database, number) for number in (*job_ids, *numbers)] == [None] * (
        len(job_ids) + len(numbers)
    )
    assert all(row["deleted_at"] for row in await rows(database, jobs))


async def test_a_doubt_that_cannot_be_settled_keeps_no_other_waiting(
    database: Database, unasking: Resender
) -> None:
    job_ids = [await doubtful(database) for _ in range(3)]
    async with database.transaction() as tx:
        for statement in FAILING[tx.dialect.name].format(job_id=job_ids[0]).split(";\n"):
            await tx.exec_driver_sql(statement)
    assert await unasking.sweep() == 2
    assert [await state_of(database, job_id) for job_id in job_ids] == [
        "in_doubt",
        "pending",
        "pending",
    ]


async def test_of_two_dispatchers_one_gives_the_new_number(
    database: Database, unasking: Resender
) -> None:
    job_id = await doubtful(database)
    (slow,) = await unasking.doubts.claim(1)
    await change(database, handovers, job_id, due_at=utc_now(-1.0))  # its claim has run out
    (quick,) = await unasking.doubts.claim(1)
    resent = await asyncio.gather(unasking.renumber(slow), unasking.renumber(quick))
    assert resent == [False, True]
    (number,) = await rows(database, handover_numbers)
    row = await outbox_row(database, handovers, job_id)
    assert (row["state"], row["number"]) == ("pending", number["number"])
