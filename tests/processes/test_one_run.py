"""One job runs once, though the peer cannot tell that it was sent twice."""

import asyncio

import aiohttp

from common.database.engine import Database
from common.database.tables import handover_numbers, handovers, jobs
from deploy.sandbox.worker.connection import JobGoneError, PeerConnection
from devtools.waiting import eventually
from tests.support.cloud import Cloud
from tests.support.records import rows

JOBS = 20


async def work(session: aiohttp.ClientSession, url: str, worker: str) -> tuple[int, int]:
    """Take jobs until there is none; returns how many ran, and how many had to be dropped."""
    peer = PeerConnection(session, url, worker)
    ran = dropped = 0
    while (job := await peer.pull(wait=0.5)) is not None:
        try:
            for status in ("pulled", "preprocessing", "running", "postprocessing", "finished"):
                await peer.report(job["id"], status)
            ran += 1
        except JobGoneError:
            dropped += 1
    return ran, dropped


async def test_jobs_whose_submissions_were_answered_by_silence_run_once_each(
    cloud: Cloud, database: Database
) -> None:
    await cloud.gateway()
    async with cloud.standin_peer() as peer, aiohttp.ClientSession() as session:
        peer.faults.replace([{"fault": "drop_after", "on": "submit", "times": JOBS}])
        names = [f"job-{number}" for number in range(JOBS)]
        for name in names:
            assert (await cloud.caller.submit(name))[0] == 201
        first, second = cloud.dispatcher(), cloud.dispatcher()
        await eventually(lambda: peer.counters.accepted == 2 * JOBS, within=30)
        workers = [work(session, cloud.peer_url, f"worker-{number}") for number in range(4)]
        results = await asyncio.gather(*workers)
        counters = peer.counters
        assert counters.accepted_by_name == dict.fromkeys(names, 2)
        assert counters.runs_by_name == dict.fromkeys(names, 1)
        assert counters.dropped_copies == JOBS
        assert sum(ran for ran, _ in results) == JOBS
        assert sum(dropped for _, dropped in results) == JOBS
        assert [entry.status for entry in peer.queue] == ["finished"] * JOBS
        resends = [
            await dispatcher.metric("opencloud_handover_resends_total")
            for dispatcher in (first, second)
        ]
    assert sum(resends) == JOBS
    assert {row["status"] for row in await rows(database, jobs)} == {"finished"}
    assert {row["state"] for row in await rows(database, handovers)} == {"done"}
    fresh = {row["number"] for row in await rows(database, handover_numbers)}
    assert len(fresh) == JOBS
    assert fresh.isdisjoint(row["id"] for row in await rows(database, jobs))


async def test_jobs_that_workers_took_in_time_are_not_sent_again(
    cloud: Cloud, database: Database
) -> None:
    await cloud.gateway()
    async with cloud.standin_peer() as peer, aiohttp.ClientSession() as session:
        peer.faults.replace([{"fault": "drop_after", "on": "submit", "times": JOBS}])
        for number in range(JOBS):
            assert (await cloud.caller.submit(f"job-{number}"))[0] == 201
        cloud.dispatcher(HANDOVER_GRACE=10)
        # it sends little while so many answers are lost, and each job is taken when it arrives
        while peer.counters.runs_by_number.total() < JOBS:
            assert (await work(session, cloud.peer_url, "worker"))[1] == 0
        await asyncio.sleep(10.5)  # longer than the grace period
        assert peer.counters.received == JOBS
    assert await rows(database, handover_numbers) == []
