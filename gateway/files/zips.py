"""Stream a directory as a zip archive. Memory does not grow with the sizes of files, and with their
number only by the list of names that the format requires at the end."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, aclosing
from typing import Final

from common.storage.errors import NotFound
from common.storage.paths import UserPath, relative_to
from common.storage.protocol import SMALL_FILE, Entry, Storage
from gateway.files.zip_format import BLOCKS, Archive
from gateway.http.errors import TooLarge
from gateway.http.streaming import Chunks
from gateway.settings import Limits

_AT_ONCE: Final = 32
_BYTES_AT_ONCE: Final = 128 << 10
"""Small files that are read together: their number, and their size, which is held per client."""

_MOST_LISTED: Final = 1_000
"""Entries up to which a directory is listed before its archive begins, which takes one step."""


class TreeChanged(Exception):
    """A file is not the one whose size the archive's length counts on."""


async def list_few(storage: Storage, directory: UserPath) -> list[Entry] | None:
    """All entries below `directory`, in order; None for too many to hold, or if one of them has a
    name that no path can address, so that its file cannot be read."""
    found: list[Entry] = []
    async with aclosing(storage.walk(directory)) as batches:
        async for batch in batches:
            found += batch
            if len(found) > _MOST_LISTED or any("\ufffd" in entry.path for entry in batch):
                return None
    return found


def zip_length(directory: UserPath, listing: list[Entry]) -> int:
    """The length of the archive of these entries, in bytes."""
    archive = Archive()
    for entry in listing:
        size = entry.size or 0
        archive.skip(relative_to(entry.path, directory.parts), size, streamed=size > SMALL_FILE)
    return archive.length()


async def stream_zip(
    storage: Storage, directory: UserPath, listing: list[Entry] | None = None
) -> Chunks:
    """The archive of all files and directories below `directory`, in chunks.

    With a `listing`, exactly of these entries: it has `zip_length`, and raises `TreeChanged` where
    a file has been changed or deleted since. Without, a file that is deleted before its turn is
    omitted. Raises what the storage raises.
    """
    archive, is_fixed = Archive(), listing is not None
    walk = storage.walk(directory) if listing is None else _in_one(listing)
    async with aclosing(walk) as batches:
        async for batch in batches:
            for run in _runs(batch):
                packed = _pack(storage, directory, archive, run, is_fixed=is_fixed)
                async with aclosing(packed) as chunks:
                    async for chunk in chunks:
                        yield chunk
    for chunk in archive.end():
        yield chunk


async def _in_one(listing: list[Entry]) -> AsyncGenerator[list[Entry], None]:
    yield listing


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
    storage: Storage, directory: UserPath, archive: Archive, run: list[Entry], *, is_fixed: bool
) -> Chunks:
    """The part of the archive that holds these entries."""
    files = [entry for entry in run if not entry.is_directory]
    paths = {entry.path: UserPath(directory.user, tuple(entry.path.split("/"))) for entry in files}
    expected = {paths[entry.path] for entry in files if (entry.size or 0) <= SMALL_FILE}
    small = await storage.read_small(list(expected))
    ready: list[bytes] = []
    for entry in run:
        name = relative_to(entry.path, directory.parts)
        path = paths.get(entry.path)
        content = small.pop(path, None) if path else b""
        if is_fixed and path in expected and len(content or b"") != entry.size:
            raise TreeChanged(entry.path)
        if path is None or content is not None:
            ready.append(archive.whole(name, entry.modified, content or b""))
            continue
        if ready:
            together, ready = b"".join(ready), []
            yield together
        same = entry if is_fixed else None
        async with aclosing(_add_file(storage, path, archive, name, same)) as chunks:
            async for chunk in chunks:
                yield chunk
    if ready:
        yield b"".join(ready)


async def _add_file(
    storage: Storage, path: UserPath, archive: Archive, name: str, same: Entry | None
) -> Chunks:
    """A file that is not small; with `same`, no other version of it."""
    async with AsyncExitStack() as stack:
        try:
            file = await stack.enter_async_context(storage.open(path))
        except NotFound:
            if same is not None:
                raise TreeChanged(same.path) from None
            return
        if same is not None and file.entry.etag != same.etag:
            raise TreeChanged(same.path)
        size = file.entry.size or 0
        ahead, member = archive.begin(name, file.entry.modified, size)
        async with aclosing(_read_ahead(file.read_blocks(BLOCKS))) as chunks:
            async for chunk in chunks:
                if ahead:  # not before the first bytes are there: the storage may refuse them
                    yield ahead
                    ahead = b""
                member.pack(chunk)
                yield chunk
        yield ahead + archive.finish(member)


async def _read_ahead(
    chunks: AsyncGenerator[bytearray, None],
) -> AsyncGenerator[bytearray, None]:
    """The chunks, of which the next is read while one is sent."""
    async with aclosing(chunks):
        following = asyncio.ensure_future(anext(chunks, None))
        try:
            while (chunk := await following) is not None:
                following = asyncio.ensure_future(anext(chunks, None))
                yield chunk
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


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
