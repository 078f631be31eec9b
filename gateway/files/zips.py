"""Stream a directory as a zip archive. Memory does not grow with the sizes of files, and with their
number only by the list of names that the format requires at the end."""

from binascii import crc32
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
from typing import Final

from common.storage.errors import NotFound
from common.storage.paths import UserPath, relative_to
from common.storage.protocol import SMALL_FILE, Entry, Storage
from gateway.files.zip_format import Archive
from gateway.http.errors import TooLarge
from gateway.http.streaming import Chunks
from gateway.settings import Limits

_AT_ONCE: Final = 32
_BYTES_AT_ONCE: Final = 128 << 10
"""Small files that are read together: their number, and their size, which is held per client."""


async def stream_zip(storage: Storage, directory: UserPath) -> Chunks:
    """The archive of all files and directories below `directory`, in chunks.

    A file that is deleted meanwhile is omitted. Raises what the storage raises.
    """
    archive = Archive()
    async with aclosing(storage.walk(directory)) as batches:
        async for batch in batches:
            for run in _runs(batch):
                async with aclosing(_pack(storage, directory, archive, run)) as chunks:
                    async for chunk in chunks:
                        yield chunk
    for chunk in archive.end():
        yield chunk


def _runs(batch: list[Entry]) -> Iterator[list[Entry]]:
    """A few entries at a time; a large file alone."""
    run: list[Entry] = []
    size = 0
    for entry in batch:
        size += entry.size or 0
        if run and (len(run) == _AT_ONCE or size > _BYTES_AT_ONCE):
            yield run
            run, size = [], entry.size or 0
        run.append(entry)
    if run:
        yield run


async def _pack(
    storage: Storage, directory: UserPath, archive: Archive, run: list[Entry]
) -> Chunks:
    """The part of the archive that holds these entries."""
    files = [entry for entry in run if not entry.is_directory]
    paths = {entry.path: UserPath(directory.user, tuple(entry.path.split("/"))) for entry in files}
    small = await storage.read_small(
        [paths[entry.path] for entry in files if (entry.size or 0) <= SMALL_FILE]
    )
    ready: list[bytes] = []
    for entry in run:
        name = relative_to(entry.path, directory.parts)
        path = paths.get(entry.path)
        content = small.pop(path, None) if path else b""
        if path is None or content is not None:
            ready.append(archive.whole(name, entry.modified, content or b""))
            continue
        if ready:
            together, ready = b"".join(ready), []
            yield together
        async with aclosing(_add_file(storage, path, archive, name)) as chunks:
            async for chunk in chunks:
                yield chunk
    if ready:
        together, ready = b"".join(ready), []
        yield together


async def _add_file(storage: Storage, path: UserPath, archive: Archive, name: str) -> Chunks:
    async with AsyncExitStack() as stack:
        try:
            file = await stack.enter_async_context(storage.open(path))
        except NotFound:
            return
        size = file.entry.size or 0
        head, member = archive.begin(name, file.entry.modified, size)
        yield head
        checksum = 0
        async for chunk in file.read(0, size):
            yield chunk
            checksum = crc32(chunk, checksum)
        yield archive.finish(member, checksum)


async def check_limits(storage: Storage, path: UserPath, limits: Limits) -> None:
    """Raise `TooLarge` for a directory that exceeds the limits of a zip, `NotFound` for none."""
    if not (limits.zip_files or limits.zip_bytes):
        return
    files = size = 0
    async with aclosing(storage.walk(path)) as batches:
        async for batch in batches:
            files += sum(not entry.is_directory for entry in batch)
            size += sum(entry.size or 0 for entry in batch)
            if limits.zip_files and files > limits.zip_files:
                raise TooLarge(f"A zip may hold at most {limits.zip_files} files")
            if limits.zip_bytes and size > limits.zip_bytes:
                raise TooLarge(f"A zip may hold at most {limits.zip_bytes} bytes")
