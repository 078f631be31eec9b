"""S3 only: keys, parts, copies, presigned requests."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit
from weakref import WeakSet

import aiohttp
import pytest
from botocore.exceptions import ClientError
from botocore.utils import parse_timestamp

from common.storage.budget import PartBudget
from common.storage.errors import (
    InvalidPath,
    NotFound,
    OutOfSpace,
    StorageUnavailable,
    TargetExists,
    UnusableName,
)
from common.storage.paths import PREDEFINED, UserPath
from common.storage.s3 import changes as s3_changes
from common.storage.s3 import upload as s3_upload
from common.storage.s3.bucket import Bucket, storage_errors
from common.storage.s3.client import parse_time
from common.storage.s3.part import Part
from common.storage.s3.storage import S3Storage

MEBIBYTE = 1 << 20
BUCKET = "trees"
REGION = "eu-central-1"


@pytest.fixture
def keys(bucket: Any, prefix: str) -> Any:
    """The keys below `data/` that are stored, and a way to store any, as another tool does."""
    base = f"{prefix}/some-user/data/"

    def stored() -> list[str]:
        found = bucket.objects.filter(Prefix=base)
        return [item.key.removeprefix(base) for item in found if item.key != base]

    def store(*names: str) -> None:
        for name in names:
            bucket.put_object(Key=base + name, Body=b"by other means")

    return SimpleNamespace(stored=stored, store=store)


class Counted:
    """Counts how many calls of `call` run at a time."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._running = 0
        self.most = 0

    async def __call__(self, *args: Any, **request: Any) -> Any:
        self._running += 1
        self.most = max(self.most, self._running)
        try:
            return await self._call(*args, **request)
        finally:
            self._running -= 1


async def _large(size: int) -> AsyncIterator[bytes]:
    for _ in range(0, size, MEBIBYTE):
        yield b"x" * MEBIBYTE


# -- keys -------------------------------------------------------------------------------
async def test_uri_names_bucket_root_and_user_and_the_files_key(s3, bucket, prefix):
    await s3.put("data/x/a.txt", b"hello")
    assert bucket.Object(f"{prefix}/some-user/data/x/a.txt").get()["Body"].read() == b"hello"
    assert s3.storage.uri(s3.path("data/x/")) == f"s3://{BUCKET}/{prefix}/some-user/data/x"
    assert S3Storage("b", region=REGION).uri(s3.path("data/x")) == "s3://b/some-user/data/x"


async def test_key_longer_than_s3_can_hold_is_refused(aws, bucket):
    async with S3Storage(BUCKET, region=REGION, root="r" * 200) as storage:
        with pytest.raises(InvalidPath):
            await storage.stat(UserPath.parse("u", "/".join(["x" * 200] * 4 + ["y" * 90])))


async def test_predefined_directories_are_marked_once_per_process(s3, bucket, prefix):
    markers = [f"{prefix}/some-user/{name}/" for name in PREDEFINED]
    assert [item.key for item in bucket.objects.filter(Prefix=prefix)] == markers
    bucket.Object(markers[0]).delete()
    await s3.storage.ensure_user("some-user")
    assert [item.key for item in bucket.objects.filter(Prefix=prefix)] == markers[1:]


async def test_empty_directory_is_a_marker_and_outlives_its_last_file(s3, keys):
    await s3.make("data/empty")
    await s3.put("data/x/a.txt", b"1")
    await s3.put("data/y/sub/b.txt", b"1")
    assert keys.stored() == ["empty/", "x/a.txt", "y/sub/b.txt"]
    await s3.rename("data/x/a.txt", "data/z.txt")
    await s3.delete("data/y/sub/")
    assert keys.stored() == ["empty/", "x/", "y/", "z.txt"]


async def test_deleting_a_directory_needs_the_slash(s3, keys):
    await s3.put("data/x/a.txt", b"1")
    await s3.delete("data/x")
    await s3.delete("data")
    assert keys.stored() == ["x/a.txt"]
    await s3.delete("data/x/")
    assert keys.stored() == []


