"""A disk that fills up during uploads: a small file system of the gateway's own."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from devtools.services import Process
from devtools.waiting import eventually, meanwhile
from tests.support.cloud import USER, Answer, Cloud, on_sqlite
from tests.support.tus import PORTION

SIZE = 8 << 20
MEBIBYTE = 1 << 20

MOUNT = 'mount -t tmpfs -o size={size},mode=777 tmpfs {place} && exec "$0" "$@"'


def on_small_disk(place: Path) -> list[str]:
    """A prefix that runs a command with a small private file system at `place`.

    Without root it needs an unprivileged user namespace, which most systems allow.
    """
    place.mkdir(parents=True)
    rights = ["-m"] if os.geteuid() == 0 else ["-m", "-r"]
    prefix = ["unshare", *rights, "sh", "-c", MOUNT.format(size=SIZE, place=place)]
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"this system lets nobody mount a file system: {tried.stderr.strip()}")
    return prefix


def tree_of(process: Process, cloud: Cloud) -> Path:
    """Users' trees as the process sees them."""
    return Path(f"/proc/{process.pid}/root{cloud.root}")


def stored(root: Path) -> dict[str, int]:
    """Every file that is left, what is staged included, with its size."""
    found = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.stat().st_size for path in found}


def assert_is_full(answer: Answer) -> None:
    assert answer.status == 507
    assert "not enough space left" in answer.text


@on_sqlite
async def test_a_disk_that_fills_up_during_uploads_keeps_nothing_of_them(cloud: Cloud) -> None:
    caller = cloud.caller
    gateway = await cloud.gateway(prefix=on_small_disk(cloud.root))
    root = tree_of(gateway, cloud)
    assert (await caller.upload("data/x", "kept", b"k" * 3 * MEBIBYTE)).status == 201
    before = stored(root)
    assert before == {f"{USER}/data/x/kept": 3 * MEBIBYTE}

    assert_is_full(await caller.upload("data/new/deep", "large", b"l" * 12 * MEBIBYTE))
    assert_is_full(await caller.upload("data/x", "kept", b"o" * 12 * MEBIBYTE))
    assert stored(root) == before
    assert (root / USER / "data/x/kept").read_bytes() == b"k" * 3 * MEBIBYTE
    listing = await caller.ask("GET", "/files/data/?recursive=true")
    assert "large" not in listing.text

    answers = await asyncio.gather(
        *(caller.upload("data/many", f"{number}", b"m" * 2 * MEBIBYTE) for number in range(6))
    )
    taken = [f"{number}" for number, answer in enumerate(answers) if answer.status == 201]
    for answer in answers:
        if answer.status != 201:
            assert_is_full(answer)
    assert len(taken) < 3
    many = {f"{USER}/data/many/{name}": 2 * MEBIBYTE for name in taken}
    assert stored(root) == before | many

    # to the last byte
    number = 0
    while (answer := await caller.upload("data/rest", f"{number}", b"r" * 300_000)).status == 201:
        number += 1
    assert_is_full(answer)
    assert (await caller.submit("job"))[0] == 201
    assert (await caller.ask("GET", "/files/data/x/kept/download")).status == 200
    assert await gateway.probe("/readyz") == 200

    assert (await caller.ask("DELETE", "/files/data/")).status == 204
    await eventually(lambda: stored(root) == {})
    assert (await caller.upload("data/x", "after", b"a" * 3 * MEBIBYTE)).status == 201
    assert "request.failed" not in gateway.output


@on_sqlite
async def test_a_disk_that_fills_up_during_resumable_uploads_keeps_what_goes_on(
    cloud: Cloud,
) -> None:
    caller = cloud.caller
    gateway = await cloud.gateway(prefix=on_small_disk(cloud.root))
    root = tree_of(gateway, cloud)
    content = os.urandom(7 * MEBIBYTE)
    assert (await caller.upload("data/x", "kept", b"k" * 2 * MEBIBYTE)).status == 201
    before = stored(root)

    target, other = [await caller.begin_upload(f"data/new/{n}", len(content)) for n in range(2)]
    assert_is_full(await caller.send_portion(target, 0, content))
    offset = await caller.offset_of(target)
    assert offset > 4 * MEBIBYTE
    assert_is_full(await caller.send_portion(other, 0, content))
    assert (await caller.ask("GET", "/files/data/new")).status == 404
    assert (await caller.ask_tus("DELETE", other)).status == 204

    assert (await caller.ask("DELETE", "/files/data/x/kept")).status == 204
    assert (await caller.send_portion(target, offset, content[offset:])).status == 204
    assert (root / USER / "data/new/0").read_bytes() == content
    target = await caller.begin_upload("data/new/2", 4 * MEBIBYTE)
    assert_is_full(await caller.send_portion(target, 0, bytes(4 * MEBIBYTE)))
    assert (await caller.ask_tus("DELETE", target)).status == 204
    assert stored(root) == {f"{USER}/data/new/0": len(content)} != before
    assert "request.failed" not in gateway.output


async def slowly(size: int) -> AsyncIterator[bytes]:
    """Bytes of which there are `size`."""
    for _ in range(0, size, MEBIBYTE // 4):
        yield b"x" * (MEBIBYTE // 4)
        await asyncio.sleep(0.01)


async def send_form(cloud: Cloud, name: str) -> Answer:
    """Upload a file whose length is not announced."""

    async def form() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        async for piece in slowly(2 * MEBIBYTE):
            yield piece
        yield b"\r\n--b--\r\n"

    headers = {**cloud.caller.headers, "Content-Type": "multipart/form-data; boundary=b"}
    path = f"/files/data/{name}/upload"
    return await cloud.caller.ask("POST", path, data=form(), headers=headers)


async def send_portion(cloud: Cloud, name: str) -> Answer:
    """The same, resumable; it is given up if it is refused."""
    created = await cloud.caller.create_upload(f"data/{name}/f", 2 * MEBIBYTE)
    if created.status != 201:
        return created
    target = urlsplit(created.headers["Location"]).path
    headers = {"Upload-Offset": "0", "Content-Type": PORTION}
    data = slowly(2 * MEBIBYTE)
    answer = await cloud.caller.ask_tus("PATCH", target, headers, data=data)
    if answer.status != 204:
        assert (await cloud.caller.ask_tus("DELETE", target)).status == 204
    return answer


@on_sqlite
@pytest.mark.parametrize(("send", "done"), [(send_form, 201), (send_portion, 204)])
async def test_uploads_at_once_leave_what_must_stay_free(
    cloud: Cloud, send: Callable[[Cloud, str], Awaitable[Answer]], done: int
) -> None:
    least = 4 * MEBIBYTE
    gateway = await cloud.gateway(prefix=on_small_disk(cloud.root), MIN_FREE_BYTES=least)
    root = tree_of(gateway, cloud)
    lowest = SIZE

    async def watch() -> None:
        nonlocal lowest
        while True:
            facts = os.statvfs(root)
            lowest = min(lowest, facts.f_bavail * facts.f_frsize)
            await asyncio.sleep(0.001)

    async with meanwhile(watch()):
        answers = await asyncio.gather(*(send(cloud, str(n)) for n in range(4)))
    for answer in answers:
        if answer.status != done:
            assert_is_full(answer)
    taken = [answer for answer in answers if answer.status == done]
    assert len(taken) < 4
    assert list(stored(root).values()) == [2 * MEBIBYTE] * len(taken)
    assert lowest >= least
    assert_is_full(await cloud.caller.upload("data/x", "large", b"l" * least))
