"""Limits on bytes hold on every way in, and everything that is stored is counted."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deploy.sandbox import aws
from devtools.user_pool import USER, Issuer
from devtools.waiting import eventually
from tests.support.cloud import Answer, Cloud
from tests.support.dispatcher import FakePeer
from tests.support.key_server import KeyServer

MEBIBYTE = 1 << 20
LARGEST = 2 * MEBIBYTE
QUOTA = 5 * MEBIBYTE


@dataclass
class Place:
    """Where users' files are, as workers see it."""

    cloud: Cloud
    bucket: Any = None

    def put(self, path: str, size: int) -> None:
        if self.bucket is None:
            self.cloud.plant(path, b"w" * size)
        else:
            self.bucket.put_object(Bucket="files", Key=f"users/{USER}/{path}", Body=b"w" * size)

    def stored(self) -> int:
        if self.bucket is None:
            files = (path for path in self.cloud.root.rglob("*") if path.is_file())
            return sum(path.stat().st_size for path in files)
        found = self.bucket.list_objects_v2(Bucket="files").get("Contents", ())
        return sum(item["Size"] for item in found)


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with aws.moto_server() as url:
        yield url


@pytest.fixture(params=["local-sqlite", "s3-postgresql"])
async def place(
    request: pytest.FixtureRequest, issuer: Issuer, key_server: KeyServer, tmp_path: Path
) -> AsyncIterator[Place]:
    storage, database = request.param.split("-")
    url = request.getfixturevalue(f"{database}_url")
    settings: dict[str, Any] = {}
    client = None
    if storage == "s3":
        endpoint = request.getfixturevalue("s3_url")
        aws.create_bucket(endpoint, "files")
        client = aws.client("s3", endpoint)
        settings = {"FILESYSTEM": "s3", "S3_BUCKET": "files", "USER_DATA_ROOT_PATH": "users"}
        settings |= aws.environment(endpoint)
    async with (
        Cloud(url, tmp_path, issuer, key_server.url, **settings) as cloud,
        FakePeer().served() as peer,
    ):
        cloud.peer_url = peer.url
        yield Place(cloud, client)
    if client is not None:
        client.close()


async def upload_chunked(cloud: Cloud, name: str, *parts: tuple[str, str, int]) -> Answer:
    """Upload parts (name, file name if any, size) without announcing a length."""

    async def body() -> AsyncIterator[bytes]:
        for field, filename, size in parts or [("file", name, 0)]:
            shown = f'; filename="{filename}"' if filename else ""
            yield f'--b\r\nContent-Disposition: form-data; name="{field}"{shown}\r\n\r\n'.encode()
            for sent in range(0, size, MEBIBYTE):
                yield b"x" * min(MEBIBYTE, size - sent)
                await asyncio.sleep(0.01)
            yield b"\r\n"
        yield b"--b--\r\n"

    headers = {
        "Authorization": f"Bearer {cloud.token}",
        "Content-Type": "multipart/form-data; boundary=b",
    }
    return await cloud.caller.ask("POST", "/files/data/in/upload", data=body(), headers=headers)


async def used(cloud: Cloud) -> int:
    answer = await cloud.caller.ask("GET", "/user/usage")
    return int(json.loads(answer.body)["bytes"]["used"])


async def test_limits_hold_on_every_way_in_and_all_that_is_stored_is_counted(
    place: Place,
) -> None:
    cloud = place.cloud
    await cloud.gateway(MAX_UPLOAD_BYTES=LARGEST, MAX_USER_BYTES=QUOTA)
    dispatcher = cloud.dispatcher(USAGE_INTERVAL=1)
    await dispatcher.wait_until_ready()

    # one file, announced and not, and parts that are no file
    assert (await cloud.caller.upload("data/in", "a", b"x" * (LARGEST + 1))).status == 413
    assert (await upload_chunked(cloud, "a", ("file", "a", LARGEST + 1))).status == 413
    around = [("note", "", 2 * MEBIBYTE), ("file", "a", 10)]
    assert (await upload_chunked(cloud, "a", *around)).status == 422
    assert (await upload_chunked(cloud, "a", *reversed(around))).status == 422
    assert place.stored() == 0

    # four at once, of which the quota takes two
    answers = await asyncio.gather(
        *(upload_chunked(cloud, f"{n}", ("file", f"{n}", LARGEST)) for n in range(4))
    )
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {201, 413}
    assert statuses.count(201) <= 2
    await eventually(lambda: place.stored() == statuses.count(201) * LARGEST)

    # a measurement beside an upload may count it twice, until the next one
    async def is_full() -> bool:
        if (await upload_chunked(cloud, "more", ("file", "more", LARGEST))).status == 201:
            await cloud.caller.ask(
                "PUT", "/files/data/in/more", json={"path": f"data/in/{statuses.count(201)}-more"}
            )
            statuses.append(201)
        return await used(cloud) == place.stored() == 2 * LARGEST

    await eventually(is_full)
    assert (await upload_chunked(cloud, "more", ("file", "more", LARGEST))).status == 413

    # a link takes what is left
    link = json.loads((await cloud.caller.ask("POST", "/files/data/in/url")).body)
    if place.bucket is not None:
        policy = json.loads(base64.b64decode(link["data"]["policy"]))
        left = min(LARGEST, QUOTA - 2 * LARGEST)
        assert ["content-length-range", 0, left] in policy["conditions"]
    form = aiohttp.FormData(link["data"])
    form.add_field("file", b"p" * MEBIBYTE, filename="posted")
    async with aiohttp.request(
        link["method"], link["url"], headers=link["headers"], data=form
    ) as answer:
        assert answer.status in {201, 204}
    place.put("output/result", 1_000)

    async def is_counted() -> bool:
        return await used(cloud) == 2 * LARGEST + MEBIBYTE + 1_000

    await eventually(is_counted)
    assert await used(cloud) == place.stored()
    refused = await cloud.caller.ask("POST", "/files/data/in/url")
    assert refused.status == 413
    assert f"at most {QUOTA} bytes" in refused.text
    assert f"and {place.stored()} bytes are in use" in refused.text

    assert (await cloud.caller.ask("DELETE", "/files/data/")).status == 204

    async def is_freed() -> bool:
        return await used(cloud) == 1_000

    await eventually(is_freed)
    assert (await upload_chunked(cloud, "b", ("file", "b", LARGEST))).status == 201
    assert await dispatcher.metric("opencloud_usage_measurement_seconds_count") >= 1
