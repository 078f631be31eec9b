"""S3 only: keys, parts, copies, presigned requests."""

import asyncio
import base64
import hashlib
import json
import re
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
from yarl import URL

from common.storage.budget import PartBudget, ReadBudget
from common.storage.errors import (
    AccessRefused,
    FileRefused,
    InvalidPath,
    NotFound,
    OutOfSpace,
    ShareUsedUp,
    StorageUnavailable,
    StorageUnusable,
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
from deploy.sandbox.ports import free_port
from tests.integration.common.storage.conftest import BUCKET, MEBIBYTE, REGION, Broken, Tree


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


@pytest.fixture
def client(s3: Any) -> Any:
    """The client of S3 that the storage uses."""
    return s3.storage._bucket.client


def count_concurrency(client: Any, name: str, patch: pytest.MonkeyPatch) -> list[int]:
    """How many calls of the client's method run at a time, at the start of each."""
    call, running, seen = getattr(client, name), set(), []

    async def counted(**request: Any) -> Any:
        token = object()
        running.add(token)
        seen.append(len(running))
        try:
            return await call(**request)
        finally:
            running.remove(token)

    patch.setattr(client, name, counted)
    return seen


async def _large(size: int) -> AsyncIterator[bytes]:
    for _ in range(0, size, MEBIBYTE):
        yield b"x" * MEBIBYTE


# -- keys -------------------------------------------------------------------------------
async def test_uri_names_bucket_root_and_user_and_the_files_key(s3, bucket, prefix):
    await s3.put("data/x/a.txt", b"hello")
    assert bucket.Object(f"{prefix}/some-user/data/x/a.txt").get()["Body"].read() == b"hello"
    assert s3.storage.uri(s3.path("data/x/")) == f"s3://{BUCKET}/{prefix}/some-user/data/x"
    assert S3Storage("b", region=REGION).uri(s3.path("data/x")) == "s3://b/some-user/data/x"


@pytest.mark.parametrize(
    ("root", "start"), [("/data", "/data/"), ("./data/", "./data/"), ("/", "/"), ("", "")]
)
async def test_keys_begin_with_the_root_as_it_is_spelled(aws, bucket, prefix, root, start):
    user = f"user-{prefix}"
    async with S3Storage(BUCKET, region=REGION, root=root) as storage:
        tree = Tree(storage, user)
        assert await storage.has_tree(user) is False
        await tree.put("data/x/a.txt", b"hello")
        assert await storage.has_tree(user) is True
        [stored] = [item.key for item in bucket.objects.all() if user in item.key]
        assert stored == f"{start}{user}/data/x/a.txt"
        assert storage.uri(tree.path("data/x/a.txt")) == f"s3://{BUCKET}/{stored}"
        assert await tree.listing("data", recursive=True) == ["data/x/", "data/x/a.txt"]
        assert await tree.get("data/x/a.txt") == b"hello"
        link = await storage.presign_download(tree.path("data/x/a.txt"))
        async with aiohttp.ClientSession() as session:
            answer = await session.get(URL(link.url, encoded=True))
            assert await answer.read() == b"hello"
        form = await storage.presign_upload(tree.path("data/x/"))
        assert form.data["key"] == f"{start}{user}/data/x/${{filename}}"
        await tree.rename("data/x/a.txt", "data/b.txt")
        assert await tree.get("data/b.txt") == b"hello"
        await tree.delete("")


async def test_a_missing_bucket_is_no_missing_file(aws, bucket):
    async with S3Storage("no-such-bucket", region=REGION) as storage:
        tree = Tree(storage)
        for call in (
            storage.ensure_user("u"),
            tree.stat("data/a.txt"),
            tree.get("data/a.txt"),
            tree.put("data/a.txt", b"1"),
            tree.entries("data"),
            tree.files_at("data/a.txt"),
            storage.probe(write=False),
        ):
            with pytest.raises(StorageUnusable, match="S3 has no such bucket"):
                await call
        health = await storage.health()
    assert (health["ok"], health["reason"]) == (False, "S3 has no such bucket")


async def test_whether_the_bucket_exists_is_asked_only_now_and_then(s3, client, monkeypatch):
    asked = count_concurrency(client, "head_bucket", monkeypatch)
    monkeypatch.setattr("common.storage.s3.bucket._EXISTENCE_HOLDS", 600.0)
    for name in range(5):
        assert await s3.files_at(f"data/{name}") == [None]
    assert len(asked) == 1


async def test_a_probe_leaves_nothing(s3, keys, bucket, prefix):
    await s3.storage.probe(write=True)
    assert [item.key for item in bucket.objects.filter(Prefix=f"{prefix}/.opencloud")] == []


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AccessDenied", StorageUnusable),
        (301, "PermanentRedirect", StorageUnusable),
        (503, "SlowDown", StorageUnavailable),
        (429, "TooManyRequests", StorageUnavailable),
    ],
)
async def test_a_probe_distinguishes_refusals_from_outages(
    s3, client, monkeypatch, status, code, error
):
    async def refuse(**_: Any) -> None:
        answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(answer, "ListObjectsV2")

    monkeypatch.setattr(client, "list_objects_v2", refuse)
    with pytest.raises(StorageUnavailable, match=code) as caught:
        await s3.storage.probe(write=False)
    assert caught.type is error


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


