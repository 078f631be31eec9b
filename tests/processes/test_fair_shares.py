"""One user does its worst on real connections; others, and workers, are served as before.

The bounds are far below what others would wait for without shares; `tests.support.slowness` says
how they hold on slow and busy machines.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from itertools import count
from typing import Any

import orjson
import pytest

from deploy.sandbox import aws
from devtools.services import Process
from devtools.waiting import eventually
from tests.support import clients
from tests.support.clients import Client, connected
from tests.support.cloud import USER, Caller, Cloud, on_sqlite
from tests.support.gateway import job_body
from tests.support.slowness import Elapsed, slowness

OTHER = "other-user"
FILES = 8_000
LARGE = 8 << 20

ANSWERED = 0.5
"""Seconds that an answer to another user may take."""

STARTED = 1.0
"""Seconds by which another user's transfer may be later, and bodies may be taken."""

ENDED = 1.0
"""Seconds after which nothing is done any more for clients that have left."""

LONG = {"attributes": {"files_down": {}}, "ignored": "x" * 100_000}


@pytest.fixture(autouse=True)
def may_open_many_files() -> Iterator[None]:
    with clients.many_files(2_000):
        yield


async def list_anew(client: Client, numbers: Iterator[int]) -> None:
    """Request a listing that nobody else requests."""
    query = f"?recursive=true&limit={FILES + next(numbers)}"
    await client.begin("GET", f"/files/data/many/{query}", 0)


async def stop_in_zip(client: Client) -> None:
    await client.begin("GET", "/files/data/many/download", 0)


async def announce_body(client: Client) -> None:
    await client.begin("POST", "/jobs", 70_000, "Content-Type: application/json")
    await client.send(b"[")


async def trickle(client: Client) -> None:
    """Upload so much that it is a part for S3, and then next to nothing."""
    await client.begin_upload("trickled", 10_000_000)
    await client.send(b"x" * 300_000)


async def trickle_portion(client: Client, targets: Iterator[str]) -> None:
    await client.begin_portion(next(targets), 10_000_000)
    await client.send(b"x" * 300_000)


async def used(process: Process, kind: str, state: str = "in_use") -> float:
    return await process.metric(f'opencloud_share_slots{{kind="{kind}",state="{state}"}}')


@on_sqlite
async def test_listings_zips_and_downloads_of_one_user_delay_no_other(cloud: Cloud) -> None:
    cloud.plant("data/large/file", bytes(LARGE))
    for number in range(FILES):
        cloud.plant(f"data/many/{number % 20}/{number}", b"")
    gateway = await cloud.gateway(MAX_CONCURRENT_REQUESTS=0)
    other = cloud.caller_of(OTHER)
    assert (await other.upload("data/x", "f", b"content")).status == 201
    kinds = (partial(list_anew, numbers=count()), stop_in_zip, clients.stop_in_download)
    async with (
        connected(cloud.port, cloud.token, kinds[2:], 300),
        connected(cloud.port, cloud.token, kinds[1:2], 60),
        connected(cloud.port, cloud.token, kinds[:1], 150),
    ):
        await eventually(lambda: used(gateway, "listing", "waiting"))
        for path in ("/files/data/x/?recursive=true", "/files/data/x/f/download", "/jobs", "/"):
            with Elapsed(gateway) as elapsed:
                answer = await other.ask("GET", path)
            assert answer.status == 200
            assert elapsed.seconds < ANSWERED * slowness(), path
        assert await used(gateway, "listing", "waiting")  # the work was still going on

    async def nothing_goes_on() -> bool:
        kinds = ("listing", "zip", "transfer")
        return not sum([await used(gateway, kind) for kind in kinds])

    with Elapsed(gateway) as elapsed:  # nobody waits any more for what would take much longer
        await eventually(nothing_goes_on)
    assert elapsed.seconds < ENDED * slowness()
    assert "request.failed" not in gateway.output


@on_sqlite
async def test_bodies_that_are_announced_only_keep_nobody_out(cloud: Cloud) -> None:
    gateway = await cloud.gateway(MAX_CONCURRENT_REQUESTS=0)
    other = cloud.caller_of(OTHER)
    _, job_id = await other.submit("before")
    async with connected(cloud.port, cloud.token, [announce_body], 500):
        long = job_body(job_name="long", **LONG)
        with Elapsed(gateway) as elapsed:
            answers = [
                await other.ask("POST", "/jobs", json=long),
                await other.ask(
                    "POST",
                    "/jobs",
                    data=in_chunks(orjson.dumps({**long, "job_name": "in-chunks"})),
                    headers={**other.headers, "Content-Type": "application/json"},
                ),
            ]
        assert [answer.status for answer in answers] == [201, 201]
        assert elapsed.seconds < STARTED * slowness()
        assert await other.report(job_id, "error", "x" * 100_000) == 200


async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 10_000):
        yield body[start : start + 10_000]


@on_sqlite
async def test_transfers_with_s3_of_one_user_delay_no_other(cloud: Cloud, aws_url: str) -> None:
    aws.create_bucket(aws_url, "fair-shares")
    gateway = await cloud.gateway(
        MAX_CONCURRENT_REQUESTS=0,
        FILESYSTEM="s3",
        S3_BUCKET="fair-shares",
        USER_DATA_ROOT_PATH="root",
        **aws.environment(aws_url),
    )
    other = cloud.caller_of(OTHER)
    await put_large(aws_url, f"root/{USER}/data/large/file")
    assert (await cloud.caller.ask("GET", "/files/")).status == 200
    assert (await other.ask("GET", "/files/")).status == 200
    alone = await move_a_mebibyte(other, gateway)
    begun = [await cloud.caller.begin_upload(f"data/t/{n}", 10_000_000) for n in range(24)]
    portion = partial(trickle_portion, targets=iter(begun))
    async with (
        connected(cloud.port, cloud.token, [trickle, portion], 24) as uploads,
        connected(cloud.port, cloud.token, [clients.stop_in_download], 260) as downloads,
    ):
        await eventually(lambda: transfers_begun(gateway, len(uploads) + len(downloads)))
        beside = await move_a_mebibyte(other, gateway)
    assert max(beside) < max(alone) + STARTED * slowness()


async def move_a_mebibyte(caller: Caller, gateway: Process) -> list[float]:
    """Seconds that an upload, a resumable one and a download take."""
    content = bytes(1 << 20)
    with Elapsed(gateway) as uploading:
        upload = await caller.upload("data/x", "f", content)
    with Elapsed(gateway) as resuming:
        target = await caller.begin_upload("data/x/g", len(content))
        sent = await caller.send_portion(target, 0, content)
    with Elapsed(gateway) as downloading:
        download = await caller.ask("GET", "/files/data/x/f/download")
    assert (upload.status, sent.status, download.status) == (201, 204, 200)
    assert len(download.body) == len(content)
    return [uploading.seconds, resuming.seconds, downloading.seconds]


async def put_large(aws_url: str, key: str) -> None:
    s3 = aws.client("s3", aws_url)
    await asyncio.to_thread(s3.put_object, Bucket="fair-shares", Key=key, Body=bytes(LARGE))
    s3.close()


async def transfers_begun(process: Process, number: int) -> Any:
    """Whether so many have begun, lent slots included."""
    metric = 'opencloud_transfers_in_flight{direction="%s"}'
    begun = [await process.metric(metric % direction) for direction in ("in", "out")]
    return sum(begun) >= number
