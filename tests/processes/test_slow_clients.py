"""Hundreds of slow clients and of clients that disconnect, beside working ones."""

import asyncio
from collections.abc import Iterator
from functools import partial

import pytest

from common.database.engine import Database
from common.database.tables import handovers, jobs
from deploy.sandbox import aws
from devtools.services import Process
from devtools.waiting import eventually
from tests.support import clients
from tests.support.clients import Client, connected
from tests.support.cloud import USER, Cloud, on_postgresql, on_sqlite, orphans
from tests.support.records import rows
from tests.support.slowness import Elapsed, slowness

TIMEOUT = 4.0
OF_EACH = 250
LARGE = 16 << 20
STEPS = 20
"""Pieces of a slow transfer, which takes longer in all than `CLIENT_TIMEOUT`."""

GROWTH = 320.0
"""MiB that a thousand slow clients may take: a gateway's container has 512."""

USUAL_LIMIT = ("sh", "-c", 'ulimit -Sn 1024; exec "$0" "$@"')
"""Open files: what shells allow a program until it asks for more."""

KINDS = (
    clients.stop_in_head,
    clients.stop_in_upload,
    clients.stop_in_submission,
    clients.stop_in_download,
)


@pytest.fixture(autouse=True)
def may_open_many_files() -> Iterator[None]:
    with clients.many_files(4 * OF_EACH + 500):
        yield