async def test_file_and_directory_may_have_the_same_name(s3, keys):
    keys.store("x", "x/a.txt")
    assert (await s3.stat("data/x")).path == "data/x"
    assert (await s3.stat("data/x/")).path == "data/x/"
    assert await s3.listing("data") == ["data/x", "data/x/"]
    assert await s3.files_at("data/x", "data/x/") == [["data/x"], ["data/x/a.txt"]]
    with pytest.raises(NotFound):
        await s3.get("data/x/")
    await s3.delete("data/x")
    assert keys.stored() == ["x/a.txt"]


# -- keys of other tools -----------------------------------------------------------------
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


async def test_object_with_a_trailing_slash_is_a_directory_even_with_content(s3, keys):
    keys.store("x/")
    assert await s3.listing("data", recursive=True) == ["data/x/"]
    assert await s3.files_at("data") == [[]]


# -- uploads ----------------------------------------------------------------------------
async def test_large_upload_is_sent_in_parts_and_a_small_one_whole(s3):
    small = await s3.put("data/small", b"x" * MEBIBYTE)
    assert "-" not in small.etag
    large = await s3.storage.write(s3.path("data/large"), _large(20 * MEBIBYTE))
    assert large.etag.endswith("-3")
    assert large.size == 20 * MEBIBYTE


@pytest.mark.parametrize("failing", ["upload_part", "complete_multipart_upload"])
async def test_upload_that_s3_fails_leaves_no_parts(s3, client, bucket, keys, monkeypatch, failing):
    async def fail(**request: Any) -> None:
        raise aiohttp.ClientConnectionError("lost")

    monkeypatch.setattr(client, failing, fail)
    with pytest.raises(StorageUnavailable):
        await s3.storage.write(s3.path("data/x/large"), _large(20 * MEBIBYTE))
    assert list(bucket.multipart_uploads.all()) == []
    assert keys.stored() == []


async def test_no_more_than_three_parts_are_in_flight(s3, client, monkeypatch):
    seen = count_concurrency(client, "upload_part", monkeypatch)
    await s3.storage.write(s3.path("data/large"), _large(64 * MEBIBYTE))
    assert 1 < max(seen) <= 3


