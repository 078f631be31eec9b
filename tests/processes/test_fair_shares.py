"""One user does its worst on real connections; others, and workers, are served as before.

Their requests have a second or half of one; the bounds here leave room for busy machines, and are
far below what others would wait for without shares.
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
from tests.support.cloud import USER, Cloud, on_sqlite
from tests.support.gateway import job_body

OTHER = "other-user"
FILES = 8_000
LARGE = 8 << 20
SOON = 3.0
"""Seconds."""

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
            answer = await other.ask("GET", path)
            assert answer.status == 200
            assert answer.seconds < SOON, path
        assert await used(gateway, "listing", "waiting")  # the work was still going on

    async def nothing_goes_on() -> bool:
        kinds = ("listing", "zip", "transfer")
        return not sum([await used(gateway, kind) for kind in kinds])

    async with asyncio.timeout(SOON):  # nobody waits any more for what would take much longer
        await eventually(nothing_goes_on)
    assert "request.failed" not in gateway.output


@on_sqlite
async def test_bodies_that_are_announced_only_keep_nobody_out(cloud: Cloud) -> None:
    await cloud.gateway(MAX_CONCURRENT_REQUESTS=0)
    other = cloud.caller_of(OTHER)
    _, job_id = await other.submit("before")
    async with connected(cloud.port, cloud.token, [announce_body], 500):
        long = job_body(job_name="long", **LONG)
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
        assert max(answer.seconds for answer in answers) < SOON
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
    begun = [await cloud.caller.begin_upload(f"data/t/{n}", 10_000_000) for n in range(24)]
    portion = partial(trickle_portion, targets=iter(begun))
    async with (
        connected(cloud.port, cloud.token, [trickle, portion], 24) as uploads,
        connected(cloud.port, cloud.token, [clients.stop_in_download], 260) as downloads,
    ):
        await eventually(lambda: transfers_begun(gateway, len(uploads) + len(downloads)))
        upload = await other.upload("data/x", "f", bytes(1 << 20))
        download = await other.ask("GET", "/files/data/x/f/download")
        assert (upload.status, download.status) == (201, 200)
        assert len(download.body) == 1 << 20
        target = await other.begin_upload("data/x/g", 1 << 20)
        sent = await other.send_portion(target, 0, bytes(1 << 20))
        assert sent.status == 204
        assert max(upload.seconds, download.seconds, sent.seconds) < SOON


async def put_large(aws_url: str, key: str) -> None:
    s3 = aws.client("s3", aws_url)
    await asyncio.to_thread(s3.put_object, Bucket="fair-shares", Key=key, Body=bytes(LARGE))
    s3.close()


async def transfers_begun(process: Process, number: int) -> Any:
    """Whether so many have begun, lent slots included."""
    metric = 'opencloud_transfers_in_flight{direction="%s"}'
    begun = [await process.metric(metric % direction) for direction in ("in", "out")]
    return sum(begun) >= number
