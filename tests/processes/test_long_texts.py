"""Jobs with long texts and many inputs: what they take of a gateway's memory and time."""

import asyncio

import orjson

from common.database.engine import Database
from tests.support.clients import Client, connected
from tests.support.cloud import USER, Cloud, on_postgresql
from tests.support.gateway import job_body
from tests.support.records import add_job

MIB = 1 << 20
READERS = 120
JOBS = 40
GROWTH = 50.0
"""MiB by which slow readers, however many, may let a gateway grow."""


async def stop_in_page(client: Client) -> None:
    await client.begin("GET", "/jobs?limit=10000", 0)


@on_postgresql
async def test_slow_readers_of_long_pages_take_little_memory(
    cloud: Cloud, database: Database
) -> None:
    for number in range(JOBS):
        details = "x" * MIB if number % 2 else None
        variables = {f"NAME_{key}": "ü" * 32_000 for key in range(10)}
        await add_job(
            database,
            user_id=USER,
            runtime_details=details,
            attributes={"files_down": {}, "env_vars": variables},
        )
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
            others = await asyncio.gather(
                cloud.caller.ask("GET", "/"),
                cloud.caller.ask("GET", "/user"),
                cloud.caller.ask("GET", "/files/config/"),
            )
            assert [answer.status for answer in others] == [200] * 3
            assert max(answer.seconds for answer in others) < 2.0
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
        answer = await cloud.caller.ask("POST", "/jobs", json=body)
        assert answer.status == status
        print(f"{len(ids)} ids: {answer.seconds:.3f} s")
        assert answer.seconds < 5.0  # 1 s on a quiet machine
    assert gateway.memory < memory + 100.0
