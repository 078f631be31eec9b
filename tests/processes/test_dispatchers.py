"""Dispatchers beside each other: many, suspended, and with a wrong clock."""

import asyncio
import contextlib
import os
import re
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from sqlalchemy import text

from common.database.engine import Database
from common.database.tables import handover_numbers, handovers
from devtools.services import Process
from devtools.shifted_clock import shifted_clock
from devtools.waiting import eventually
from tests.conftest import settings_of
from tests.support.cloud import Cloud
from tests.support.dispatcher import FakePeer
from tests.support.gateway import INTERNAL_KEY
from tests.support.records import PAYLOAD, add_handover, outbox_row, rows

BACKLOG = int(os.environ.get("TEST_BACKLOG", "10000"))
DISPATCHERS = 8


async def add_backlog(database: Database, count: int) -> None:
    """So many due hand-overs, whose ids are 1, 2, 3, …"""
    async with database.transaction() as tx:
        await tx.execute(
            text(
                "INSERT INTO jobs (user_id, job_name, status, paths_out, priority, application,"
                " attributes) SELECT 'ada', 'job-' || n, 'queued', '{}', 0, '{}', '{}'"
                " FROM generate_series(1, :count) AS n"
            ),
            {"count": count},
        )
        await tx.execute(
            text(
                "INSERT INTO handovers (state, due_at, created_at, job_id, priority, number,"
                " payload) SELECT 'pending', timezone('utc', now()), timezone('utc', now()), id,"
                " 0, id, :payload FROM jobs"
            ),
            {"payload": orjson.dumps(PAYLOAD).decode()},
        )


async def test_many_dispatchers_share_a_backlog_and_send_nothing_twice(
    postgresql_cloud: Cloud,
) -> None:
    database = Database(settings_of(postgresql_cloud.database_url))
    await add_backlog(database, BACKLOG)
    peer = FakePeer()
    peer.key = INTERNAL_KEY
    async with peer.served():
        postgresql_cloud.peer_url = peer.url
        # answers are late rather than lost where many processes share few cores
        dispatchers = [postgresql_cloud.dispatcher(HANDOVER_TIMEOUT=30) for _ in range(DISPATCHERS)]
        await eventually(lambda: len(peer.taken) >= BACKLOG, within=120)
        taken = 'opencloud_handovers_total{verdict="taken"}'
        shares = await asyncio.gather(*(one.metric(taken) for one in dispatchers))
    assert sorted(peer.tried) == list(range(1, BACKLOG + 1))
    assert sum(shares) == BACKLOG
    assert min(shares) > 0
    assert await rows(database, handover_numbers) == []
    await database.close()


async def test_a_suspended_owner_that_wakes_up_after_its_lease_changes_nothing(
    cloud: Cloud, database: Database, peer: FakePeer
) -> None:
    job_id = await add_handover(database)
    reached, answer = asyncio.Event(), asyncio.Event()

    async def answer_late(_: web.Request, body: Any) -> web.StreamResponse | None:
        if not reached.is_set():
            reached.set()
            await answer.wait()
        return None

    peer.behave = answer_late
    first = cloud.dispatcher()
    await asyncio.wait_for(reached.wait(), 60)
    await suspend_between_writes(first, database)
    second = cloud.dispatcher()
    await eventually(lambda: _is_done(database, job_id), within=60)
    settled = await outbox_row(database, handovers, job_id)
    second.kill()
    answer.set()  # the first one's call succeeds after all
    first.resume()
    later = await add_handover(database)
    await eventually(lambda: _is_done(database, later), within=60)
    await eventually(lambda: _told(first, job_id), within=60)
    assert await outbox_row(database, handovers, job_id) == settled
    # under the fresh number in time, and under the first one late
    assert sorted(peer.taken) == sorted([job_id, settled["number"], later])


async def suspend_between_writes(process: Process, database: Database) -> None:
    """Stopped amid a write, a process would keep SQLite's file locked for everybody."""
    while True:
        process.suspend()
        if await asyncio.to_thread(_can_be_written, database):
            return
        process.resume()
        await asyncio.sleep(0.02)  # its call has a deadline


def _can_be_written(database: Database) -> bool:
    if not database.is_sqlite:
        return True
    file = database.settings.url.database
    assert file
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=0.05)) as connection:
            connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    return True


def _told(process: Process, job_id: int) -> bool:
    return any(
        f'"job_id":{job_id},' in line and '"event":"handover.' in line
        for line in process.output.splitlines()
    )


async def _is_done(database: Database, job_id: int) -> bool:
    return bool((await outbox_row(database, handovers, job_id))["state"] == "done")


def clock_off_by(folder: Path, seconds: int) -> dict[str, Any]:
    """Settings of a process whose own clock is wrong."""
    return {"PYTHONPATH": shifted_clock(folder, seconds)}


async def test_leases_hold_and_end_whatever_the_dispatchers_clocks_say(
    cloud: Cloud, database: Database, peer: FakePeer
) -> None:
    job_id = await add_handover(database)
    tries: list[float] = []

    async def hang_first(_: web.Request, __: Any) -> web.StreamResponse | None:
        tries.append(asyncio.get_running_loop().time())
        if len(tries) == 1:
            await asyncio.sleep(60)
        return None

    peer.behave = hang_first
    timeout, margin, grace = 1.5, 5.0, 1.0
    behind = cloud.dispatcher(HANDOVER_TIMEOUT=timeout, **clock_off_by(cloud.folder, -3600))
    await eventually(lambda: tries)
    behind.kill()
    ahead = cloud.dispatcher(HANDOVER_TIMEOUT=timeout, **clock_off_by(cloud.folder, 3600))
    await eventually(lambda: _is_done(database, job_id), within=20)
    first, second = tries
    assert timeout + margin + grace - 0.5 < second - first < timeout + margin + grace + 4
    assert _clock_of(ahead) - _clock_of(behind) > timedelta(seconds=7199)


def _clock_of(process: Process) -> datetime:
    """What a process thought the time was when it wrote its first line."""
    found = re.search(r'"timestamp":"([^"]+)"', process.output)
    assert found, process.output
    return datetime.fromisoformat(found[1])
