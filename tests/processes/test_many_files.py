"""A directory of many files is listed, packed, used as input and deleted beside other requests."""

import asyncio
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from common.database.engine import Database
from common.database.tables import handovers
from devtools.services import Process
from devtools.waiting import eventually, meanwhile
from tests.support.cloud import USER, Cloud, on_sqlite
from tests.support.dispatcher import FakePeer
from tests.support.gateway import job_body
from tests.support.records import outbox_row, until
from tests.support.slowness import Elapsed, slowness

FILES = int(os.environ.get("TEST_FILES", "3000"))
CONTENT = b"0123456789"

GROWTH = 60.0 + FILES / 1000 * 1.5
"""MiB that a process may grow by: a constant, and the names."""

LONGEST = 1.0
"""Seconds that other requests may take, which usually take milliseconds."""


def plant(directory: Path) -> None:
    directory.mkdir(parents=True)
    for number in range(FILES):
        (directory / f"frame-{number:06}.tif").write_bytes(CONTENT)


class Others:
    """Requests of others, one after the other: the longest time that one took, and the largest
    memory of each watched process meanwhile, of which the gateway is the first."""

    def __init__(self, cloud: Cloud, *watched: Process) -> None:
        self._caller = cloud.caller
        self._watched = watched
        self.slowest = 0.0
        self.memory = [0.0] * len(watched)

    async def work(self) -> None:
        while True:
            for path in ("/user", "/jobs?limit=10", "/files/config/"):
                with Elapsed(self._watched[0]) as elapsed:
                    answer = await self._caller.ask("GET", path)
                assert answer.status == 200
                self.slowest = max(self.slowest, elapsed.seconds)
            self.memory = [
                max(most, process.memory)
                for most, process in zip(self.memory, self._watched, strict=True)
            ]
            await asyncio.sleep(0.01)


@on_sqlite
async def test_a_directory_of_many_files_takes_little_memory_and_delays_nobody(
    cloud: Cloud, database: Database, peer: FakePeer
) -> None:
    directory = cloud.root / USER / "data" / "many"
    await asyncio.to_thread(plant, directory)
    gateway, dispatcher = await cloud.gateway(), cloud.dispatcher()
    await dispatcher.wait_until_ready()
    caller = cloud.caller
    inputs: list[int] = []

    async def count(_: web.Request, body: dict[str, Any]) -> None:
        inputs.append(len(body["job"]["handler"]["files_down"]))

    peer.behave = count
    await caller.submit("before")
    memory = [gateway.memory, dispatcher.memory]
    others = Others(cloud, gateway, dispatcher)
    async with meanwhile(others.work()):
        for query in ("", "?recursive=true"):
            listing = await caller.ask("GET", f"/files/data/many/{query}")
            names = [entry["path"] for entry in orjson.loads(listing.body)]
            assert len(names) == FILES
            assert names == sorted(names)

        packed = await caller.ask("GET", "/files/data/many/download")
        with zipfile.ZipFile(io.BytesIO(packed.body)) as archive:
            assert len(archive.namelist()) == FILES
            assert archive.testzip() is None

        body = job_body(job_name="many", attributes={"files_down": {"data_ids": ["many"]}})
        submitted = await caller.ask("POST", "/jobs", json=body)
        assert submitted.status == 201
        job_id = orjson.loads(submitted.body)["id"]
        await eventually(lambda: job_id in peer.taken, within=60)
        assert inputs == [0, FILES]  # of the first job as well
        await until(database, handovers, done=2)
        assert (await outbox_row(database, handovers, job_id))["payload"] == ""

        assert (await caller.ask("DELETE", "/files/data/many/")).status == 204
        assert not directory.exists()
    growth = [most - before for most, before in zip(others.memory, memory, strict=True)]
    if "TEST_FILES" in os.environ:
        print(f"{FILES} files: slowest {others.slowest:.3f} s, grown by {growth} MiB")
    assert max(growth) < GROWTH
    assert others.slowest < LONGEST * slowness()