def plant_large_file(cloud: Cloud) -> bytes:
    content = bytes(range(256)) * (LARGE // 256)
    cloud.plant("data/large/file", content)
    return content


def staged(cloud: Cloud) -> list[str]:
    return [path.name for path in (cloud.root / ".opencloud-staging").glob("*")]


async def settled(cloud: Cloud, process: Process, files: int) -> bool:
    """Whether nothing is under way any more."""
    open_requests = await process.metric("opencloud_requests_in_flight")
    return open_requests == 0 and process.files <= files and not staged(cloud)


async def upload_steadily(cloud: Cloud) -> bytes:
    """The response to a slow upload."""
    client = Client(cloud.port, cloud.token)
    await client.connect()
    await client.begin_upload("steady", STEPS * 100)
    for _ in range(STEPS):
        await client.send(b"x" * 100)
        await asyncio.sleep(1.4 * TIMEOUT / STEPS)
    await client.send(clients.END)
    answer = await client.read()
    client.close()
    return answer


async def download_steadily(cloud: Cloud) -> bytes:
    """The response to a slow download."""
    client = Client(cloud.port, cloud.token)
    await client.connect()
    await client.begin("GET", "/files/data/large/file/download", 0, "Connection: close")
    found = bytearray()
    for step in range(STEPS):
        while len(found) < step * LARGE // STEPS:
            piece = await client.read()
            assert piece
            found += piece
        await asyncio.sleep(1.4 * TIMEOUT / STEPS)
    found += await client.read_all()
    client.close()
    return bytes(found)


@on_sqlite
async def test_a_thousand_slow_clients_cost_little_and_delay_nobody(cloud: Cloud) -> None:
    content = plant_large_file(cloud)
    gateway = await cloud.gateway(
        CLIENT_TIMEOUT=TIMEOUT, MAX_CONCURRENT_REQUESTS=0, prefix=USUAL_LIMIT
    )
    assert (await cloud.caller.submit("before"))[0] == 201
    memory, files = gateway.memory, gateway.files + 5
    steady = [
        asyncio.ensure_future(upload_steadily(cloud)),
        asyncio.ensure_future(download_steadily(cloud)),
    ]
    async with connected(cloud.port, cloud.token, KINDS, OF_EACH) as slow:
        # on a busy machine the first ones time out before the last ones connect
        assert gateway.files > 2 * OF_EACH
        with Elapsed(gateway) as elapsed:
            others = await asyncio.gather(
                cloud.caller.ask("GET", "/"),
                cloud.caller.ask("GET", "/files/?recursive=true"),
                cloud.caller.ask("GET", "/jobs"),
                cloud.caller.upload("data/x", "f", b"content"),
            )
        assert [answer.status for answer in others] == [200, 200, 200, 201]
        assert elapsed.seconds < 2.0 * slowness()
        job_status, job_id = await cloud.caller.submit("meanwhile")
        assert job_status == 201
        assert await cloud.caller.report(job_id, "running") == 200
        assert gateway.memory < memory + GROWTH
        ends = await asyncio.gather(*(client.read_all() for client in slow[: 3 * OF_EACH]))
        uploads, submissions = ends[OF_EACH : 2 * OF_EACH], ends[2 * OF_EACH :]
        assert all(end.startswith(b"HTTP/1.1 408 ") for end in uploads)
        given_up = {b"HTTP/1.1 408 ", b"HTTP/1.1 429 ", b"HTTP/1.1 503 "}
        assert {end[:13] for end in submissions if end} <= given_up
        # downloads of which nothing is read time out as well
        await eventually(lambda: gateway.output.count('"owed":"answer"') == OF_EACH)
    upload, download = await asyncio.gather(*steady)
    assert upload.startswith(b"HTTP/1.1 201 ")
    assert download.endswith(b"\r\n\r\n" + content)
    await eventually(lambda: settled(cloud, gateway, files))
    assert gateway.memory < memory + GROWTH
    assert "request.failed" not in gateway.output


@on_sqlite
async def test_slow_downloads_from_s3_delay_nobody(cloud: Cloud, aws_url: str) -> None:
    aws.create_bucket(aws_url, "slow-downloads")
    gateway = await cloud.gateway(
        MAX_CONCURRENT_REQUESTS=0,
        FILESYSTEM="s3",
        S3_BUCKET="slow-downloads",
        USER_DATA_ROOT_PATH="root",
        **aws.environment(aws_url),
    )
    s3 = aws.client("s3", aws_url)
    key = f"root/{USER}/data/large/file"
    await asyncio.to_thread(s3.put_object, Bucket="slow-downloads", Key=key, Body=bytes(LARGE // 2))
    s3.close()
    assert (await cloud.caller.ask("GET", "/files/")).status == 200
    memory = gateway.memory
    async with connected(cloud.port, cloud.token, [clients.stop_in_download], 120) as slow:
        with Elapsed(gateway) as elapsed:
            listing = await cloud.caller.ask("GET", "/files/data/large/")
            upload = await cloud.caller.upload("data/x", "f", b"content")
        assert (listing.status, upload.status) == (200, 201)
        assert elapsed.seconds < 5.0 * slowness()
        assert gateway.files > 2 * len(slow)  # all of them are under way
        assert gateway.memory < memory + GROWTH


@on_postgresql
async def test_hundreds_of_clients_that_disconnect_leave_nothing_behind(
    cloud: Cloud, database: Database
) -> None:
    plant_large_file(cloud)
    gateway = await cloud.gateway(MAX_CONCURRENT_REQUESTS=0)
    files = gateway.files + 5
    memory = []
    for turn in range(3):
        kinds = [
            clients.stop_in_upload,
            clients.stop_in_download,
            clients.stop_in_submission,
            clients.stop_in_head,
            partial(clients.submit, name=f"job-{turn}"),
        ]
        async with connected(cloud.port, cloud.token, kinds, 100) as leaving:
            for client in leaving:
                client.abort()
        await eventually(lambda: settled(cloud, gateway, files))
        memory.append(gateway.memory)
    assert memory[-1] < memory[1] + 60.0  # what 100 bodies that stay would exceed
    assert await orphans(database) == 0
    there = [row["id"] for row in await rows(database, jobs)]
    assert len(there) <= 4
    assert [row["job_id"] for row in await rows(database, handovers)] == there
    assert not (cloud.root / USER / "data" / "slow" / "stopped").exists()
    assert "request.failed" not in gateway.output
    assert (await cloud.caller.submit("afterwards"))[0] == 201
