"""Sources of the application configuration: a local file, or an object in S3."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any, Final, Protocol

from common.aws import create_session, fetch_object

_S3_CHECK_EVERY: Final = 2.0
"""Seconds between two requests to S3; with `_S3_TIMEOUT`, a change counts within 5 s."""

_READ_AGAIN_EVERY: Final = 2.0
"""Seconds between two attempts to read an unreadable file."""

_S3_TIMEOUT: Final = 2.0
"""Seconds that a request may take once there is a configuration to use meanwhile."""


class Source(Protocol):
    """Content that can be read again after it has changed."""

    wait: float
    """Seconds for which callers wait for a reading before they use the configuration at hand."""

    def is_due(self) -> bool:
        """Whether the content may have changed; cheap enough to call for every request."""
        ...

    async def read_if_changed(self) -> bytes | None:
        """The content, or None if it has not changed since it was read last.

        Raises `OSError` (`TimeoutError` included) or `AwsError` if it cannot be read.
        """
        ...


def open_source(location: str) -> Source:
    """The source at a path, or at `s3://bucket/key`."""
    return _S3Source(location) if location.startswith("s3://") else _FileSource(Path(location))


_State = tuple[int, ...]


class _FileSource:
    """A local file; one `stat` detects a change, which counts from the next request."""

    wait = 5.0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: _State | None = None
        self._refused: _State | None = None
        self._tried = float("-inf")

    def is_due(self) -> bool:
        state = self._state()
        if state == self._read:
            return False
        return state != self._refused or time.monotonic() - self._tried >= _READ_AGAIN_EVERY

    async def read_if_changed(self) -> bytes | None:
        state = self._state()
        if state == self._read:
            return None
        try:
            content = await asyncio.to_thread(self._path.read_bytes)
        except OSError:
            self._refused, self._tried = state, time.monotonic()
            raise
        self._read, self._refused = state, None
        return content

    def _state(self) -> _State:
        """A value that changes with the file's content and with its permissions."""
        try:
            found = os.stat(self._path)
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


class _S3Source:
    """An S3 object, downloaded only if its ETag has changed."""

    wait = 0.25

    def __init__(self, location: str) -> None:
        bucket, _, key = location.removeprefix("s3://").partition("/")
        self._bucket, self._key = bucket, key
        self._session: Any = None
        self._etag: str | None = None
        self._checked = float("-inf")

    def is_due(self) -> bool:
        return time.monotonic() - self._checked >= _S3_CHECK_EVERY

    async def read_if_changed(self) -> bytes | None:
        self._session = self._session or create_session()
        try:
            async with asyncio.timeout(_S3_TIMEOUT if self._etag else None):
                found = await fetch_object(
                    self._session, self._bucket, self._key, unless_etag=self._etag
                )
        finally:
            self._checked = time.monotonic()
        if found is None:
            return None
        content, self._etag = found
        return content
