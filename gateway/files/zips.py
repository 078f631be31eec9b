"""A directory as a zip archive, streamed: memory depends neither on how large the files are nor on
how many there are, but for the list of names that the format puts at the end."""

from binascii import crc32
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, aclosing
from typing import Final

from common.storage.errors import NotFound
from common.storage.paths import UserPath, relative_to
from common.storage.protocol import SMALL_FILE, Entry, Storage
from gateway.files.zip_format import Archive
from gateway.http.errors import TooLarge
from gateway.settings import Limits

_AT_ONCE: Final = 32
_BYTES_AT_ONCE: Final = 128 << 10
"""How many small files are read together, and how much of them a slow client makes us hold."""

Pieces = AsyncGenerator[bytes | memoryview, None]


async def stream_zip(storage: Storage, directory: UserPath) -> Pieces:
    """The archive, piece by piece: all files and directories below `directory`.

    A file that vanishes meanwhile is left out. Raises whatever the storage raises.
    """
    archive = Archive()
    async with aclosing(storage.walk(directory)) as batches:
        async for batch in batches:
            for run in _runs(batch):
                async with aclosing(_pack(storage, directory, archive, run)) as pieces:
                    async for piece in pieces:
                        yield piece
    for piece in archive.end():
        yield piece


def _runs(batch: list[Entry]) -> Iterator[list[Entry]]:
    """A few entries at a time; a large file by itself."""
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
) -> Pieces:
    """Everything in the archive that belongs to these entries."""
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
        async with aclosing(_add_file(storage, path, archive, name)) as pieces:
            async for piece in pieces:
                yield piece
    if ready:
        together, ready = b"".join(ready), []
        yield together


async def _add_file(storage: Storage, path: UserPath, archive: Archive, name: str) -> Pieces:
    async with AsyncExitStack() as stack:
        try:
            file = await stack.enter_async_context(storage.open(path))
        except NotFound:
            return
        size = file.entry.size or 0
        head, member = archive.begin(name, file.entry.modified, size)
        yield head
        checksum = 0
        async for piece in file.read(0, size):
            yield piece
            checksum = crc32(piece, checksum)
        yield archive.finish(member, checksum)


async def check_limits(storage: Storage, path: UserPath, limits: Limits) -> None:
    """Raises `TooLarge` for a directory that holds more than a zip may, `NotFound` for none."""
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
