"""The stream of events as real clients read it: a browser's `EventSource`, curl, httpx."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from pathlib import Path

import orjson

from tests.support.browser import open_page
from tests.support.cloud import Cloud, on_sqlite
from tests.support.tools import needs, tool

pytestmark = on_sqlite

FOLLOW = """(url, token) => {
    document.cookie = `Authorization="Bearer ${token}"`
    window.seen = []
    window.opened = 0
    const source = new EventSource(url, {withCredentials: true})
    source.onopen = () => opened++
    source.addEventListener('job', event => seen.push([event.lastEventId, event.data]))
    source.addEventListener('deleted', event => window.deleted = JSON.parse(event.data).job_id)
}"""

HTTPX = """
import sys, httpx
url, token = sys.argv[1:]
headers = {"Authorization": f"Bearer {token}"}
with httpx.stream("GET", url, headers=headers, timeout=30) as answer:
    for line in answer.iter_lines():
        print(line, flush=True)
"""


@needs("chromium")
async def test_a_page_of_the_front_end_misses_nothing_across_a_restart_of_the_gateway(
    cloud: Cloud, front_end: str, tmp_path: Path
) -> None:
    gateway = await cloud.gateway(FRONTEND_URL=front_end)
    async with open_page(tool("chromium"), tmp_path / "profile") as page:
        await page.open(front_end)
        url = f"http://localhost:{cloud.port}/jobs/events"
        await page.run(f"({FOLLOW})('{url}', '{cloud.token}')")
        await page.until("opened === 1")
        _, job_id = await cloud.caller.submit("train")
        await page.until("seen.length === 1")
        assert await gateway.terminate() == 0
        await cloud.gateway(FRONTEND_URL=front_end)
        assert await cloud.caller.report(job_id, "running") == 200  # before the page is back
        await page.until("opened === 2 && seen.length === 2")
        assert await cloud.caller.report(job_id, "finished") == 200
        await page.until("seen.length === 3")
        seen = await page.run("seen")
        listed = orjson.loads((await cloud.caller.ask("GET", f"/jobs/{job_id}/events")).body)
        assert [orjson.loads(data) for _, data in seen] == listed
        assert [int(last) for last, _ in seen] == [event["id"] for event in listed]
        assert await cloud.caller.delete(job_id) == 204
        await page.until(f"window.deleted === {job_id}")


async def first_events(command: Sequence[str], cloud: Cloud) -> None:
    """A program that prints the stream gets each event as it happens."""
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"retry: 3000\n"
            _, job_id = await cloud.caller.submit("train")
            for status in ("queued", "running"):
                while not (line := await process.stdout.readline()).startswith(b"data: "):
                    pass
                event = orjson.loads(line.removeprefix(b"data: "))
                assert (event["job_id"], event["status"]) == (job_id, status)
                await cloud.caller.report(job_id, "running")
    finally:
        process.kill()
        await process.wait()


@needs("curl")
async def test_curl(cloud: Cloud) -> None:
    await cloud.gateway()
    header = f"Authorization: Bearer {cloud.token}"
    command = [str(tool("curl")), "-sN", "-H", header, f"{cloud.url}/jobs/events"]
    await first_events(command, cloud)


async def test_httpx(cloud: Cloud) -> None:
    await cloud.gateway()
    command = [sys.executable, "-c", HTTPX, f"{cloud.url}/jobs/events", cloud.token]
    await first_events(command, cloud)
