"""Archives that are unpacked by gateways that are killed, on full disks, and in little memory."""

import asyncio
import contextlib
import io
import random
import struct
import zlib
from pathlib import Path

import aiohttp

from devtools import proc
from devtools.waiting import eventually
from tests.processes.test_full_disks import assert_is_full, on_small_disk, stored, tree_of
from tests.support import archives
from tests.support.cloud import USER, Answer, Cloud, on_sqlite
from tests.support.gateway import multipart

FILES = 600
KILLS = 6
MEBIBYTE = 1 << 20
PATIENCE = aiohttp.ClientTimeout(total=120)


async def unpack(cloud: Cloud, archive: bytes, directory: str = "data/x") -> Answer:
    body, kind = multipart("archive", archive)
    headers = {**cloud.caller.headers, "Content-Type": kind}
    target = f"/files/{directory}/upload?unpack=true"
    return await cloud.caller.ask(
        "POST", target, data=io.BytesIO(body), headers=headers, timeout=PATIENCE
    )


def files_of(turn: int) -> dict[str, bytes]:
    """Each file says all over of which turn it is; some lie where files were before."""
    names = [f"old/{number}" for number in range(FILES)]
    names += [f"new-{turn}/{number}" for number in range(50)]
    return dict.fromkeys(names, b"%d" % turn * 500)


@on_sqlite
async def test_a_gateway_that_is_killed_leaves_each_file_whole(cloud: Cloud) -> None:
    chance = random.Random(1)
    tree = cloud.root / USER / "data/x"
    for turn in range(KILLS):
        gateway = await cloud.gateway()
        upload = asyncio.ensure_future(unpack(cloud, archives.tar(files_of(turn))))
        if turn:  # the first one is there
            await asyncio.to_thread(_wait_for_staged, cloud.root, upload)
            await asyncio.sleep(chance.random() * 0.15)
            gateway.kill()
        with contextlib.suppress(aiohttp.ClientError):
            await upload
        gateway.kill()
        for path in tree.rglob("*/*"):
            content = path.read_bytes()
            assert content == content[:1] * 500, path
        assert len(list((tree / "old").iterdir())) == FILES
        assert len(list((tree / f"new-{turn}").glob("*"))) in {0, 50}
    await cloud.gateway()
    assert (await unpack(cloud, archives.tar(files_of(9)))).status == 201
    assert {path.read_bytes()[:1] for path in (tree / "old").iterdir()} == {b"9"}


def _wait_for_staged(root: Path, upload: asyncio.Future[Answer]) -> None:
    while not upload.done() and not list((root / ".opencloud-staging").glob("bundle-*/tree/*")):
        pass


@on_sqlite
async def test_a_gateway_that_stops_finishes_what_it_unpacks(cloud: Cloud) -> None:
    gateway = await cloud.gateway()
    upload = asyncio.ensure_future(unpack(cloud, archives.tar(files_of(1))))
    await asyncio.to_thread(_wait_for_staged, cloud.root, upload)
    assert await gateway.terminate() == 0
    assert (await upload).status == 201
    assert len(list((cloud.root / USER / "data/x").rglob("*"))) == FILES + 50 + 2


@on_sqlite
async def test_a_disk_that_fills_up_keeps_nothing_of_an_archive(cloud: Cloud) -> None:
    gateway = await cloud.gateway(prefix=on_small_disk(cloud.root))
    root = tree_of(gateway, cloud)
    assert (await unpack(cloud, archives.tar({"kept": b"k" * MEBIBYTE}))).status == 201
    before = stored(root)
    content = {"kept": b"o" * MEBIBYTE, **{f"d/{n}": b"x" * 300_000 for n in range(40)}}
    for archive in (archives.tar(content), archives.zipped(content)):
        assert_is_full(await unpack(cloud, archive))
        assert stored(root) == before
    assert "request.failed" not in gateway.output


@on_sqlite
async def test_bombs_and_many_files_take_little_memory(cloud: Cloud) -> None:
    gateway = await cloud.gateway(MAX_UNPACK_BYTES=200 * MEBIBYTE)
    assert (await unpack(cloud, archives.tar({"a": b"x"}))).status == 201
    proc.reset_peak([gateway.pid])
    rest = proc.resident_mib(gateway.pid)
    zeros = zlib.compress(bytes(300 * MEBIBYTE), wbits=-15)
    header = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 8, 8, 0, 0, 0, 0, 0, 1, 0)
    assert (await unpack(cloud, header + b"z" + zeros)).status == 413
    many = archives.tar_gz({f"d{n // 1000}/file-{n}": b"" for n in range(8_000)})
    answer = await unpack(cloud, many, "data/many")
    assert answer.status == 201
    assert answer.text.count("data/many/d") == 8_000
    peak = proc.peak_mib([gateway.pid])
    assert peak is not None
    assert peak - rest < 60
    await eventually(lambda: not list((cloud.root / ".opencloud-staging").iterdir()))
