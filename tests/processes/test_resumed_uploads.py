"""Resumable uploads through gateways that are killed and connections that are cut."""

import asyncio
import hashlib
import itertools
import os
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import boto3
import orjson
import pytest
from sqlalchemy import func, select, update

from common.database.engine import Database, utc_now
from common.database.tables import uploads
from deploy.sandbox import aws
from deploy.sandbox.ports import free_port
from devtools.services import Process
from devtools.waiting import eventually
from tests.support.cloud import Cloud, on_sqlite
from tests.support.dispatcher import FakePeer
from tests.support.tus import PORTION, checksum, metadata, repr_digest

MEBIBYTE = 1 << 20
SIZE = int(os.environ.get("TEST_UPLOAD_MIB", "96")) * MEBIBYTE
CUTS = 12
KILLED = 3
"""Every third connection that is cut takes its gateway with it."""

MOST_RESENT = 40 * MEBIBYTE + SIZE // 20
"""Bytes that may be sent twice: with each kill what the system holds and what moves in a twentieth
of a second, on S3 up to three parts in flight and one that is not whole."""

SLICE = 1 << 16


@pytest.fixture(params=["local", "s3"])
async def place(request: pytest.FixtureRequest, cloud: Cloud) -> AsyncIterator[dict[str, str]]:
    """Settings of the storage."""
    if request.param == "local":
        yield {}
        return
    with aws.moto_server() as url:
        aws.create_bucket(url, "files")
        s3 = {"FILESYSTEM": "s3", "S3_BUCKET": "files", "USER_DATA_ROOT_PATH": "users"}
        yield {**s3, **aws.environment(url)}


