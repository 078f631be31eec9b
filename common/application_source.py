"""Where the application configuration lies: a local file, or an object in S3."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any, Final, Protocol

from common.aws import create_session, fetch_object

_S3_CHECK_EVERY: Final = 2.0
"""Seconds between two questions to S3: a changed object counts within 5 s."""

_S3_PATIENCE: Final = 2.0
"""Seconds that a question may take while there is a configuration to go on with."""


class Source(Protocol):
    """Something whose content is read again when it has changed."""

    async def read_if_changed(self) -> bytes | None:
        """The content if it differs from what was read last, else None.

        Raises `OSError` (`TimeoutError` included) or `AwsError` where it cannot be read.
        """
        ...


def open_source(location: str) -> Source:
    """The source at a path, or at `s3://bucket/key`."""
    return _S3Source(location) if location.startswith("s3://") else _FileSource(Path(location))


class _FileSource:
    """A local file; one `stat` tells whether it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._missing = False

    async def read_if_changed(self) -> bytes | None:
        try:
            found = os.stat(self._path)
        except OSError:
            # say once that the file is gone, not on every request
            first, self._missing = not self._missing, True
            if first or self._seen is None:
                raise
            return None
        self._missing = False
        state = (found.st_mtime_ns, found.st_size, found.st_ino)
        if state == self._seen:
            return None
        content = await asyncio.to_thread(self._path.read_bytes)
        self._seen = state
        return content


class _S3Source:
    """An S3 object, asked for only if its ETag has changed."""

    def __init__(self, location: str) -> None:
        bucket, _, key = location.removeprefix("s3://").partition("/")
        self._bucket, self._key = bucket, key
        self._session: Any = None
        self._etag: str | None = None
        self._checked = float("-inf")

    async def read_if_changed(self) -> bytes | None:
        now = time.monotonic()
        if now - self._checked < _S3_CHECK_EVERY:
            return None
        self._checked = now
        self._session = self._session or create_session()
        async with asyncio.timeout(_S3_PATIENCE if self._etag else None):
            found = await fetch_object(
                self._session, self._bucket, self._key, unless_etag=self._etag
            )
        if found is None:
            return None
        content, self._etag = found
        return content
