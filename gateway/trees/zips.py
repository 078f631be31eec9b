"""Stream files of a user's tree as a zip archive. Memory does not grow with the sizes of files, and
with their number only by the list of names that the format requires at the end."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, TypeVar

from aiohttp import hdrs

from common.storage.errors import NotFound
from common.storage.headers import CACHE_CONTROL, attachment
from common.storage.paths import UserPath, relative_to
from common.storage.protocol import SMALL_FILE, Entry, Storage
from gateway.http.errors import TooLarge
from gateway.http.shares import Slot
from gateway.http.streaming import Chunks, Content
from gateway.settings import Limits
from gateway.trees.zip_format import BLOCKS, Archive

Response = TypeVar("Response")

Member = tuple[str, Entry]
"""A file or directory with its name in the archive; a directory's ends in a slash."""

Walk = Callable[[], AsyncGenerator[list[Member], None]]
"""Begins to yield the members of an archive, in order and in batches."""

_AT_ONCE: Final = 32
_BYTES_AT_ONCE: Final = 128 << 10
"""Small files that are read together: their number, and their size, which is held per client."""

_MOST_LISTED: Final = 1_000
"""Entries up to which a directory is listed before its archive begins, which takes one step."""


class TreeChanged(Exception):
    """A file is not the one whose size the archive's length counts on."""


@dataclass(frozen=True, slots=True)
class Packing:
    """What an archive holds: `walk` yields files and directories of the user's tree."""

    storage: Storage
    user: str
    walk: Walk


def everything_below(storage: Storage, directory: UserPath) -> Walk:
    """All files and directories below `directory`, named relative to it."""

    async def walk() -> AsyncGenerator[list[Member], None]:
        async with aclosing(storage.walk(directory)) as batches:
            async for batch in batches:
                yield [(relative_to(entry.path, directory.parts), entry) for entry in batch]

    return walk


async def check_limits(packing: Packing, limits: Limits) -> None:
    """Raise `TooLarge` for what exceeds the limits of a zip, and what `walk` raises."""
    if not (limits.zip_files or limits.zip_bytes):
        return
    files = size = 0
    async with aclosing(packing.walk()) as batches:
        async for batch in batches:
            files += sum(not entry.is_directory for _, entry in batch)
            size += sum(entry.size or 0 for _, entry in batch)
            if limits.zip_files and files > limits.zip_files:
                raise TooLarge(f"A zip may hold at most {limits.zip_files} files")
            if limits.zip_bytes and size > limits.zip_bytes:
                raise TooLarge(f"A zip may hold at most {limits.zip_bytes} bytes")


async def list_few(packing: Packing) -> list[Member] | None:
    """All members, in order; None for too many to hold, or if one of them has a name that no path
    can address, so that its file cannot be read."""
    found: list[Member] = []
    async with aclosing(packing.walk()) as batches:
        async for batch in batches:
            found += batch
            if len(found) > _MOST_LISTED or any("\ufffd" in entry.path for _, entry in batch):
                return None
    return found


async def send_zip(
    packing: Packing,
    listing: list[Member] | None,
    name: str,
    send: Callable[[Content, Slot], Awaitable[Response]],
    slot: Slot,
) -> Response:
    """Send the archive as `<name>.zip`; with a `listing` of `list_few`, with its length."""
    headers: dict[str, str] = {
        hdrs.CONTENT_TYPE: "application/zip",
        hdrs.CONTENT_DISPOSITION: attachment(f"{name}.zip"),
        hdrs.CACHE_CONTROL: CACHE_CONTROL,
    }

    def content(listing: list[Member] | None) -> Content:
        length = None if listing is None else zip_length(listing)
        return Content(HTTPStatus.OK, headers, stream_zip(packing, listing), length)

    try:
        return await send(content(listing), slot)
    except TreeChanged:  # before the head was sent: once more, without a length
        return await send(content(None), slot)


def zip_length(listing: list[Member]) -> int:
    """The length of the archive of these members, in bytes."""
    archive = Archive()
    for name, entry in listing:
        size = entry.size or 0
        archive.skip(name, size, streamed=size > SMALL_FILE)
    return archive.length()


async def stream_zip(packing: Packing, listing: list[Member] | None = None) -> Chunks:
    """The archive, in chunks.

    With a `listing`, exactly of these members: it has `zip_length`, and raises `TreeChanged` where
    a file has been changed or deleted since. Without, a file that is deleted before its turn is
    omitted. Raises what the storage raises.
    """
    archive, is_fixed = Archive(), listing is not None
    walk = packing.walk() if listing is None else _in_one(listing)
    async with aclosing(walk) as batches:
        async for batch in batches:
            for run in _runs(batch):
                packed = _pack(packing, archive, run, is_fixed=is_fixed)
                async with aclosing(packed) as chunks:
                    async for chunk in chunks:
                        yield chunk
    for chunk in archive.end():
        yield chunk


async def _in_one(listing: list[Member]) -> AsyncGenerator[list[Member], None]:
    yield listing


def _runs(batch: list[Member]) -> Iterator[list[Member]]:
    """A few members at a time; a large file alone."""
    run: list[Member] = []
    size = 0
    for member in batch:
        own = member[1].size or 0
        size += own
        if run and (len(run) == _AT_ONCE or size > _BYTES_AT_ONCE):
            yield run
            run, size = [], own
        run.append(member)
    if run:
        yield run


async def _pack(packing: Packing, archive: Archive, run: list[Member], *, is_fixed: bool) -> Chunks:
    """The part of the archive that holds these members."""
    storage = packing.storage
    files = [entry for _, entry in run if not entry.is_directory]
    paths = {entry.path: UserPath(packing.user, tuple(entry.path.split("/"))) for entry in files}
    expected = {paths[entry.path] for entry in files if (entry.size or 0) <= SMALL_FILE}
    small = await storage.read_small(list(expected))
    ready: list[bytes] = []
    for name, entry in run:
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
