"""Dispatchers as real processes that are killed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from common.database.engine import Database
from common.database.tables import handovers
from deploy.sandbox.ports import free_port
from devtools.services import Process
from devtools.waiting import eventually
from tests.support.dispatcher import FakePeer, environment, hear
from tests.support.records import add_handover, outbox_row, rows

StartDispatcher = Callable[..., Process]


@pytest.fixture
async def start(
    database_url: str, peer: FakePeer, tmp_path: Path
) -> AsyncIterator[StartDispatcher]:
    processes: list[Process] = []

    def start_dispatcher(**changes: Any) -> Process:
        settings = environment(database_url, peer.url, tmp_path, **changes)
        processes.append(Process("dispatcher", settings, tmp_path))
        return processes[-1]

    yield start_dispatcher
    for process in processes:
        process.kill()


async def state_of(database: Database, job_id: int) -> str:
    return str((await outbox_row(database, handovers, job_id))["state"])


async def is_done(database: Database, job_id: int) -> bool:
    return await state_of(database, job_id) == "done"


def hang_first(peer: FakePeer, *, taken: bool) -> asyncio.Event:
    """The first submission gets no answer, whether it is taken or not; the event tells of it."""
    reached = asyncio.Event()

    async def behave(_: web.Request, body: Any) -> web.StreamResponse | None:
        if reached.is_set():
            return None
        if taken:
            peer.taken.append(body["job"]["meta"]["job_id"])
        reached.set()
        await asyncio.sleep(60)
        return web.Response()

    peer.behave = behave
    return reached


async def test_a_dispatcher_killed_before_the_peer_took_the_job_loses_nothing(
    database: Database, peer: FakePeer, start: StartDispatcher
) -> None:
    job_id = await add_handover(database)
    reached = hang_first(peer, taken=False)
    first = start()
    await asyncio.wait_for(reached.wait(), 20)
    first.kill()
    start()
    await eventually(lambda: is_done(database, job_id), within=30)
    assert len(peer.taken) == 1


async def test_a_dispatcher_killed_after_the_peer_took_the_job_makes_it_run_once(
    database: Database, peer: FakePeer, start: StartDispatcher
) -> None:
    job_id = await add_handover(database)
    reached = hang_first(peer, taken=True)
    first = start()
    await asyncio.wait_for(reached.wait(), 20)
    first.kill()
    start()
    await eventually(lambda: is_done(database, job_id), within=30)
    one, other = peer.taken
    assert one == job_id != other
    assert await hear(database, other) is not None
    assert await hear(database, one) is None


async def test_a_worker_heard_in_time_spares_the_resend_after_a_kill(
    database: Database, peer: FakePeer, start: StartDispatcher
) -> None:
    job_id = await add_handover(database)
    reached = hang_first(peer, taken=True)
    first = start()
    await asyncio.wait_for(reached.wait(), 20)
    first.kill()
    assert await hear(database, job_id, "pulled") is not None
    second = start()
    await second.wait_until_ready()
    await asyncio.sleep(2.0)
    assert await is_done(database, job_id)
    assert peer.tried == [job_id]


async def test_several_dispatchers_share_a_backlog_and_send_nothing_twice(
    database: Database, peer: FakePeer, start: StartDispatcher
) -> None:
    expected = [await add_handover(database) for _ in range(300)]
    for _ in range(3):
        start()
    await eventually(lambda: len(peer.taken) >= 300, within=40)
    assert sorted(peer.taken) == expected


async def test_a_stopped_dispatcher_finishes_what_is_under_way_and_exits_cleanly(
    database: Database, peer: FakePeer, start: StartDispatcher
) -> None:
    job_id = await add_handover(database)
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_: web.Request, __: Any) -> web.StreamResponse | None:
        reached.set()
        await go_on.wait()
        return None

    peer.behave = wait
    process = start(HANDOVER_TIMEOUT=20)
    await asyncio.wait_for(reached.wait(), 20)
    ended = asyncio.create_task(process.terminate())
    await eventually(lambda: "process.draining" in process.output)
    later = await add_handover(database)
    go_on.set()
    assert await ended == 0
    assert await is_done(database, job_id)
    assert await state_of(database, later) == "pending"
    assert peer.taken == [job_id]


async def test_a_taken_port_ends_the_start_with_one_sentence(
    start: StartDispatcher, tmp_path: Path, peer: FakePeer, sqlite_url: str
) -> None:
    first = start()
    await first.wait_until_ready()
    settings = environment(sqlite_url, peer.url, tmp_path)
    second = Process("dispatcher", settings, tmp_path, admin_port=first.admin_port)
    assert await second.wait() == 1
    assert second.output.count("\n") == 1
    assert "cannot listen on 127.0.0.1" in second.output


async def test_a_database_that_stays_away_ends_the_start_with_one_sentence(
    peer: FakePeer, tmp_path: Path
) -> None:
    url = f"postgresql://postgres@127.0.0.1:{free_port()}/nothing"
    settings = environment(url, peer.url, tmp_path, DATABASE_STARTUP_TIMEOUT=1)
    process = Process("dispatcher", settings, tmp_path)
    assert await process.wait() == 1
    assert "dispatcher: the database did not answer" in process.output
    assert "Traceback" not in process.output


async def test_a_missing_key_ends_the_start_with_one_sentence(tmp_path: Path) -> None:
    process = Process("dispatcher", {}, tmp_path)
    assert await process.wait() == 1
    assert process.output == "dispatcher: settings: INTERNAL_API_KEY_SECRET is missing.\n"


async def test_an_address_without_a_host_ends_the_start_with_one_sentence(tmp_path: Path) -> None:
    settings = environment("sqlite:///./jobs.db", "http://:8001", tmp_path)
    process = Process("dispatcher", settings, tmp_path)
    assert await process.wait() == 1
    assert process.output == (
        "dispatcher: settings: WORKERFACING_API_URL must name a host, and a port if any,"
        " as in https://example.org:8443.\n"
    )


async def test_no_secret_appears_in_the_logs(
    database: Database, peer: FakePeer, start: StartDispatcher
) -> None:
    job_id = await add_handover(database)
    process = start()
    await eventually(lambda: is_done(database, job_id), within=30)
    assert await process.terminate() == 0
    assert "handover.delivered" in process.output
    assert "internal-key-for-tests" not in process.output
    assert len(await rows(database, handovers)) == 1
