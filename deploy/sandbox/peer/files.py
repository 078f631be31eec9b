"""The worker-facing API's access to users' files: by storage URI, below one root."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

from aiobotocore.session import get_session
from botocore.exceptions import ClientError

CHUNK = 1 << 20


class RefusedError(Exception):
    """The URI is outside the storage root or no normalised path."""


class MissingError(Exception):
    """There is no such file."""


class WorkerFiles(Protocol):
    """Reading and writing users' files by URI. Raises `RefusedError` and `MissingError`."""

    def read(self, uri: str) -> AsyncIterator[bytes]: ...

    async def write(self, folder: str, path: str, chunks: AsyncIterator[bytes]) -> None: ...

    async def close(self) -> None: ...


def clean_parts(path: str) -> list[str]:
    """The parts of a relative path. Raises `RefusedError` unless it is normalised."""
    parts = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise RefusedError(f"not a normalised path: {path!r}")
    return parts


def below(root: str, uri: str) -> list[str]:
    """The parts of `uri` after the prefix `root`. Raises `RefusedError`."""
    prefix = root.rstrip("/") + "/"
    if not uri.startswith(prefix):
        raise RefusedError(f"not below the storage root: {uri!r}")
    return clean_parts(uri[len(prefix) :])


class LocalFiles:
    """A local folder, spelled like `USER_DATA_ROOT_PATH`."""

    def __init__(self, root: str) -> None:
        self._root = root

    def _path(self, uri: str) -> Path:
        path = Path(self._root).joinpath(*below(self._root, uri))
        # a symbolic link must not lead out of the tree
        real, real_root = os.path.realpath(path), os.path.realpath(self._root)
        if os.path.commonpath([real, real_root]) != real_root:
            raise RefusedError(f"not below the storage root: {uri!r}")
        return path

    async def read(self, uri: str) -> AsyncIterator[bytes]:
        path = self._path(uri)
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise MissingError(uri) from error
        with file:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield chunk

    async def write(self, folder: str, path: str, chunks: AsyncIterator[bytes]) -> None:
        target = self._path("/".join([folder.rstrip("/"), *clean_parts(path)]))
        await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
        handle, staging = await asyncio.to_thread(
            tempfile.mkstemp, prefix=".upload-", dir=target.parent
        )
        try:
            with os.fdopen(handle, "wb") as file:
                async for chunk in chunks:
                    await asyncio.to_thread(file.write, chunk)
            await asyncio.to_thread(os.replace, staging, target)
        except BaseException:
            os.unlink(staging)
            raise

    async def close(self) -> None:
        """No file is open between calls."""


class BucketFiles:
    """A key prefix of an S3 bucket; endpoint and credentials are in the environment."""

    def __init__(self, bucket: str, root: str, region: str) -> None:
        self._bucket = bucket
        self._root = f"s3://{bucket}/{root.strip('/')}"
        self._region = region
        self._client: Any = None
        self._context: Any = None
        self._opening = asyncio.Lock()

    async def _s3(self) -> Any:
        async with self._opening:
            if self._client is None:
                self._context = get_session().create_client("s3", region_name=self._region)
                self._client = await self._context.__aenter__()
        return self._client

    def _key(self, uri: str) -> str:
        below(self._root, uri)
        return uri.removeprefix(f"s3://{self._bucket}/")

    async def read(self, uri: str) -> AsyncIterator[bytes]:
        key = self._key(uri)
        s3 = await self._s3()
        try:
            found = await s3.get_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
                raise MissingError(uri) from error
            raise
        async with found["Body"] as body:
            async for chunk in body.iter_chunks(CHUNK):
                yield chunk

    async def write(self, folder: str, path: str, chunks: AsyncIterator[bytes]) -> None:
        key = self._key("/".join([folder.rstrip("/"), *clean_parts(path)]))
        s3 = await self._s3()
        with tempfile.TemporaryFile() as spool:
            async for chunk in chunks:
                await asyncio.to_thread(spool.write, chunk)
            spool.seek(0)
            await s3.put_object(Bucket=self._bucket, Key=key, Body=spool)

    async def close(self) -> None:
        if self._context is not None:
            await self._context.__aexit__(None, None, None)
