"""Clients of tus as they are: tuspy, aiotus, and tus-js-client in a browser's page."""

import asyncio
import base64
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from devtools.user_pool import USER
from devtools.waiting import eventually
from tests.support.browser import Page, open_page
from tests.support.cloud import Cloud, on_sqlite
from tests.support.tools import needs, needs_file, script, tool

MEBIBYTE = 1 << 20
SLOW = 24 * MEBIBYTE
TUS_JS = "tus-js-client/dist/tus.min.js"

TUSPY = """
import sys
from tusclient.client import TusClient
url, token, name = sys.argv[1:]
client = TusClient(url, headers={"Authorization": f"Bearer {token}"})
uploader = client.uploader(
    name, chunk_size=1 << 20, metadata={"path": "data/tuspy.bin"}, upload_checksum=True
)
uploader.upload(stop_at=3 << 20)
again = client.uploader(name, chunk_size=4 << 20, url=uploader.url)
assert again.offset == 3 << 20
again.upload()
"""
AIOTUS = """
import asyncio, sys, aiotus
url, token, name = sys.argv[1:]
async def main():
    headers = {"Authorization": f"Bearer {token}"}
    with open(name, "rb") as file:
        location = await aiotus.upload(
            url, file, {"path": b"data/aiotus.bin"}, headers=headers, chunksize=1 << 20
        )
    assert location is not None
    found = await aiotus.metadata(location, headers=headers)
    assert found == {"path": b"data/aiotus.bin"}, found
asyncio.run(main())
"""
FILE = """(size, name) => {
    const words = new Uint32Array(size / 4)
    let word = 7
    for (let i = 0; i < words.length; i++) words[i] = word = Math.imul(word, 1664525) + 1013904223
    window.file = new File([words], name, {lastModified: 1})
    window.digest = crypto.subtle.digest("SHA-256", words).then(
        found => btoa(String.fromCharCode(...new Uint8Array(found))))
}"""
BEGIN = """(options) => {
    window.seen = {sent: 0}
    window.upload = new tus.Upload(window.file, {
        retryDelays: Array(1000).fill(100),
        onProgress: sent => { seen.first ??= sent; seen.sent = sent },
        onError: error => { seen.error = String(error) },
        onSuccess: ({lastResponse}) => { seen.digest = lastResponse.getHeader("Repr-Digest") },
        ...options,
    })
}"""
CHANGE = """() => {
    upload.options.onBeforeRequest = request => {
        request.getUnderlyingObject().withCredentials = true
    }
}"""
RESUME = """async () => {
    const [previous] = await upload.findPreviousUploads()
    upload.resumeFromPreviousUpload(previous)
    upload.start()
}"""


@on_sqlite
@pytest.mark.parametrize(
    ("script", "path"),
    [(TUSPY, "data/tuspy.bin"), (AIOTUS, "data/aiotus.bin")],
    ids=["tuspy", "aiotus"],
)
async def test_clients_of_the_protocol_work_as_they_are(
    cloud: Cloud, tmp_path: Path, script: str, path: str
) -> None:
    await cloud.gateway()
    content = os.urandom(5 * MEBIBYTE + 3)
    file = tmp_path / "file.bin"
    file.write_bytes(content)
    arguments = (f"{cloud.url}/uploads", cloud.token, str(file))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert (cloud.root / USER / path).read_bytes() == content


@asynccontextmanager
async def page_with_file(front_end: str, profile: Path, size: int) -> AsyncIterator[Page]:
    """A page of the front end that has the client, and a file."""
    async with open_page(tool("chromium"), profile) as page:
        await open_front_end(page, front_end, size)
        yield page


async def open_front_end(page: Page, front_end: str, size: int) -> None:
    await page.open(front_end)
    await page.run(script(TUS_JS) + "; undefined")
    await page.run(f"({FILE})({size}, 'zellen µ 😀.tif')")


async def begin(page: Page, cloud: Cloud, path: str, **options: Any) -> None:
    """Prepare an upload of the page's file; `options` are the client's."""
    base = {
        "endpoint": f"http://localhost:{cloud.port}/uploads",
        "headers": {"Authorization": f"Bearer {cloud.token}"},
        "metadata": {"path": path},
    }
    await page.run(f"({BEGIN})({orjson.dumps(base | options).decode()})")


async def end_of(page: Page) -> dict[str, Any]:
    """What the page knows once the upload has ended."""
    await page.until("seen.error || seen.digest !== undefined")
    seen: dict[str, Any] = await page.run("seen")
    return seen


async def assert_stored(page: Page, cloud: Cloud, path: str) -> None:
    seen = await end_of(page)
    digest = await page.run("digest")
    assert seen.get("digest") == f"sha-256=:{digest}:", seen
    content = (cloud.root / USER / path).read_bytes()
    assert base64.b64encode(hashlib.sha256(content).digest()).decode() == digest


in_browser = needs("chromium")
with_client = needs_file(TUS_JS)