async def test_uploads_of_many_slow_clients_share_their_memory(s3, keys, monkeypatch):
    resume = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * MEBIBYTE
        await resume.wait()
        yield b"x" * MEBIBYTE

    monkeypatch.setattr(s3.storage, "_parts", PartBudget(2, timeout=0.05))
    paths = [s3.path(f"data/slow-{number}") for number in range(4)]
    uploads = {asyncio.create_task(s3.storage.write(path, slow())) for path in paths}
    refused: set[asyncio.Task[Any]] = set()
    while len(refused) < 2:
        done, _ = await asyncio.wait(uploads - refused, return_when=asyncio.FIRST_COMPLETED)
        refused |= done
    assert [type(task.exception()) for task in refused] == [ShareUsedUp] * 2
    await s3.put("data/small", b"s" * 100_000)  # which is not counted
    resume.set()
    written = await asyncio.gather(*(uploads - refused))
    assert [entry.size for entry in written] == [2 * MEBIBYTE] * 2
    assert len(keys.stored()) == 3


async def test_trickling_uploads_of_one_user_leave_parts_for_others(s3, monkeypatch):
    resume = asyncio.Event()

    async def trickling() -> AsyncIterator[bytes]:
        yield b"x" * MEBIBYTE
        await resume.wait()

    budget = PartBudget(3, per_user=2, timeout=0.05)
    monkeypatch.setattr(s3.storage, "_parts", budget)
    uploads = [
        asyncio.create_task(s3.storage.write(s3.path(f"data/{number}"), trickling()))
        for number in range(4)
    ]
    for refused in await _first(uploads, 2):
        with pytest.raises(ShareUsedUp, match="2 parts"):
            await refused
    with budget.upload("other") as held:
        await held.acquire()
    resume.set()
    assert len(await asyncio.gather(*uploads, return_exceptions=True)) == 4


async def _first(tasks: list[asyncio.Task[Any]], count: int) -> set[asyncio.Task[Any]]:
    """The first `count` tasks to end."""
    ended: set[asyncio.Task[Any]] = set()
    while len(ended) < count:
        waiting = set(tasks) - ended
        ended |= (await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED))[0]
    return ended


async def test_a_download_whose_client_stands_still_gives_way_and_goes_on(s3, monkeypatch):
    content = b"".join(bytes([number]) * MEBIBYTE for number in range(3))
    await s3.put("data/large", content)
    monkeypatch.setattr(s3.storage, "_responses", ReadBudget(1))
    async with s3.storage.open(s3.path("data/large")) as slow:
        chunks = slow.read(0, len(content))
        found = await anext(chunks)
        async with s3.storage.open(s3.path("data/large")) as other:
            assert b"".join([chunk async for chunk in other.read(0, len(content))]) == content
        async for chunk in chunks:
            found += chunk
    assert found == content


async def test_a_part_that_was_sent_is_not_held_while_a_slow_client_sends_the_next(s3, monkeypatch):
    held: WeakSet[Part] = WeakSet()

    class Watched(Part):
        def __init__(self, *chunks: bytes) -> None:
            super().__init__(*chunks)
            held.add(self)

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(3):
            async for chunk in _large(9 * MEBIBYTE):
                yield chunk
            async with asyncio.timeout(60):
                while len(held) > 1:
                    await asyncio.sleep(0.01)

    monkeypatch.setattr(s3_upload, "Part", Watched)
    await s3.storage.write(s3.path("data/large"), slow())


async def test_uploads_release_all_the_parts_that_they_held(s3, keys, monkeypatch):
    async def broken() -> AsyncIterator[bytes]:
        async for chunk in _large(30 * MEBIBYTE):
            yield chunk
        raise Broken

    monkeypatch.setattr(s3.storage, "_parts", PartBudget(2, timeout=60.0))
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


async def test_source_that_is_replaced_during_a_rename_stays(s3, monkeypatch):
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
async def test_failed_precondition_of_a_copy_names_the_condition(condition, refusal, s3):
    error = {"Error": {"Code": "PreconditionFailed", "Condition": condition}}
    answer = {**error, "ResponseMetadata": {"HTTPStatusCode": 412}}

    async def refuse(**request: Any) -> None:
        assert request["IfNoneMatch"] == "*"
        raise ClientError(answer, "CopyObject")

    facts = await s3.put("data/a.txt", b"1")
    bucket = Bucket(SimpleNamespace(copy_object=refuse), BUCKET)
    with pytest.raises(refusal):
        await s3_changes.copy(bucket, "a", facts, "b", replace=False)


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