async def test_file_and_directory_of_the_same_name_are_told_apart(s3, keys):
    keys.store("x", "x/a.txt")
    assert (await s3.stat("data/x")).path == "data/x"
    assert (await s3.stat("data/x/")).path == "data/x/"
    assert await s3.listing("data") == ["data/x", "data/x/"]
    assert await s3.files_at("data/x", "data/x/") == [["data/x"], ["data/x/a.txt"]]
    with pytest.raises(NotFound):
        await s3.get("data/x/")
    await s3.delete("data/x")
    assert keys.stored() == ["x/a.txt"]


# -- keys by other means ----------------------------------------------------------------
STRANGE = ["a/../b", "a/./b", "a//b", "/b", "../b", "./", "//", "a/.."]


async def test_keys_that_no_path_can_address_break_no_listing(s3, keys):
    keys.store(*STRANGE, "a/ok", "z")
    assert await s3.listing("data") == ["data/a/", "data/z"]
    assert await s3.listing("data/a") == ["data/a/ok"]
    assert await s3.listing("data", recursive=True) == ["data/a/", "data/a/ok", "data/z"]


@pytest.mark.parametrize("name", ["a/../b", "a/./b", "a//b", "/b", "../b", "a/.."])
async def test_files_at_names_a_key_that_no_path_can_address(s3, keys, name):
    keys.store(name, "a/ok")
    with pytest.raises(UnusableName) as caught:
        await s3.files_at("data/a/ok", "data")
    assert f"'data/{name}'" in str(caught.value)
    assert await s3.files_at("data/a/ok") == [["data/a/ok"]]
    assert await s3.holds_files("data") == [True]


async def test_keys_that_no_path_can_address_are_deleted_with_their_directory(s3, keys):
    keys.store(*STRANGE, "bell\x07", "ta\tb", "\x7f", "\ufffe", "<&>\"'")
    await s3.delete("data/")
    assert keys.stored() == []


async def test_control_characters_in_keys_break_no_listing(s3, keys):
    keys.store("a\tb", "bell\x07")
    assert await s3.listing("data") == ["data/a\tb", "data/bell\x07"]
    assert await s3.files_at("data") == [["data/a\tb", "data/bell\x07"]]


async def test_object_with_a_slash_at_its_end_is_a_directory_whatever_it_holds(s3, keys):
    keys.store("x/")
    assert await s3.listing("data", recursive=True) == ["data/x/"]
    assert await s3.files_at("data") == [[]]
    assert await s3.holds_files("data", "data/x") == [False, False]


# -- uploads ----------------------------------------------------------------------------
async def test_large_upload_goes_in_parts_and_a_small_one_in_one_piece(s3):
    small = await s3.put("data/small", b"x" * MEBIBYTE)
    assert "-" not in small.etag
    large = await s3.storage.write(s3.path("data/large"), _large(20 * MEBIBYTE))
    assert large.etag.endswith("-3")
    assert large.size == 20 * MEBIBYTE


@pytest.mark.parametrize("how", ["chunks", "part", "complete", "cancel"])
async def test_failed_upload_leaves_no_parts(s3, bucket, keys, monkeypatch, how):
    class Broken(Exception):
        pass

    stalled = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        async for chunk in _large(20 * MEBIBYTE):
            yield chunk
        if how == "chunks":
            raise Broken
        if how == "cancel":
            stalled.set()
            await asyncio.Event().wait()

    async def fail(**request: Any) -> None:
        raise aiohttp.ClientConnectionError("lost")

    client = s3.storage._bucket.client
    if how == "part":
        monkeypatch.setattr(client, "upload_part", fail)
    if how == "complete":
        monkeypatch.setattr(client, "complete_multipart_upload", fail)
    expected = {"chunks": Broken, "cancel": asyncio.CancelledError}.get(how, StorageUnavailable)
    task = asyncio.create_task(s3.storage.write(s3.path("data/x/large"), chunks()))
    if how == "cancel":
        await stalled.wait()
        assert len(list(bucket.multipart_uploads.all())) == 1
        task.cancel()
    with pytest.raises(expected):
        await task
    assert list(bucket.multipart_uploads.all()) == []
    assert keys.stored() == []


