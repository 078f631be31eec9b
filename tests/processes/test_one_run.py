"""A job runs once, though it was sent twice and the peer does not deduplicate."""

import asyncio

import aiohttp

from common.database.engine import Database
from common.database.tables import handover_numbers, handovers, jobs
from deploy.sandbox.peer import Peer
from deploy.sandbox.worker.connection import JobGoneError, PeerConnection
from devtools.waiting import eventually
from tests.support.cloud import Cloud, on_postgresql
from tests.support.records import all_done, rows

JOBS = 10
NAMES = [f"job-{number}" for number in range(JOBS)]


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


async def submit_without_responses(cloud: Cloud, peer: Peer) -> None:
    """Submit the jobs; the peer takes the first submission of each without an answer."""
    peer.faults.replace([{"fault": "drop_after", "on": "submit", "times": JOBS}])
    await cloud.gateway()
    for name in NAMES:
        assert (await cloud.caller.submit(name))[0] == 201


async def test_jobs_whose_submissions_got_no_response_run_once_each(
    cloud: Cloud, database: Database
) -> None:
    async with cloud.standin_peer() as peer, aiohttp.ClientSession() as session:
        await submit_without_responses(cloud, peer)
        dispatchers = [cloud.dispatcher() for _ in range(2)]
        await eventually(lambda: peer.counters.accepted == 2 * JOBS, within=30)
        await eventually(lambda: all_done(database, handovers), within=30)
        workers = [work(session, cloud.peer_url, f"worker-{number}") for number in range(4)]
        results = await asyncio.gather(*workers)
        counters = peer.counters
        assert counters.accepted_by_name.keys() == {*NAMES}
        assert counters.runs_by_name == dict.fromkeys(NAMES, 1)
        assert counters.dropped_copies == JOBS
        assert [sum(column) for column in zip(*results, strict=True)] == [JOBS, JOBS]
        assert [entry.status for entry in peer.queue] == ["finished"] * JOBS
        resends = [
            await dispatcher.metric("opencloud_handover_resends_total")
            for dispatcher in dispatchers
        ]
    assert sum(resends) == JOBS
    assert {row["status"] for row in await rows(database, jobs)} == {"finished"}
    fresh = {row["number"] for row in await rows(database, handover_numbers)}
    assert len(fresh) == JOBS
    assert fresh.isdisjoint(row["id"] for row in await rows(database, jobs))


@on_postgresql
async def test_jobs_that_workers_took_in_time_are_not_sent_again(
    cloud: Cloud, database: Database
) -> None:
    async with cloud.standin_peer() as peer, aiohttp.ClientSession() as session:
        await submit_without_responses(cloud, peer)
        cloud.dispatcher(HANDOVER_GRACE=60)
        # the dispatcher sends little while answers are lost; workers take each job on arrival
        while peer.counters.runs_by_number.total() < JOBS:
            assert (await work(session, cloud.peer_url, "worker"))[1] == 0
        # no doubt is left after which a job could be sent again
        await eventually(lambda: all_done(database, handovers))
        assert peer.counters.received == JOBS
    assert await rows(database, handover_numbers) == []
