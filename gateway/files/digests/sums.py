"""The SHA-256 of bytes that arrive in chunks, computed in threads while the next ones arrive."""

import asyncio
import hashlib
from typing import Final

_QUICK: Final = 1 << 16
"""Bytes up to which a chunk is added at once: that takes less than handing it to a thread."""


class RunningSum:
    """The sum so far; for one task.

    Chunks are best large: a thread that has added one waits for the interpreter's lock, which a
    busy event loop seldom gives away.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._job: asyncio.Future[None] | None = None

    async def add(self, chunk: bytes | bytearray) -> None:
        """Add a chunk, which must not change any more, once those before have been added."""
        await self._finish_job()
        if len(chunk) <= _QUICK:
            self._hash.update(chunk)
        else:
            loop = asyncio.get_running_loop()
            self._job = loop.run_in_executor(None, self._hash.update, chunk)

    async def digest(self) -> bytes:
        """The sum of all that was added."""
        await self._finish_job()
        return self._hash.digest()

    async def hexdigest(self) -> str:
        """The same in hexadecimal."""
        return (await self.digest()).hex()

    async def _finish_job(self) -> None:
        if self._job is not None:
            await self._job
            self._job = None