async def test_a_presigned_upload_takes_one_file_alone_where_its_digest_is_given(s3, moto_url):
    encoded = base64.b64encode(hashlib.sha256(b"hello").digest()).decode()
    stated = {"x-amz-checksum-algorithm": "SHA256", "x-amz-checksum-sha256": encoded}
    sha256 = hashlib.sha256(b"hello").hexdigest()
    request = await s3.storage.presign_upload(s3.path("data/x/"), sha256=sha256)
    assert request.data.items() >= stated.items()
    policy = json.loads(base64.b64decode(request.data["policy"]))
    for name, value in stated.items():
        assert {name: value} in policy["conditions"]
    form = aiohttp.FormData({**request.data})
    form.add_field("file", b"hello", filename="a.txt")
    async with aiohttp.request("POST", request.url, data=form) as answer:
        assert answer.status == 204
    assert await s3.get("data/x/a.txt") == b"hello"


async def test_a_digest_that_s3_has_checked_is_known_for_that_version(s3, bucket, prefix):
    key, path = f"{prefix}/some-user/data/a.txt", s3.path("data/a.txt")
    bucket.put_object(Key=key, Body=b"hello", ChecksumAlgorithm="SHA256")
    etag = (await s3.stat("data/a.txt")).etag
    sha256 = hashlib.sha256(b"hello").hexdigest()
    assert await s3.storage.stated_sha256(path, etag) == sha256
    assert await s3.storage.stated_sha256(path, "0" * 32) is None
    entry = await s3.put("data/a.txt", b"hello")
    assert await s3.storage.stated_sha256(path, entry.etag) is None
    assert await s3.storage.stated_sha256(s3.path("data/none"), etag) is None


@pytest.mark.parametrize("stated", ["", "no base64", "AAAA", f"{base64.b64encode(bytes(32))}-2"])
async def test_a_digest_of_digests_is_none_of_the_file(s3, client, monkeypatch, stated):
    async def head(**_: Any) -> dict[str, str]:
        return {"ChecksumSHA256": stated}

    monkeypatch.setattr(client, "head_object", head)
    assert await s3.storage.stated_sha256(s3.path("data/a.txt"), "etag") is None


@pytest.mark.parametrize(
    ("settings", "base"),
    [
        ({"region": "us-east-1"}, "https://s3.us-east-1.amazonaws.com"),
        ({"region": REGION, "public_endpoint": "https://x.example:90"}, "https://x.example:90"),
    ],
)
async def test_presigned_urls_name_the_endpoint_for_clients(
    aws, bucket, monkeypatch, settings, base
):
    path = UserPath.parse("u", "data/a.txt")
    if "public_endpoint" not in settings:
        monkeypatch.delenv("AWS_ENDPOINT_URL")
    async with S3Storage(BUCKET, root="r", **settings) as storage:
        down = await storage.presign_download(path)
        assert down.url.startswith(f"{base}/{BUCKET}/r/u/data/a.txt?")
        if "public_endpoint" in settings:  # the storage itself uses the other one
            assert (await storage.presign_upload(path)).url == f"{base}/{BUCKET}"


# -- surveys ----------------------------------------------------------------------------
async def test_survey_of_many_inputs_bounds_its_concurrency(s3, client, monkeypatch):
    await s3.put("data/1.txt", b"one")
    seen = count_concurrency(client, "head_object", monkeypatch)
    found, held = await s3.storage.survey(
        [s3.path(f"data/{number}.txt") for number in range(80)], [s3.path("data/"), s3.path("log/")]
    )
    assert [position for position, files in enumerate(found) if files] == [1]
    assert held == [True, False]
    assert 1 < max(seen) <= 32


