"""Uploads of archives whose members are stored, all of them or none, while the bytes arrive."""

import asyncio
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from hashlib import sha256
from typing import Final, Self

import orjson

from common.storage.errors import InvalidPath
from common.storage.paths import UserPath
from common.storage.protocol import BATCH, Bundle, Chunk, Entry, Storage
from common.usage.quota import Quota, UploadShare
from gateway.files.digests.service import Digests
from gateway.files.digests.sums import RunningSum
from gateway.files.multipart import Waiting
from gateway.files.unpacking.archives import read_archive
from gateway.files.unpacking.contents import Contents, LargeFile, Step, UnpackLimits
from gateway.files.unpacking.members import refused
from gateway.files.unpacking.thread import Source, advance
from gateway.files.uploads import Body, Uploads
from gateway.http.upload_limits import UploadLimits
from gateway.trees.entries import entry_json

_DIGEST: Final = 32
"""Bytes of a SHA-256."""

_THREADS: Final = 128
"""Archives that are read at a time; those of slow clients mostly wait, each in a thread."""


class StoredFiles:
    """The files of an archive, in its order."""

    def __init__(self) -> None:
        self._paths: list[UserPath] = []
        self._sizes = array("Q")
        self._digests = bytearray()
        self.growth = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def begin(self, path: UserPath, sha256: bytes) -> None:
        self._paths.append(path)
        self._digests += sha256

    def add(self, entries: list[Entry]) -> list[tuple[Entry, str]]:
        """The next files are at their places now; returns them with their SHA-256."""
        start = len(self) * _DIGEST
        ends = range(start, len(self._digests), _DIGEST)
        digests = [self._digests[at : at + _DIGEST].hex() for at in ends[: len(entries)]]
        self._sizes.extend(entry.size or 0 for entry in entries)
        self.growth += sum((entry.size or 0) - entry.replaced for entry in entries)
        return list(zip(entries, digests, strict=True))

    async def json(self) -> AsyncGenerator[bytes, None]:
        """The files as a JSON array, in chunks."""
        yield b"["
        for start in range(0, len(self), BATCH):
            paths = map(str, self._paths[start : start + BATCH])
            entries = map(Entry, paths, self._sizes[start : start + BATCH])
            shown = orjson.dumps([*map(entry_json, entries)])[1:-1]
            yield b"," + shown if start else shown
        yield b"]"


class Unpacking:
    """Unpacks archives that clients upload."""

    def __init__(
        self,
        uploads: Uploads,
        storage: Storage,
        upload_limits: UploadLimits,
        quota: Quota,
        digests: Digests,
        limits: UnpackLimits,
    ) -> None:
        self._uploads = uploads
        self._storage = storage
        self._upload_limits = upload_limits
        self._quota = quota
        self._digests = digests
        self._limits = limits
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="unpacking")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    async def receive(self, body: Body, directory: UserPath, *, waiting: Waiting) -> StoredFiles:
        """Store the members of the archive in the form below `directory`.

        They appear when all of them are there and the form is complete. Raises as `Uploads.receive`
        does, `Invalid` for what is no archive or holds what cannot be stored, and `TooLarge` for
        one that holds too much.
        """
        await self._upload_limits.check(0)
        async with (
            self._quota.upload(directory.user) as share,
            self._uploads.read(body, waiting=waiting) as chunks,
        ):
            try:
                async with self._storage.bundle(directory.user) as bundle:
                    stored = await self._unpack(chunks, directory, bundle, share)
            except InvalidPath as error:
                raise refused(str(directory), error) from error
            share.grow(stored.growth)
            return stored

    async def _unpack(
        self,
        chunks: AsyncIterator[Chunk],
        directory: UserPath,
        bundle: Bundle,
        share: UploadShare,
    ) -> StoredFiles:
        contents, stored = Contents(directory, self._limits), StoredFiles()
        source = Source(chunks)
        steps = contents.steps(read_archive(source))
        async with self._one_ahead(steps, source) as ahead:
            async for step in ahead:
                if isinstance(step, LargeFile):
                    total = RunningSum()
                    pieces = self._pieces(step.pieces, source, share, total)
                    await bundle.write(step.path, pieces)
                    stored.begin(step.path, await total.digest())
                elif step:
                    for file in step:
                        stored.begin(file.path, sha256(file.content).digest())
                    await share.add(sum(len(file.content) for file in step))
                    await bundle.add(step)
        async for _ in chunks:  # whatever follows the archive's end
            pass
        are_noted = True
        async for entries in bundle.place(contents.empty_directories()):
            placed = stored.add(entries)
            if are_noted:  # else each try would take time, in which only some files are visible
                are_noted = await self._digests.note_all(directory.user, placed)
        return stored

    @asynccontextmanager
    async def _one_ahead(
        self, steps: Iterator[Step], source: Source
    ) -> AsyncIterator[AsyncIterator[Step]]:
        """The steps; while small files are stored, the next ones are read."""
        coming = asyncio.ensure_future(advance(self._threads, steps, source))

        async def found() -> AsyncGenerator[Step, None]:
            nonlocal coming
            while (step := await coming) is not None:
                if isinstance(step, LargeFile):
                    yield step  # whose pieces are read first
                    coming = asyncio.ensure_future(advance(self._threads, steps, source))
                else:
                    coming = asyncio.ensure_future(advance(self._threads, steps, source))
                    yield step

        try:
            async with aclosing(found()) as ahead:
                yield ahead
        finally:
            coming.cancel()
            await asyncio.wait([coming])
            if not coming.cancelled():
                coming.exception()  # retrieved: the first error counts

    async def _pieces(
        self, pieces: Iterator[bytes], source: Source, share: UploadShare, total: RunningSum
    ) -> AsyncIterator[bytes]:
        while (piece := await advance(self._threads, pieces, source)) is not None:
            await share.add(len(piece))
            await total.add(piece)
            yield piece
