"""Concurrent dispatchers: many, suspended, and with wrong clocks."""

import asyncio
import os
import re
import time
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import select, text

from common.database.engine import Database, utc_now
from common.database.tables import handover_numbers, handovers
from devtools.services import Process
from devtools.shifted_clock import shifted_clock
from devtools.waiting import eventually
from gateway.jobs.turns import HEAD_START, STEP
from tests.support.cloud import PATIENT, Caller, Cloud, Held, on_postgresql
from tests.support.dispatcher import FakePeer
from tests.support.gateway import job_body
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
LONG = 120
"""Seconds in which any number of processes has started."""


async def add_backlog(database: Database, count: int) -> None:
    """Add `count` due hand-overs with the ids 1, 2, 3, …"""
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
    peer.behave = until_everyone_sends = Held()
    await add_backlog(database, BACKLOG)
    # each has as many calls under way as it may; the first ones last until all have started
    patient = {"HANDOVER_CONCURRENCY": 8, "HANDOVER_TIMEOUT": LONG}
    dispatchers = [cloud.dispatcher(**patient) for _ in range(DISPATCHERS)]
    await eventually(lambda: len(peer.tried) == 8 * DISPATCHERS, within=LONG)
    until_everyone_sends.released.set()
    await eventually(lambda: len(peer.taken) >= BACKLOG, within=120)
    taken = 'opencloud_handovers_total{verdict="taken"}'
    await eventually(lambda: all_done(database, handovers), within=60)
    shares = [await one.metric(taken) for one in dispatchers]
    assert sorted(peer.tried) == list(range(1, BACKLOG + 1))
    assert sum(shares) == BACKLOG
    assert min(shares) > 0
    assert await rows(database, handover_numbers) == []


async def test_urgent_jobs_of_one_user_do_not_push_those_of_others_behind(
    cloud: Cloud, database: Database, peer: FakePeer
) -> None:
    await cloud.gateway(MAX_CONCURRENT_REQUESTS=0)
    ahead = int(5 * HEAD_START / STEP)  # of an ordinary job, at most
    urgent = job_body(priority=5, attributes={"files_down": {}})
    caller, other = cloud.caller, cloud.caller_of("other")

    async def submit(who: Caller, name: object, **changes: Any) -> int:
        body = {**urgent, "job_name": str(name), **changes}
        answer = await who.ask("POST", "/jobs", json=body)
        assert answer.status == 201
        return int(orjson.loads(answer.body)["id"])

    began = time.monotonic()
    await asyncio.gather(*(submit(caller, number) for number in range(ahead + 150)))
    urgent_one = await submit(other, "urgent")
    ordinary = await submit(other, "ordinary", priority=0)
    took = (time.monotonic() - began) / STEP  # so many turns were over when the others came
    cloud.dispatcher(HANDOVER_CONCURRENCY=4)
    await eventually(lambda: ordinary in peer.taken, within=PATIENT)
    assert peer.taken.index(urgent_one) <= took + 20
    assert peer.taken.index(ordinary) <= ahead + took + 20


@on_postgresql
async def test_a_suspended_owner_that_wakes_up_after_its_lease_changes_nothing(
    cloud: Cloud, database: Database, peer: FakePeer
) -> None:
    job_id = await add_handover(database)
    peer.behave = answer = Held(first_only=True)
    first = cloud.dispatcher()
    await asyncio.wait_for(answer.reached.wait(), 60)
    first.suspend()
    await end_leases(database, handovers)
    second = cloud.dispatcher()
    await eventually(lambda: all_done(database, handovers), within=60)
    settled = await outbox_row(database, handovers, job_id)
    second.kill()
    answer.released.set()  # the first one's call succeeds after all
    first.resume()
    later = await add_handover(database)
    await eventually(lambda: all_done(database, handovers), within=60)
    outcome = re.compile(f'"job_id":{job_id},.*"event":"handover')
    await eventually(lambda: outcome.search(first.output), within=60)
    assert await outbox_row(database, handovers, job_id) == settled
    # under the delivery number in time, and under the first one late
    assert sorted(peer.taken) == sorted([job_id, settled["number"], later])


async def test_leases_hold_and_end_by_the_databases_clock(
    cloud: Cloud, database: Database, peer: FakePeer
) -> None:
    job_id = await add_handover(database)
    peer.behave = Held(first_only=True)
    clock = shifted_clock(cloud.folder, -HOUR)
    behind = cloud.dispatcher(PYTHONPATH=clock, HANDOVER_TIMEOUT=LONG)
    await eventually(lambda: peer.tried, within=PATIENT)
    behind.kill()
    claimed = await outbox_row(database, handovers, job_id)
    async with database.reading() as connection:
        now: datetime = (await connection.execute(select(utc_now()))).scalar_one()
    lease = claimed["leased_until"] - now
    assert timedelta() < lease < timedelta(seconds=LONG + 6)

    # an expired lease is found; the valid one is not, though by this clock it has expired
    lost = await add_handover(
        database, await add_job(database), state="sending", owner="gone", leased_until=utc_now(-1.0)
    )
    ahead = cloud.dispatcher(PYTHONPATH=shifted_clock(cloud.folder, HOUR))

    async def is_resent() -> bool:
        return bool((await outbox_row(database, handovers, lost))["state"] == "done")

    await eventually(is_resent, within=PATIENT)
    assert await outbox_row(database, handovers, job_id) == claimed

    await end_leases(database, handovers)
    await eventually(lambda: all_done(database, handovers), within=PATIENT)
    assert _clock_of(ahead) - _clock_of(behind) > timedelta(seconds=2 * HOUR - 1)


def _clock_of(process: Process) -> datetime:
    """The process's own clock at its first log line."""
    found = re.search(r'"timestamp":"([^"]+)"', process.output)
    assert found, process.output
    return datetime.fromisoformat(found[1])