# -- errors -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("code", "status", "refusal"),
    [
        ("NoSuchKey", 404, NotFound),
        ("404", 404, NotFound),
        ("NoSuchBucket", 404, StorageUnavailable),
        ("SlowDown", 503, StorageUnavailable),
        ("InternalError", 500, StorageUnavailable),
        ("RequestTimeout", 400, StorageUnavailable),
        ("PreconditionFailed", 412, StorageUnavailable),
        ("TooManyRequests", 429, StorageUnavailable),
        ("InvalidAccessKeyId", 403, StorageUnavailable),
        ("AccessDenied", 403, AccessRefused),
        ("403", 403, AccessRefused),
        ("InvalidObjectState", 403, FileRefused),
        ("KMS.DisabledException", 400, FileRefused),
        ("MethodNotAllowed", 405, FileRefused),
        ("KeyTooLongError", 400, InvalidPath),
        ("EntityTooLarge", 400, OutOfSpace),
        ("XMinioStorageFull", 507, OutOfSpace),
    ],
)
def test_error_codes_of_s3_have_a_meaning(code, status, refusal):
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(refusal), storage_errors():
        raise ClientError(answer, "GetObject")


@pytest.mark.parametrize(
    "value",
    ["2026-11-24T22:10:31.000Z", "Tue, 24 Nov 2026 22:10:31 GMT", "2026-11-24T22:10:31Z", 1.8e9],
)
def test_timestamps_are_parsed_as_botocore_parses_them(value: Any) -> None:
    assert parse_time(value) == parse_timestamp(value)
    with pytest.raises(ValueError, match="nonsense"):
        parse_time("nonsense")


async def test_s3_that_does_not_answer_is_unavailable(aws, monkeypatch):
    port = free_port()

    async def at_once(seconds: float) -> None:
        waited.append(seconds)

    waited: list[float] = []
    monkeypatch.setattr("aiobotocore.endpoint.asyncio.sleep", at_once)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    async with S3Storage(BUCKET, region=REGION) as storage:
        with pytest.raises(StorageUnavailable) as caught:
            await storage.stat(UserPath.parse("u", "data/a.txt"))
        health = await storage.health()
    assert waited, "it was not tried again"
    assert str(port) not in str(caught.value)
    assert health["ok"] is False
    assert health["reason"]


async def test_deletion_that_s3_refuses_is_an_error(s3, client, monkeypatch):
    async def refuse(**request: Any) -> dict[str, Any]:
        keys = request["Delete"]["Objects"]
        return {"Errors": [{"Key": keys[0]["Key"], "Code": "AccessDenied"}]}

    await s3.put("data/x/a.txt", b"1")
    monkeypatch.setattr(client, "delete_objects", refuse)
    with pytest.raises(AccessRefused, match="AccessDenied"):
        await s3.delete("data/x/")


def test_a_refusal_says_s3s_reason_but_no_names_of_accounts_and_keys():
    message = (
        "User: arn:aws:sts::123456789012:assumed-role/cloud/i-0 is not authorized to perform:"
        ' kms:Decrypt on resource: "arn:aws:kms:eu-central-1:123456789012:key/6f0e" because no'
        " policy allows it. Key 6f0e1c9a-0000-4000-8000-00000000beef."
    )
    answer = {
        "Error": {"Code": "AccessDenied", "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": 403},
    }
    with pytest.raises(AccessRefused) as caught, storage_errors():
        raise ClientError(answer, "GetObject")
    words = str(caught.value)
    assert words.startswith("S3 refuses: User: … is not authorized to perform: kms:Decrypt on")
    assert not {"123456789012", "6f0e", "beef"} & set(re.findall(r"\w+", words))


async def test_a_sweep_aborts_stale_uploads(s3, client, prefix):
    key = f"{prefix}/some-user/data/left.bin"
    await client.create_multipart_upload(Bucket=BUCKET, Key=key)  # in 2010, says moto
    bucket = s3.storage._bucket
    assert await s3_upload.abort_stale(bucket, prefix, age=100 * 365 * 86_400.0) == 0
    assert await s3.storage.sweep_staging() == 1
    answer = await client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
    assert not answer.get("Uploads")