@in_browser
@with_client
@on_sqlite
async def test_a_page_of_the_front_end_uploads_files(
    cloud: Cloud, front_end: str, tmp_path: Path
) -> None:
    await cloud.gateway(FRONTEND_URL=front_end)
    cases: list[dict[str, Any]] = [
        {},
        {"chunkSize": MEBIBYTE},
        {"uploadDataDuringCreation": True},
        {"uploadDataDuringCreation": True, "chunkSize": MEBIBYTE},
        {"overridePatchMethod": True, "chunkSize": 2 * MEBIBYTE},
        {"metadata": {"dir": "data/bilder", "filename": "zellen µ 😀.tif"}},
    ]
    async with page_with_file(front_end, tmp_path / "profile", 5 * MEBIBYTE + 12) as page:
        for number, options in enumerate(cases):
            path = f"data/größe {number}/😀.tif"
            await begin(page, cloud, path, **options)
            await page.run("upload.start()")
            if "metadata" in options:
                path = "data/bilder/zellen µ 😀.tif"
            await assert_stored(page, cloud, path)

        # with the log-in cookie instead of a token
        await page.run(f'document.cookie = `Authorization="Bearer {cloud.token}"`')
        await begin(page, cloud, "data/by-cookie", headers={}, chunkSize=MEBIBYTE)
        await page.run(f"({CHANGE})()")
        await page.run("upload.start()")
        await assert_stored(page, cloud, "data/by-cookie")


@in_browser
@with_client
@on_sqlite
async def test_a_page_goes_on_after_cuts_of_every_kind(
    cloud: Cloud, front_end: str, tmp_path: Path
) -> None:
    gateway = await cloud.gateway(FRONTEND_URL=front_end)
    async with page_with_file(front_end, tmp_path / "profile", SLOW) as page:
        await page.call("Network.enable")
        await limit(page, 6 * MEBIBYTE)
        await begin(page, cloud, "data/large")
        await page.run("upload.start()")
        await page.until(f"seen.sent > {4 * MEBIBYTE}")
        gateway.kill()
        await cloud.gateway(FRONTEND_URL=front_end)
        await page.run("seen.first = undefined")
        await page.until(f"seen.first > {2 * MEBIBYTE}")
        stored = await confirmed(cloud, await page.run("upload.url"), 8 * MEBIBYTE)

        await page.run("upload.abort()")
        await open_front_end(page, front_end, SLOW)  # as if it had been reloaded
        await limit(page, -1)
        await begin(page, cloud, "data/large")
        await page.run(f"({RESUME})()")
        await assert_stored(page, cloud, "data/large")
        assert await page.run("seen.first") >= stored


async def confirmed(cloud: Cloud, url: str, least: int) -> int:
    """The offset of the upload, once it is so far; what a page has sent may be in its buffers."""

    async def offset() -> int:
        found = await cloud.caller.offset_of(urlsplit(url).path)
        return found if found >= least else 0

    return await eventually(offset)


@in_browser
@with_client
@on_sqlite
async def test_a_page_can_end_an_upload_and_sees_why_one_is_refused(
    cloud: Cloud, front_end: str, tmp_path: Path
) -> None:
    await cloud.gateway(FRONTEND_URL=front_end, MAX_UPLOAD_BYTES=SLOW)
    async with page_with_file(front_end, tmp_path / "profile", SLOW) as page:
        await page.call("Network.enable")
        await limit(page, 6 * MEBIBYTE)
        await begin(page, cloud, "data/ended")
        await page.run("upload.start()")
        await page.until(f"seen.sent > {2 * MEBIBYTE}")
        url = await page.run("upload.url")
        await page.run("upload.abort(true)")
        target = url.removeprefix(f"http://localhost:{cloud.port}")
        assert (await cloud.caller.ask_tus("HEAD", target)).status == 404
        assert list((cloud.root / ".opencloud-staging").iterdir()) == []

        await limit(page, -1)
        await begin(page, cloud, "data/parallel", parallelUploads=2, retryDelays=None)
        await page.run("upload.start()")
        error = (await end_of(page))["error"]
        assert "response code: 400" in error
        assert "Uploads are not concatenated" in error
        await begin(page, cloud, "data/../x", retryDelays=None)
        await page.run("upload.start()")
        assert "response code: 422" in (await end_of(page))["error"]
        await page.run(f"({FILE})({SLOW + 4}, 'larger')")
        await begin(page, cloud, "data/larger", retryDelays=None)
        await page.run("upload.start()")
        assert "response code: 413" in (await end_of(page))["error"]
        assert list((cloud.root / ".opencloud-staging").iterdir()) == []


async def limit(page: Page, rate: int) -> None:
    """Let the page send so many bytes per second; -1: any number."""
    await page.call(
        "Network.emulateNetworkConditions",
        offline=False, latency=0, downloadThroughput=-1, uploadThroughput=rate,
    )  # fmt: skip
