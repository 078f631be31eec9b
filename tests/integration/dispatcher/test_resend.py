"""Hand-overs in doubt: what proves them, and what may race their second sending."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import ClientSession
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.database.tables import handover_numbers, handovers, jobs
from common.jobs.deletion import mark_deleted
from common.outbox.outbox import Outbox
from common.outbox.peer_client import open_session
from deploy.sandbox.ports import free_port
from dispatcher import resend
from dispatcher.resend import DoubtfulHandover, Resender
from dispatcher.worker_api import WorkerApi
from tests.support.dispatcher import KEY, FakePeer, hear, outbox_of
from tests.support.records import add_handover, change, outbox_row, rows, states

DOUBTFUL = 12


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with open_session("tests", connections=8) as session:
        yield session


@pytest.fixture
def resender(database: Database, session: ClientSession, peer: FakePeer) -> Resender:
    """In front of a peer that can be asked for a job's status."""
    return resender_of(database, session, peer.url)


@pytest.fixture
def unasking(database: Database, session: ClientSession) -> Resender:
    """In front of a peer that cannot be asked."""
    return resender_of(database, session, "http://127.0.0.1:1", path="")


def resender_of(
    database: Database, session: ClientSession, url: str, *, path: str = "/_jobs/{job_id}/status"
) -> Resender:
    worker_api = WorkerApi(session, url, KEY, timeout=5.0, status_path=path)
    outbox = Outbox(database, handovers, DoubtfulHandover, lease=60.0)
    return Resender(database=database, outbox=outbox, worker_api=worker_api, wait=60.0)


async def doubtful(database: Database) -> int:
    """A hand-over whose wait for proof is over; the job's id."""
    return await add_handover(database, state="in_doubt", doubts=1, due_at=utc_now(-1.0))


async def test_what_the_peer_has_is_done_and_what_it_denies_is_sent_again(
    database: Database, resender: Resender, peer: FakePeer
) -> None:
    here = [await doubtful(database) for _ in range(DOUBTFUL)]
    denied = [await doubtful(database) for _ in range(DOUBTFUL)]
    peer.statuses = dict.fromkeys(here, "queued")
    assert await resender.sweep() == DOUBTFUL
    assert await states(database, handovers) == ["done"] * DOUBTFUL + ["pending"] * DOUBTFUL
    assert sorted(row["job_id"] for row in await rows(database, handover_numbers)) == denied


async def test_a_peer_that_does_not_answer_keeps_doubts_and_is_not_asked_about_each(
    database: Database, session: ClientSession
) -> None:
    for _ in range(DOUBTFUL):
        await doubtful(database)
    away = resender_of(database, session, f"http://127.0.0.1:{free_port()}")
    assert await away.sweep() == 0
    assert set(await states(database, handovers)) == {"in_doubt"}
    left = await outbox_of(database).claim_doubtful(200)
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
    items = await unasking.outbox.claim_doubtful(200)
    await asyncio.gather(
        *(unasking.renumber(item) for item in items),
        *(hear(database, job_id) for job_id in job_ids),
    )
    new = {row["number"] for row in await rows(database, handover_numbers)}
    assert await states(database, handovers) == ["done"] * DOUBTFUL
    assert [row["worker_number"] for row in await rows(database, jobs)] == job_ids
    assert [await hear(database, number) for number in new] == [None] * len(new)


async def test_a_job_deleted_while_it_gets_a_new_number_is_not_sent(
    database: Database, unasking: Resender
) -> None:
    job_ids = [await doubtful(database) for _ in range(DOUBTFUL)]
    items = await unasking.outbox.claim_doubtful(200)

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
    database: Database, unasking: Resender, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await doubtful(database)
    next_number, faults = resend._next_number, [RuntimeError()]

    async def fail_once(tx: AsyncConnection) -> int:
        if faults:
            raise faults.pop()
        return await next_number(tx)

    monkeypatch.setattr(resend, "_next_number", fail_once)
    assert await unasking.sweep() == 2
    assert await states(database, handovers) == ["in_doubt", "pending", "pending"]


async def test_of_two_dispatchers_one_gives_the_new_number(
    database: Database, unasking: Resender
) -> None:
    job_id = await doubtful(database)
    (slow,) = await unasking.outbox.claim_doubtful(1)
    await change(database, handovers, job_id, due_at=utc_now(-1.0))  # its claim has run out
    (quick,) = await unasking.outbox.claim_doubtful(1)
    resent = await asyncio.gather(unasking.renumber(slow), unasking.renumber(quick))
    assert resent == [False, True]
    (number,) = await rows(database, handover_numbers)
    row = await outbox_row(database, handovers, job_id)
    assert (row["state"], row["number"]) == ("pending", number["number"])
