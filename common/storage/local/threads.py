"""Threads for calls that block on the disk, such that a cancellation loses no file descriptor.

A call in a thread cannot be stopped. A caller that is cancelled therefore waits until the call has
ended; what it opened is then closed by the usual `finally`. Each call is short.
"""

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar, TypeVarTuple

from common.storage.errors import (
    InvalidPath,
    NotFound,
    OutOfSpace,
    StorageError,
    StorageUnavailable,
)

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

_ERRORS: Final[dict[int | None, tuple[type[StorageError], str]]] = {
    errno.ENOENT: (NotFound, "there is nothing at this path"),
    errno.ENOTDIR: (NotFound, "there is nothing at this path"),
    errno.EISDIR: (NotFound, "there is no file at this path"),
    errno.ELOOP: (NotFound, "there is nothing at this path"),
    errno.ENXIO: (NotFound, "there is nothing at this path"),
    errno.ENOSPC: (OutOfSpace, "the storage is full"),
    errno.EDQUOT: (OutOfSpace, "the storage's quota is used up"),
    errno.EFBIG: (OutOfSpace, "the file is larger than the storage can hold"),
    errno.ENAMETOOLONG: (InvalidPath, "the path holds a name that is too long for the storage"),
    errno.EILSEQ: (InvalidPath, "the path holds a name that the storage cannot hold"),
}


def storage_error(error: OSError) -> StorageError:
    """The storage's error for the system's; it never shows a path of the disk."""
    kind, sentence = _ERRORS.get(
        error.errno, (StorageUnavailable, "the storage does not answer as it should")
    )
    return kind(sentence)


class Threads:
    """A pool of threads whose `OSError`s arrive as `StorageError`s."""

    def __init__(self, size: int) -> None:
        self._executor = ThreadPoolExecutor(size, thread_name_prefix="storage")

    def submit(self, call: Callable[[*Arguments], T], *arguments: *Arguments) -> Future[T]:
        return self._executor.submit(call, *arguments)

    async def result(self, job: Future[T]) -> T:
        """The result of `job`. When cancelled, this does not wait for the job (see `outlast`)."""
        try:
            return await asyncio.wrap_future(job)
        except OSError as error:
            raise storage_error(error) from error

    async def run(self, call: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        """Call in a thread; when this returns, raises or is cancelled, the call has ended."""
        job = self.submit(call, *arguments)
        try:
            return await self.result(job)
        except asyncio.CancelledError:
            await outlast(job)
            raise

    async def close(self) -> None:
        await asyncio.to_thread(self._executor.shutdown)


async def outlast(job: Future[Any]) -> None:
    """Wait until `job` has ended, and ignore its error; a cancellation takes effect afterwards."""
    waiter = asyncio.wrap_future(job)
    cancelled = None
    while not waiter.done():
        try:
            await asyncio.wait([waiter])
        except asyncio.CancelledError as error:
            cancelled = error
    if not waiter.cancelled():
        waiter.exception()  # retrieved: otherwise asyncio would log it
    if cancelled is not None:
        raise cancelled
