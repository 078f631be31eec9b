"""Users' trees on both storages; S3 is moto's server, whose pages are made small."""

import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from aiobotocore.session import AioSession

from common.storage.local.storage import LocalStorage
from common.storage.paths import PREDEFINED, RESERVED_USER_NAME, UserPath
from common.storage.protocol import Entry, OpenFile
from common.storage.s3.storage import S3Storage
from deploy.sandbox.aws import create_bucket, moto_server

PREDEFINED_PATHS = [f"{name}/" for name in PREDEFINED]
MEBIBYTE = 1 << 20
BUCKET = "trees"
REGION = "eu-central-1"
PAGE_KEYS = 7
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing-secret"}


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(file: OpenFile, offset: int = 0, length: int | None = None) -> bytes:
    whole = file.entry.size if length is None else length
    return b"".join([chunk async for chunk in file.read(offset, whole)])


class Broken(Exception):
    """An upload whose client goes away."""


@dataclass
class Tree:
    """One user's tree, with paths given as text."""

    storage: Any
    user: str = "some-user"

    def path(self, text: str) -> UserPath:
        return UserPath.parse(self.user, text)

    async def put(self, text: str, *chunks: bytes) -> Entry:
        return await self.storage.write(self.path(text), stream(*chunks))

    async def put_all(self, *texts: str) -> None:
        for text in texts:
            await self.put(text, b"1")

    async def get(self, text: str) -> bytes:
        async with self.storage.open(self.path(text)) as file:
            return await read(file)

    async def make(self, text: str) -> None:
        await self.storage.make_directory(self.path(text))

    async def stat(self, text: str) -> Entry:
        return await self.storage.stat(self.path(text))

    async def delete(self, text: str) -> None:
        await self.storage.delete(self.path(text))

    async def rename(self, source: str, target: str, *, replace: bool = True) -> Entry:
        return await self.storage.rename(self.path(source), self.path(target), replace=replace)

    async def entries(self, text: str = "", **options: Any) -> list[Entry]:
        found = self.storage.walk(self.path(text), **options)
        return [entry async for batch in found for entry in batch]

    async def listing(
        self, text: str = "", *, recursive: bool = False, **options: Any
    ) -> list[str]:
        return [entry.path for entry in await self.entries(text, recursive=recursive, **options)]

    async def files_at(self, *texts: str) -> list[list[str] | None]:
        found, _ = await self.storage.survey([self.path(text) for text in texts], [])
        return [files and [file.path for file in files] for files in found]

    async def holds_files(self, *texts: str) -> list[bool]:
        _, held = await self.storage.survey([], [self.path(text) for text in texts])
        return held


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """Address of a moto server that runs for the whole session."""
    with moto_server(settings={"MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE_KEYS)}) as url:
        yield url


@pytest.fixture(scope="session")
def bucket(moto_url: str) -> Any:
    """The bucket, as another tool sees it."""
    create_bucket(moto_url, BUCKET)
    keys = {name.lower(): value for name, value in CREDENTIALS.items()}
    return boto3.resource("s3", endpoint_url=moto_url, region_name=REGION, **keys).Bucket(BUCKET)


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Tree]:
    """A tree on the disk; no test may leave anything in the staging directory."""
    async with LocalStorage(str(tmp_path / "root")) as storage:
        await storage.ensure_user("some-user")
        yield Tree(storage)
    assert list((tmp_path / "root" / RESERVED_USER_NAME).glob("*")) == []


@pytest.fixture(scope="session")
def session() -> AioSession:
    """Shared, since reading AWS's descriptions takes a new one a third of a second."""
    return AioSession()


@pytest.fixture
def aws(moto_url: str, session: AioSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes moto's server what AWS clients in this process talk to."""
    monkeypatch.setattr("common.storage.s3.client.get_session", lambda: session)
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": moto_url}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def prefix() -> str:
    """A root prefix that no other test uses."""
    return f"root-{uuid.uuid4().hex}"


@pytest.fixture
async def s3(aws: None, bucket: Any, prefix: str) -> AsyncIterator[Tree]:
    """A tree in S3; no test may leave parts of uploads behind."""
    async with S3Storage(BUCKET, region=REGION, root=f"{prefix}/") as storage:
        await storage.ensure_user("some-user")
        yield Tree(storage)
    assert list(bucket.multipart_uploads.all()) == []


@pytest.fixture(params=["local", "s3"])
def tree(request: pytest.FixtureRequest) -> Tree:
    return request.getfixturevalue(request.param)