@dataclass
class Client:
    """A client that goes on wherever it can, and counts what it has sent."""

    token: str
    target: str
    content: bytes
    sent: int = 0

    def head(self, method: str, *lines: str) -> bytes:
        common = (f"Authorization: Bearer {self.token}", "Tus-Resumable: 1.0.0", "Host: test")
        return "\r\n".join((f"{method} {self.target} HTTP/1.1", *common, *lines, "", "")).encode()

    async def ask(self, port: int, head: bytes) -> dict[str, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(head)
            return await _headers(reader)
        finally:
            writer.close()

    async def offset(self, port: int) -> int:
        answer = await self.ask(port, self.head("HEAD"))
        assert answer["status"] == "200", answer
        return int(answer["upload-offset"])

    async def until_free(self, port: int) -> int:
        """Where the upload stands, once nobody writes to it any more."""
        while True:
            offset = await self.offset(port)
            lines = (f"Upload-Offset: {offset}", f"Content-Type: {PORTION}", "Content-Length: 0")
            answer = await self.ask(port, self.head("PATCH", *lines))
            if answer["status"] == "204":
                return offset
            assert answer["status"] in {"423", "409"}, answer
            await asyncio.sleep(0.05)

    async def send(
        self, port: int, offset: int, most: int, *, killed: Process | None = None
    ) -> dict[str, str]:
        """Send all that is left, or `most` of it; the answer, empty if there was none."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        length = len(self.content) - offset
        lines = (f"Upload-Offset: {offset}", f"Content-Type: {PORTION}")
        end = min(len(self.content), offset + most)
        try:
            writer.write(self.head("PATCH", *lines, f"Content-Length: {length}"))
            for begin in range(offset, end, SLICE):
                writer.write(self.content[begin : min(end, begin + SLICE)])
                await writer.drain()
                self.sent += min(end, begin + SLICE) - begin
            if killed is not None:
                killed.kill()
            return await _headers(reader) if end == len(self.content) else {}
        finally:
            writer.close()


async def _headers(reader: asyncio.StreamReader) -> dict[str, str]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    found = {"status": head[0].split()[1]}
    for line in filter(None, head[1:]):
        name, _, value = line.partition(": ")
        found[name.lower()] = value
    return found


async def begin(cloud: Cloud, content: bytes, path: str) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    return await cloud.caller.begin_upload(path, len(content), sha256=sha256)


@pytest.mark.timeout(180 + SIZE // MEBIBYTE)
async def test_a_file_survives_cut_connections_and_killed_gateways(
    cloud: Cloud, place: dict[str, str]
) -> None:
    chance, content = random.Random(7), os.urandom(SIZE)
    ports = [cloud.port, free_port()]
    started = await asyncio.gather(*(cloud.gateway(PORT=port, **place) for port in ports))
    gateways: dict[int, Process] = dict(zip(ports, started, strict=True))
    client = Client(cloud.token, await begin(cloud, content, "data/a.bin"), content)
    answer: dict[str, str] = {}
    for turn in itertools.count():
        port = ports[turn % 2]
        offset = await client.until_free(port)
        if offset == SIZE:
            break
        is_cut = turn < CUTS and offset < SIZE - SIZE // CUTS
        most = chance.randrange(SIZE // (4 * CUTS), SIZE // CUTS) if is_cut else SIZE
        killed = gateways[port] if is_cut and turn % KILLED == 1 else None
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            answer = await client.send(port, offset, most, killed=killed)
        if killed is not None:
            gateways[port] = await cloud.gateway(PORT=port, **place)
    assert answer["status"] == "204"
    assert answer["repr-digest"] == repr_digest(content)
    download = await cloud.caller.ask("GET", "/files/data/a.bin/download")
    assert download.body == content
    assert client.sent - SIZE <= MOST_RESENT


async def test_a_dispatcher_ends_what_expires(
    cloud: Cloud, place: dict[str, str], peer: FakePeer, database: Database
) -> None:
    await cloud.gateway(**place)
    content = os.urandom(10 * MEBIBYTE)
    client = Client(cloud.token, await begin(cloud, content, "data/a.bin"), content)
    with suppress(ConnectionError):
        await client.send(cloud.port, 0, 9 * MEBIBYTE)
    await eventually(lambda: _has_offset(client, cloud.port, 8 * MEBIBYTE))
    assert _staged(cloud, place) != 0
    async with database.transaction() as tx:
        await tx.execute(update(uploads).values(expires_at=utc_now(-1.0)))
    cloud.dispatcher(**place)

    async def is_swept() -> bool:
        async with database.reading() as connection:
            swept = select(func.count()).where(uploads.c.swept_at.is_not(None))
            return bool((await connection.execute(swept)).scalar_one())

    await eventually(is_swept, within=60)
    assert _staged(cloud, place) == 0
    assert (await client.ask(cloud.port, client.head("HEAD")))["status"] == "410"


@on_sqlite
async def test_nothing_is_staged_of_what_ended(cloud: Cloud, place: dict[str, str]) -> None:
    await cloud.gateway(**place)
    caller, content = cloud.caller, os.urandom(9 * MEBIBYTE + 5)
    announced = {"sha256": hashlib.sha256(content).hexdigest()}
    given_up = await caller.begin_upload("data/a", len(content) + 1)
    assert (await caller.send_portion(given_up, 0, content)).status == 204
    wrong = await caller.begin_upload("data/b", len(content), **announced)
    assert (await caller.send_portion(wrong, 0, content[:-1])).status == 204
    right = await caller.begin_upload("data/c", len(content), **announced)
    assert (await caller.send_portion(right, 0, content[:5])).status == 204
    assert _staged(cloud, place) >= 3

    assert (await caller.ask_tus("DELETE", given_up)).status == 204
    last = b"x" if content[-1:] != b"x" else b"y"
    assert (await caller.send_portion(wrong, len(content) - 1, last)).status == 460
    assert (await caller.send_portion(right, 5, content[5:])).status == 204
    headers = {
        "Upload-Length": "3",
        "Upload-Metadata": metadata(path="data/d"),
        "Content-Type": PORTION,
        **checksum(b"other"),
    }
    assert (await caller.ask_tus("POST", "/uploads", headers, data=b"123")).status == 460
    assert _staged(cloud, place) == 0
    listing = await caller.ask("GET", "/files/data")
    assert [entry["path"] for entry in orjson.loads(listing.body)] == ["data/c"]


async def _has_offset(client: Client, port: int, offset: int) -> bool:
    return await client.offset(port) >= offset


def _staged(cloud: Cloud, place: dict[str, str]) -> int:
    """Uploads of which something is staged."""
    if not place:
        return len(list((cloud.root / ".opencloud-staging").glob("*")))
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    s3: Any = boto3.client(
        "s3", endpoint_url=place["AWS_ENDPOINT_URL"], region_name="eu-central-1", **keys
    )
    objects = s3.list_objects_v2(Bucket="files", Prefix="users/.opencloud-staging/")
    parts = s3.list_multipart_uploads(Bucket="files")
    return len(objects.get("Contents", ())) + len(parts.get("Uploads", ()))