async def test_no_more_than_three_parts_are_in_flight(s3, monkeypatch):
    client = s3.storage._bucket.client
    counted = Counted(client.upload_part)
    monkeypatch.setattr(client, "upload_part", counted)
    await s3.storage.write(s3.path("data/large"), _large(64 * MEBIBYTE))
    assert 1 < counted.most <= 3


async def test_uploads_of_many_slow_clients_share_their_memory(s3, keys, monkeypatch):
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * MEBIBYTE
        await go_on.wait()
        yield b"x" * MEBIBYTE

    monkeypatch.setattr(s3.storage, "_parts", PartBudget(2, timeout=0.05))
    paths = [s3.path(f"data/slow-{number}") for number in range(4)]
    uploads = {asyncio.create_task(s3.storage.write(path, slow())) for path in paths}
    refused: set[asyncio.Task[Any]] = set()
    while len(refused) < 2:
        done, _ = await asyncio.wait(uploads - refused, return_when=asyncio.FIRST_COMPLETED)
        refused |= done
    assert [type(task.exception()) for task in refused] == [StorageUnavailable] * 2
    await s3.put("data/small", b"s" * 100_000)  # which is not counted
    go_on.set()
    written = await asyncio.gather(*(uploads - refused))
    assert [entry.size for entry in written] == [2 * MEBIBYTE] * 2
    assert len(keys.stored()) == 3


async def test_a_part_that_was_sent_is_not_held_while_a_slow_client_sends_the_next(s3, monkeypatch):
    held: WeakSet[Part] = WeakSet()

    class Watched(Part):
        def __init__(self, *pieces: bytes) -> None:
            super().__init__(*pieces)
            held.add(self)

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(3):
            async for chunk in _large(9 * MEBIBYTE):
                yield chunk
            async with asyncio.timeout(10):
                while len(held) > 1:
                    await asyncio.sleep(0.01)

    monkeypatch.setattr(s3_upload, "Part", Watched)
    await s3.storage.write(s3.path("data/large"), slow())


async def test_uploads_release_all_the_parts_that_they_held(s3, keys, monkeypatch):
    class Broken(Exception):
        pass

    async def broken() -> AsyncIterator[bytes]:
        async for chunk in _large(30 * MEBIBYTE):
            yield chunk
        raise Broken

    monkeypatch.setattr(s3.storage, "_parts", PartBudget(2, timeout=5.0))
    for _ in range(2):
        with pytest.raises(Broken):
            await s3.storage.write(s3.path("data/large"), broken())
        await s3.storage.write(s3.path("data/large"), _large(30 * MEBIBYTE))
    assert keys.stored() == ["large"]


# -- copies -----------------------------------------------------------------------------
async def test_object_too_large_for_one_copy_is_copied_in_parts(s3, keys):
    bucket = s3.storage._bucket
    body = b"".join(bytes([n]) * MEBIBYTE for n in range(12))
    facts = await s3.put("data/a.bin", body)
    base = s3.storage.uri(s3.path("data")).removeprefix(f"s3://{BUCKET}/")
    etag = await s3_changes.copy(
        bucket, f"{base}/a.bin", facts, f"{base}/b.bin", replace=True, limit=5 * MEBIBYTE
    )
    assert etag == (await s3.stat("data/b.bin")).etag
    assert etag.endswith("-3")
    assert await s3.get("data/b.bin") == body


async def test_source_that_was_uploaded_anew_during_a_rename_stays(s3, monkeypatch):
    copy = s3_changes.copy

    async def slow_copy(*args: Any, **options: Any) -> str:
        etag = await copy(*args, **options)
        await s3.put("data/a.txt", b"fresh")
        return etag

    await s3.put("data/a.txt", b"old")
    monkeypatch.setattr(s3_changes, "copy", slow_copy)
    await s3.rename("data/a.txt", "data/b.txt")
    assert (await s3.get("data/a.txt"), await s3.get("data/b.txt")) == (b"fresh", b"old")


