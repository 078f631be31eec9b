"""Gateway, dispatcher and notifier writing to one SQLite file at once."""

import asyncio
import os
import time
from collections import Counter

from common.database.engine import Database
from common.database.tables import emails, handover_numbers, handovers, job_events, jobs
from devtools.waiting import eventually, meanwhile
from tests.support.cloud import Cloud, on_sqlite
from tests.support.dispatcher import FakePeer
from tests.support.notifier import FakeMailjet
from tests.support.records import all_done, rows

SECONDS = float(os.environ.get("TEST_SQLITE_SECONDS", "0"))
"""Seconds for which users submit, after their first few jobs."""

USERS = 4
FIRST = 8
WORKERS = 8
PAUSE = 0.05
DETAILS = 5
"""Updates with details, sent at once, of each job."""


class Work:
    """Users who submit for a while, and workers who report on the jobs that arrive at the peer."""

    def __init__(self, cloud: Cloud, peer: FakePeer) -> None:
        self._caller = cloud.caller
        self._arrived = peer.arrived
        self.accepted: list[int] = []
        self.finished: list[int] = []
        self.others: Counter[int | None] = Counter()

    async def submit(self, user: int) -> None:
        ends = time.monotonic() + SECONDS
        turn = 0
        while turn < FIRST or time.monotonic() < ends:
            turn += 1
            status, job_id = await self._caller.submit(f"job-{user}-{turn}")
            if status == 201:
                self.accepted.append(job_id)
            else:
                self.others[status] += 1
            await asyncio.sleep(PAUSE)

    async def work(self) -> None:
        while True:
            job_id = await self._arrived.get()
            await self._report(job_id, "pulled")
            await asyncio.gather(
                *(self._report(job_id, "running", f"line {n}") for n in range(DETAILS))
            )
            await self._report(job_id, "finished")
            self.finished.append(job_id)

    async def _report(self, job_id: int, status: str, details: str | None = None) -> None:
        if (answer := await self._caller.report(job_id, status, details)) != 200:
            self.others[answer] += 1


@on_sqlite
async def test_three_services_write_to_one_file_without_a_lock_error_or_a_lost_update(
    cloud: Cloud, database: Database, peer: FakePeer, mailjet: FakeMailjet
) -> None:
    processes = [await cloud.gateway(), cloud.dispatcher(), cloud.notifier()]
    work = Work(cloud, peer)
    async with meanwhile(*(work.work() for _ in range(WORKERS))):
        await asyncio.gather(*(work.submit(user) for user in range(USERS)))
        await eventually(lambda: len(work.finished) >= len(work.accepted), within=60)
        await eventually(lambda: all_done(database, emails, len(work.accepted)), within=60)

    assert len(work.accepted) >= USERS * FIRST
    assert work.others == {}
    expected = sorted(work.accepted)
    assert sorted(peer.taken) == sorted(work.finished) == expected
    there = await rows(database, jobs)
    assert [row["id"] for row in there] == expected
    lines = sorted(f"line {n}" for n in range(DETAILS))
    assert all(row["status"] == "finished" for row in there)
    assert all(sorted(row["runtime_details"].splitlines()) == lines for row in there)
    assert {row["state"] for row in await rows(database, handovers)} == {"done"}
    assert await rows(database, handover_numbers) == []
    once = dict.fromkeys(["queued", "pulled", "finished"], 1)
    assert Counter((row["job_id"], row["status"]) for row in await rows(database, job_events)) == {
        (job_id, status): count
        for job_id in expected
        for status, count in {**once, "running": DETAILS}.items()
    }
    assert Counter(mail["CustomID"] for mail in mailjet.sent) == {
        row["custom_id"]: 1 for row in await rows(database, emails)
    }
    for process in processes:
        assert "locked" not in process.output
        assert "exception" not in process.output
