"""Dispatchers beside each other: many, suspended, and with wrong clocks."""

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
from sqlalchemy import select, text

from common.database.engine import Database, utc_now
from common.database.tables import handover_numbers, handovers
from devtools.services import Process
from devtools.shifted_clock import shifted_clock
from devtools.waiting import eventually
from tests.support.cloud import PATIENT, Cloud, on_postgresql
from tests.support.dispatcher import FakePeer
from tests.support.records import (
    PAYLOAD,
    add_handover,
    add_job,
    all_done,
    end_leases,
    outbox_row,
    rows,
)

BACKLOG = int(os.environ.get("TEST_BACKLOG", "2000"))
DISPATCHERS = 8
HOUR = 3_600


async def add_backlog(database: Database, count: int) -> None:
    """Add so many due hand-overs, whose ids are 1, 2, 3, …"""
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


@on_postgresql
async def test_many_dispatchers_share_a_backlog_and_send_nothing_twice(
    cloud: Cloud, database: Database, peer: FakePeer
) -> None:
    everyone_sends = asyncio.Event()

    async def wait_for_everyone(_: web.Request, __: Any) -> None:
        await everyone_sends.wait()

    peer.behave = wait_for_everyone
    await add_backlog(database, BACKLOG)
    # each has as many calls under way as it may
    dispatchers = [cloud.dispatcher(HANDOVER_CONCURRENCY=8) for _ in range(DISPATCHERS)]
    await eventually(lambda: len(peer.tried) == 8 * DISPATCHERS, within=PATIENT)
    everyone_sends.set()
    await eventually(lambda: len(peer.taken) >= BACKLOG, within=120)
    taken = 'opencloud_handovers_total{verdict="taken"}'
    await eventually(lambda: all_done(database, handovers), within=60)
    shares = [await one.metric(taken) for one in dispatchers]
    assert sorted(peer.tried) == list(range(1, BACKLOG + 1))
    assert sum(shares) == BACKLOG
    assert min(shares) > 0
    assert await rows(database, handover_numbers) == []


async def test_a_suspended_owner_that_wakes_up_after_its_lease_changes_nothing(
    cloud: Cloud, database: Database, peer: FakePeer
) -> None:
    job_id = await add_handover(database)
    reached, answer = asyncio.Event(), asyncio.Event()

    async def answer_late(_: web.Request, __: Any) -> None:
        if not reached.is_set():
            reached.set()
            await answer.wait()

    peer.behave = answer_late
    first = cloud.dispatcher()
    await asyncio.wait_for(reached.wait(), 60)
    await suspend_between_writes(first, database)
    await end_leases(database, handovers)
    second = cloud.dispatcher()
    await eventually(lambda: all_done(database, handovers), within=60)
    settled = await outbox_row(database, handovers, job_id)
    second.kill()
    answer.set()  # the first one's call succeeds after all
    first.resume()
    later = await add_handover(database)
    await eventually(lambda: all_done(database, handovers), within=60)
    await eventually(lambda: _logged(first, job_id), within=60)
    assert await outbox_row(database, handovers, job_id) == settled
    # under the delivery number in time, and under the first one late
    assert sorted(peer.taken) == sorted([job_id, settled["number"], later])


async def suspend_between_writes(process: Process, database: Database) -> None:
    """Stopped amid a write, a process would keep SQLite's file locked for everybody."""
    while True:
        process.suspend()
        if await asyncio.to_thread(_can_be_written, database):
            return
        process.resume()
        await asyncio.sleep(0.02)


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


def _logged(process: Process, job_id: int) -> bool:
    """Whether the process has logged what became of the job."""
    return any(
        f'"job_id":{job_id},' in line and '"event":"handover.' in line
        for line in process.output.splitlines()
    )


def clock_off_by(folder: Path, seconds: int) -> dict[str, Any]:
    """Settings of a process whose own clock is wrong."""
    return {"PYTHONPATH": shifted_clock(folder, seconds)}


async def test_leases_hold_and_end_by_the_databases_clock(
    cloud: Cloud, database: Database, peer: FakePeer
) -> None:
    job_id = await add_handover(database)

    async def hang_first(_: web.Request, __: Any) -> None:
        if len(peer.tried) == 1:
            await asyncio.Event().wait()

    peer.behave = hang_first
    behind = cloud.dispatcher(**clock_off_by(cloud.folder, -HOUR))
    await eventually(lambda: peer.tried, within=PATIENT)
    behind.kill()
    claimed = await outbox_row(database, handovers, job_id)
    lease = claimed["leased_until"] - await _now(database)
    assert timedelta() < lease < timedelta(seconds=PATIENT + 6)

    # a lease that has run out is found; the one that holds is not, though it seems long over
    lost = await add_handover(
        database, await add_job(database), state="sending", owner="gone", leased_until=utc_now(-1.0)
    )
    ahead = cloud.dispatcher(**clock_off_by(cloud.folder, HOUR))

    async def is_resent() -> bool:
        return bool((await outbox_row(database, handovers, lost))["state"] == "done")

    await eventually(is_resent, within=PATIENT)
    assert await outbox_row(database, handovers, job_id) == claimed

    await end_leases(database, handovers)
    await eventually(lambda: all_done(database, handovers), within=PATIENT)
    assert _clock_of(ahead) - _clock_of(behind) > timedelta(seconds=2 * HOUR - 1)


async def _now(database: Database) -> datetime:
    """The database's time."""
    async with database.reading() as connection:
        now: datetime = (await connection.execute(select(utc_now()))).scalar_one()
    return now


def _clock_of(process: Process) -> datetime:
    """What a process thought the time was when it wrote its first line."""
    found = re.search(r'"timestamp":"([^"]+)"', process.output)
    assert found, process.output
    return datetime.fromisoformat(found[1])