@pytest.mark.parametrize(
    ("condition", "refusal"),
    [("If-None-Match", TargetExists), ("x-amz-copy-source-If-Match", StorageUnavailable)],
)
async def test_failed_precondition_of_a_copy_is_told_apart(condition, refusal, s3):
    error = {"Error": {"Code": "PreconditionFailed", "Condition": condition}}
    answer = {**error, "ResponseMetadata": {"HTTPStatusCode": 412}}

    async def refuse(**request: Any) -> None:
        assert request["IfNoneMatch"] == "*"
        raise ClientError(answer, "CopyObject")

    facts = await s3.put("data/a.txt", b"1")
    bucket = Bucket(SimpleNamespace(copy_object=refuse), BUCKET)
    with pytest.raises(refusal):
        await s3_changes.copy(bucket, "a", facts, "b", replace=False)


# -- reading ----------------------------------------------------------------------------
async def test_replaced_file_is_not_read_on(s3):
    await s3.put("data/a.txt", b"old")
    async with s3.storage.open(s3.path("data/a.txt")) as file:
        await s3.put("data/a.txt", b"new")
        with pytest.raises(StorageUnavailable):
            [piece async for piece in file.read(0, 3)]


# -- presigned requests -----------------------------------------------------------------
async def test_presigned_download_is_an_attachment_for_ten_minutes(s3, moto_url):
    name = 'ünï "q".txt'
    await s3.put(f"data/x/{name}", b"hello")
    request = await s3.storage.presign_download(s3.path(f"data/x/{name}"))
    assert (request.method, request.headers, request.data) == ("get", {}, {})
    query = parse_qs(urlsplit(request.url).query)
    assert request.url.startswith(f"{moto_url}/{BUCKET}/")
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["600"]
    assert query["response-content-disposition"] == [
        "attachment; filename=\"_n_ _q_.txt\"; filename*=UTF-8''%C3%BCn%C3%AF%20%22q%22.txt"
    ]
    assert query["response-content-type"] == ["text/plain"]
    assert query["response-cache-control"] == ["private, no-cache"]
    async with aiohttp.request("GET", request.url) as answer:
        assert await answer.read() == b"hello"


async def test_presigned_upload_may_only_write_below_its_directory(s3, prefix, moto_url):
    request = await s3.storage.presign_upload(s3.path("data/x/"))
    assert (request.method, request.url, request.headers) == ("post", f"{moto_url}/{BUCKET}", {})
    base = f"{prefix}/some-user/data/x/"
    assert request.data["key"] == base + "${filename}"
    policy = json.loads(base64.b64decode(request.data["policy"]))
    assert {"bucket": BUCKET} in policy["conditions"]
    on_keys = [rule for rule in policy["conditions"] if "key" in str(rule).lower()]
    assert ["starts-with", "$key", base] in on_keys
    assert all(rule == ["starts-with", "$key", base] for rule in on_keys)
    left = datetime.fromisoformat(policy["expiration"]) - datetime.now(UTC)
    assert timedelta(seconds=580) < left <= timedelta(seconds=600)


