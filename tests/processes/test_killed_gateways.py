"""Gateways that are killed while they accept or delete jobs."""

import asyncio
import random
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import update

from common.database.engine import Database, utc_now
from common.database.tables import handovers, idempotency_keys, job_events, jobs
from deploy.sandbox.ports import free_port
from devtools.services import Process
from devtools.waiting import eventually
from tests.support.cloud import USER, Cloud, on_postgresql, orphans
from tests.support.gateway import job_body
from tests.support.records import all_done, change, rows

ROUNDS = 3
AT_ONCE = 75
KINDS = ("output", "log", "artifact")


async def test_a_job_and_its_handover_are_stored_together_or_not_at_all(
    cloud: Cloud, database: Database
) -> None:
    chance = random.Random(1)
    accepted: dict[str, int] = {}
    unanswered: set[str] = set()

    async def submit(name: str) -> None:
        status, job_id = await cloud.caller.submit(name)
        assert status in {201, None}
        if status is None:
            unanswered.add(name)
        else:
            accepted[name] = job_id

    turn = 0
    while turn < ROUNDS or not unanswered:  # a busy machine may see all answers at once
        turn += 1
        gateway = await cloud.gateway(MAX_CONCURRENT_REQUESTS=0)
        expected = len(accepted) + chance.randrange(1, AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for number in range(AT_ONCE):
                group.create_task(submit(f"job-{turn}-{number}"))
            while len(accepted) < expected:
                await asyncio.sleep(0)
            gateway.kill()

    there = {row["job_name"]: row["id"] for row in await rows(database, jobs)}
    assert accepted.items() <= there.items()
    assert set(there) <= set(accepted) | unanswered
    assert [row["job_id"] for row in await rows(database, handovers)] == sorted(there.values())
    events = [row["job_id"] for row in await rows(database, job_events)]
    assert sorted(events) == sorted(there.values())


async def test_requests_that_are_repeated_with_their_keys_make_each_job_once(
    cloud: Cloud, database: Database
) -> None:
    chance = random.Random(3)
    bodies = [
        job_body(job_name=f"job-{number}", attributes={"files_down": {}})
        for number in range(AT_ONCE)
    ]
    answers: dict[int, set[bytes]] = {number: set() for number in range(AT_ONCE)}
    unanswered = 0

    def request(number: int) -> tuple[str, Any]:
        """Of all kinds; a second job of any would be seen, since a repetition needs no name."""
        kinds = [
            ("/jobs", bodies[number]),
            ("/jobs/batch", {"jobs": [bodies[number]]}),
            (f"/jobs/{original}/repeat", {"priority": number % 6}),
        ]
        return kinds[number % 3]

    async def send(number: int) -> None:
        nonlocal unanswered
        path, body = request(number)
        headers = {**cloud.caller.headers, "Idempotency-Key": f"key-{number}"}
        try:
            answer = await cloud.caller.ask("POST", path, headers=headers, json=body)
        except aiohttp.ClientError:
            unanswered += 1
        else:
            assert answer.status == 201, answer.body
            answers[number].add(answer.body)

    gateway = await cloud.gateway(MAX_CONCURRENT_REQUESTS=0)
    _, original = await cloud.caller.submit("original")
    for _ in range(ROUNDS):
        expected = min(AT_ONCE - 1, sum(map(len, answers.values())) + chance.randrange(1, AT_ONCE))
        async with asyncio.TaskGroup() as group:
            for number in range(AT_ONCE):
                group.create_task(send(number))
            while sum(map(len, answers.values())) < expected:
                await asyncio.sleep(0)
            gateway.kill()
        async with database.transaction() as tx:  # the minute for which their keys are busy
            unanswered_yet = idempotency_keys.c.status.is_(None)
            expire = update(idempotency_keys).where(unanswered_yet)
            await tx.execute(expire.values(busy_until=utc_now(-1.0)))
        gateway = await cloud.gateway(MAX_CONCURRENT_REQUESTS=0)
    async with asyncio.TaskGroup() as group:
        for number in range(AT_ONCE):
            group.create_task(send(number))

    assert unanswered
    assert {len(different) for different in answers.values()} == {1}
    there = await rows(database, jobs)
    assert len(there) == 1 + AT_ONCE
    assert len(await rows(database, handovers)) == len(there)
    assert len(await rows(database, idempotency_keys)) == AT_ONCE


async def kill_amid_deletion(cloud: Cloud, gateway: Process) -> int:
    """Kill the gateway while it deletes a job's files; returns the job's id."""
    for attempt in range(10):
        name = f"train-{attempt}"
        _, job_id = await cloud.caller.submit(name)
        first, *others = (cloud.root / USER / kind / name for kind in KINDS)
        first.mkdir(parents=True)
        for directory in others:
            (directory / "deep").mkdir(parents=True)
            for number in range(1_500 * (attempt + 1)):
                (directory / "deep" / f"{number}").touch()
        deletion = asyncio.ensure_future(cloud.caller.delete(job_id))
        await asyncio.to_thread(_wait_until_gone, first)
        gateway.suspend()
        if others[-1].exists():
            gateway.kill()
            assert await deletion is None
            return job_id
        gateway.resume()  # it was faster than we
        assert await deletion == 204
    raise AssertionError("no deletion could be caught half done")


def _wait_until_gone(path: Path) -> None:
    while path.exists():
        pass


@on_postgresql
async def test_a_deletion_that_a_kill_interrupted_is_finished_by_the_dispatcher(
    cloud: Cloud, database: Database
) -> None:
    other_port = free_port()
    gateway, _ = await asyncio.gather(cloud.gateway(), cloud.gateway(PORT=other_port))
    tree = cloud.root / USER
    others = [tree / "output" / "train_2" / "file", tree / "data" / "train-0" / "file"]
    for file in others:
        file.parent.mkdir(parents=True)
        file.write_text("data")
    job_id = await kill_amid_deletion(cloud, gateway)
    assert len(await rows(database, jobs)) == 1

    assert await cloud.caller_at(other_port).report(job_id, "running") == 404
    # the minute for which an interrupted deletion is left alone
    await change(database, jobs, job_id, deleted_at=utc_now(-61.0))
    cloud.dispatcher()

    async def is_gone() -> bool:
        return not await rows(database, jobs)

    await eventually(is_gone, within=30)
    assert await orphans(database) == 0
    assert not [path for kind in KINDS for path in (tree / kind).glob("train-*")]
    assert all(file.read_text() == "data" for file in others)


async def test_deletions_that_race_the_last_update_and_the_hand_over_leave_nothing_behind(
    cloud: Cloud, database: Database
) -> None:
    await cloud.gateway(DATABASE_POOL_TIMEOUT=60)  # sixty jobs share ten connections
    kept_file = cloud.root / USER / "output" / "mine" / "file"
    kept_file.parent.mkdir(parents=True)
    kept_file.write_text("data")
    chance = random.Random(2)
    outcomes: set[int | None] = set()

    async def live_and_die(name: str) -> None:
        _, job_id = await cloud.caller.submit(name)
        result = cloud.root / USER / "output" / name / "result"
        result.parent.mkdir(parents=True)
        result.touch()

        async def report(status: str) -> None:
            outcomes.add(await cloud.caller.report(job_id, status))

        async def work() -> None:
            for status in ("pulled", "running", "finished"):
                await asyncio.sleep(chance.random() * 0.05)
                await report(status)

        async def delete() -> None:
            await asyncio.sleep(chance.random() * 0.15)
            assert await cloud.caller.delete(job_id) == 204

        if chance.random() < 0.3:
            await report("pulled")
        await asyncio.gather(work(), delete())
        assert await cloud.caller.report(job_id, "finished") == 404
        assert not result.exists()

    async with cloud.standin_peer():
        cloud.dispatcher()
        kept = [await cloud.caller.submit(f"kept-{number}") for number in range(3)]
        await asyncio.gather(*(live_and_die(f"job-{number}") for number in range(60)))
        await eventually(lambda: all_done(database, handovers, 3), within=30)
    assert outcomes == {200, 404}
    assert [row["id"] for row in await rows(database, jobs)] == sorted(job_id for _, job_id in kept)
    assert await orphans(database) == 0
    assert kept_file.read_text() == "data"
