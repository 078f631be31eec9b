"""Jobs with long texts and many inputs: what they take of a gateway's memory and time."""

import asyncio
import io

import orjson

from common.database.engine import Database
from common.database.tables import handovers, job_events, jobs
from devtools.user_pool import INTERNAL_KEY
from devtools.waiting import eventually
from tests.support.clients import Client, connected
from tests.support.cloud import USER, Cloud, on_postgresql
from tests.support.dispatcher import FakePeer
from tests.support.gateway import job_body
from tests.support.records import add_job, all_done, rows
from tests.support.slowness import Elapsed, slowness

MIB = 1 << 20
READERS = 120
JOBS = 40
READ = 30
SUBMISSIONS = 5
INPUTS = 1_000
REPORTS = 5
MAX_BODY = 4 * MIB

GROWTH = 50.0
"""MiB by which slow readers, however many, may let a gateway grow."""

LEFT = 30.0
"""MiB that may be left of jobs that are gone."""


LONG = {"files_down": {}, "env_vars": {f"NAME_{key}": "ü" * 32_000 for key in range(10)}}


async def stop_in_page(client: Client) -> None:
    await client.begin("GET", "/jobs?limit=10000", 0)


@on_postgresql
async def test_slow_readers_of_long_pages_take_little_memory(
    cloud: Cloud, database: Database
) -> None:
    for number in range(JOBS):
        details = "x" * MIB if number % 2 else None
        await add_job(database, user_id=USER, runtime_details=details, attributes=LONG)
    gateway = await cloud.gateway(MAX_CONCURRENT_REQUESTS=0)
    answer = await cloud.caller.ask("GET", "/jobs?limit=10000")
    found = orjson.loads(answer.body)
    assert len(found) == JOBS
    assert sum(len(job["runtime_details"] or "") for job in found) == JOBS // 2 * MIB
    del answer, found
    memory = gateway.memory
    highest = [memory]
    async with connected(cloud.port, cloud.token, [stop_in_page], READERS):
        for _ in range(20):
            with Elapsed(gateway) as elapsed:
                others = await asyncio.gather(
                    cloud.caller.ask("GET", "/"),
                    cloud.caller.ask("GET", "/user"),
                    cloud.caller.ask("GET", "/files/config/"),
                )
            assert [answer.status for answer in others] == [200] * 3
            assert elapsed.seconds < 2.0 * slowness()
            highest.append(gateway.memory)
            await asyncio.sleep(0.1)
    print(f"grown by {max(highest) - memory:.1f} MiB")
    assert max(highest) < memory + GROWTH


@on_postgresql
async def test_a_directory_that_is_named_again_and_again_costs_what_it_costs_once(
    cloud: Cloud,
) -> None:
    for number in range(2_000):
        cloud.plant(f"data/many/{number}", b"")
    gateway = await cloud.gateway()
    await cloud.caller.submit("before")
    memory = gateway.memory
    for ids, status in (
        (["many"] * 2_000, 201),
        ([f"many{'/' * number}" for number in range(400)], 201),
        ([f"none/{number}" for number in range(20_000)], 413),
    ):
        body = job_body(attributes={"files_down": {"data_ids": ids}})
        with Elapsed(gateway) as elapsed:
            answer = await cloud.caller.ask("POST", "/jobs", json=body)
        assert answer.status == status
        print(f"{len(ids)} ids: {elapsed.seconds:.3f} s")
        assert elapsed.seconds < 5.0 * slowness()  # 1 s on a quiet machine
    assert gateway.memory < memory + 100.0


@on_postgresql
async def test_memory_returns_once_long_jobs_are_read_and_deleted(
    cloud: Cloud, database: Database
) -> None:
    details = {"user_id": USER, "runtime_details": "x" * MIB, "attributes": LONG}
    gateway, caller = await cloud.gateway(), cloud.caller
    assert (await caller.ask("GET", "/jobs?limit=10000")).status == 200
    memory = gateway.memory
    stored = [await add_job(database, **details) for _ in range(READ)]
    for job_id in stored:
        read = await caller.ask("GET", f"/jobs/{job_id}")
        assert len(read.body) > MIB
    assert len((await caller.ask("GET", "/jobs?limit=10000")).body) > READ * MIB
    for job_id in stored:
        assert await caller.delete(job_id) == 204
    print(f"grown by {gateway.memory - memory:.1f} MiB")
    assert gateway.memory < memory + LEFT


async def test_the_database_keeps_of_large_submissions_and_long_reports_what_is_needed(
    cloud: Cloud, database: Database, peer: FakePeer
) -> None:
    for number in range(INPUTS):
        cloud.plant(f"data/many/{number}", b"")
    await cloud.gateway()
    body = job_body(attributes={"files_down": {"data_ids": ["many"]}})
    for number in range(SUBMISSIONS):
        answer = await cloud.caller.ask("POST", "/jobs", json={**body, "job_name": str(number)})
        assert answer.status == 201
    assert all(
        len(row["payload"]) > INPUTS * len("data/many/999")
        for row in await rows(database, handovers)
    )
    cloud.dispatcher()
    await eventually(lambda: all_done(database, handovers), within=30)
    assert not any(row["payload"] for row in await rows(database, handovers))
    assert sorted(peer.taken) == [row["id"] for row in await rows(database, jobs)]
    number = peer.taken[0]
    as_worker = {"x-api-key": INTERNAL_KEY, "Content-Type": "application/json"}
    for report in range(REPORTS):
        details = f"{report} " + "x" * (MAX_BODY - 1_000) + f" the end of {report}"
        update = {"job_id": number, "status": "running", "runtime_details": details}
        sent = {"data": io.BytesIO(orjson.dumps(update)), "headers": as_worker}
        assert (await cloud.caller.ask("PUT", "/_job_status", **sent)).status == 200
    kept = orjson.loads((await cloud.caller.ask("GET", f"/jobs/{number}")).body)["runtime_details"]
    assert kept.endswith(f"x the end of {REPORTS - 1}")
    assert "bytes were cut" in kept
    details = [row["runtime_details"] for row in await rows(database, jobs)]
    events = [row["details"] for row in await rows(database, job_events)]
    assert sum(len(text or "") for text in details) < 1.1 * MIB
    assert sum(len(text or "") for text in events) < 2.2 * MIB