async def test_presigned_urls_name_the_regional_endpoint(aws, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    async with S3Storage("b", region="us-east-1", root="r") as storage:
        path = UserPath.parse("u", "data/a.txt")
        request = await storage.presign_download(path)
        assert request.url.startswith("https://s3.us-east-1.amazonaws.com/b/r/u/data/a.txt?")


async def test_presigned_urls_name_the_public_endpoint(aws, bucket):
    public = "https://files.example:9000"
    async with S3Storage(BUCKET, region=REGION, root="r", public_endpoint=public) as storage:
        path = UserPath.parse("u", "data/a.txt")
        down = await storage.presign_download(path)
        up = await storage.presign_upload(path)
        assert await storage.survey([path], [path]) == ([None], [False])
    assert down.url.startswith(f"{public}/{BUCKET}/r/u/data/a.txt?")
    assert up.url == f"{public}/{BUCKET}"


# -- surveys ----------------------------------------------------------------------------
async def test_of_any_number_of_inputs_a_few_are_looked_up_at_a_time(s3, monkeypatch):
    await s3.put("data/1.txt", b"one")
    client = s3.storage._bucket.client
    counted = Counted(client.head_object)
    monkeypatch.setattr(client, "head_object", counted)
    found, held = await s3.storage.survey(
        [s3.path(f"data/{number}.txt") for number in range(80)], [s3.path("data/"), s3.path("log/")]
    )
    assert [position for position, files in enumerate(found) if files] == [1]
    assert held == [True, False]
    assert 1 < counted.most <= 32


# -- errors -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("code", "status", "refusal"),
    [
        ("NoSuchKey", 404, NotFound),
        ("404", 404, NotFound),
        ("NoSuchBucket", 404, StorageUnavailable),
        ("SlowDown", 503, StorageUnavailable),
        ("InternalError", 500, StorageUnavailable),
        ("AccessDenied", 403, StorageUnavailable),
        ("KeyTooLongError", 400, InvalidPath),
        ("EntityTooLarge", 400, OutOfSpace),
        ("XMinioStorageFull", 507, OutOfSpace),
    ],
)
def test_errors_of_s3_say_what_they_mean(code, status, refusal):
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(refusal), storage_errors():
        raise ClientError(answer, "GetObject")


@pytest.mark.parametrize(
    "value",
    ["2026-11-24T22:10:31.000Z", "Tue, 24 Nov 2026 22:10:31 GMT", "2026-11-24T22:10:31Z", 1.8e9],
)
def test_timestamps_are_parsed_as_botocore_parses_them(value: Any) -> None:
    assert parse_time(value) == parse_timestamp(value)


def test_an_invalid_timestamp_is_an_error() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        parse_time("nonsense")


async def test_s3_that_does_not_answer_is_unavailable(aws, monkeypatch, unused_tcp_port):
    async def at_once(seconds: float) -> None:
        waited.append(seconds)

    waited: list[float] = []
    monkeypatch.setattr("aiobotocore.endpoint.asyncio.sleep", at_once)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused_tcp_port}")
    async with S3Storage(BUCKET, region=REGION) as storage:
        with pytest.raises(StorageUnavailable) as caught:
            await storage.stat(UserPath.parse("u", "data/a.txt"))
        health = await storage.health()
    assert waited, "it was not tried again"
    assert str(unused_tcp_port) not in str(caught.value)
    assert health["ok"] is False
    assert health["reason"]


async def test_deletion_that_s3_refuses_is_an_error(s3, monkeypatch):
    async def refuse(**request: Any) -> dict[str, Any]:
        keys = request["Delete"]["Objects"]
        return {"Errors": [{"Key": keys[0]["Key"], "Code": "AccessDenied"}]}

    await s3.put("data/x/a.txt", b"1")
    monkeypatch.setattr(s3.storage._bucket.client, "delete_objects", refuse)
    with pytest.raises(StorageUnavailable, match="AccessDenied"):
        await s3.delete("data/x/")


async def test_parts_of_killed_processes_are_swept_once_they_are_stale():
    aborted = []
    begun = {"old": datetime.now(UTC) - timedelta(days=2), "fresh": datetime.now(UTC)}

    class Client:
        async def list_multipart_uploads(self, **_: str) -> dict[str, Any]:
            return {
                "Uploads": [
                    {"Key": f"root/{name}", "UploadId": name, "Initiated": moment}
                    for name, moment in begun.items()
                ]
            }

        async def abort_multipart_upload(self, **request: str) -> None:
            aborted.append(request["UploadId"])

    assert await s3_upload.abort_stale(Bucket(Client(), BUCKET), "root/", age=86_400.0) == 1
    assert aborted == ["old"]


async def test_a_sweep_aborts_what_the_store_lists_as_stale(s3, prefix):
    client = s3.storage._bucket.client
    key = f"{prefix}/some-user/data/left.bin"
    await client.create_multipart_upload(Bucket=BUCKET, Key=key)
    await s3.storage.sweep_staging()
    answer = await client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
    assert not answer.get("Uploads")
