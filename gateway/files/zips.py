"""A directory as a zip archive, streamed: stored, not compressed, since images hardly shrink.

`zipfile` writes to a sink that cannot seek, so sizes and checksums follow each file's bytes, and
only the list of names is kept until the end. Memory does not depend on the files' sizes.
"""

import asyncio
import time
import zipfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from common.storage.errors import NotFound
from common.storage.paths import UserPath, relative_to
from common.storage.protocol import Entry, Storage
from gateway.errors import TooLarge
from gateway.settings import Limits

_ZIP64_ABOVE: Final = 2**31 - 1
_OFF_LOOP: Final = 1 << 17
"""Pieces larger than this are summed up in a thread."""

_BUFFER: Final = 1 << 18
_FILE_MODE: Final = 0o100644 << 16
_DIRECTORY_MODE: Final = (0o40755 << 16) | 0x10
_FIRST: Final = 315_619_200.0  # 1980-01-02: zip knows nothing before
_LAST: Final = 4_354_732_800.0  # 2107-12-31: nor later


class _Sink:
    """What `zipfile` writes to; `take` hands on what has been written."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.size = 0

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        pieces, self._pieces, self.size = self._pieces, [], 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def stream_zip(storage: Storage, directory: UserPath) -> AsyncGenerator[bytes, None]:
    """The archive, piece by piece: all files and directories below `directory`.

    A file that vanishes meanwhile is left out. Raises whatever the storage raises.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        async for entry in storage.walk(directory):
            name = relative_to(entry.path, directory.parts)
            if entry.is_directory:
                archive.writestr(_info(name, entry), b"")
            else:
                member = _add_file(storage, directory.user, entry, name, archive, sink)
                async with aclosing(member):
                    async for piece in member:
                        yield piece
            if sink.size >= _BUFFER:
                yield sink.take()
    yield sink.take()


async def _add_file(
    storage: Storage,
    user: str,
    entry: Entry,
    name: str,
    archive: zipfile.ZipFile,
    sink: _Sink,
) -> AsyncGenerator[bytes, None]:
    path = UserPath(user, tuple(entry.path.split("/")))
    try:
        async with storage.open(path) as file:
            size = file.entry.size or 0
            with archive.open(_info(name, entry), "w", force_zip64=size > _ZIP64_ABOVE) as member:
                async for piece in file.read(0, size):
                    if len(piece) > _OFF_LOOP:
                        await asyncio.to_thread(member.write, piece)
                    else:
                        member.write(piece)
                    if sink.size >= _BUFFER:
                        yield sink.take()
    except NotFound:
        return


def _info(name: str, entry: Entry) -> zipfile.ZipInfo:
    moment = time.gmtime(min(max(entry.modified or 0.0, _FIRST), _LAST))
    info = zipfile.ZipInfo(name, date_time=moment[:6])
    info.external_attr = _DIRECTORY_MODE if entry.is_directory else _FILE_MODE
    return info


async def check_limits(storage: Storage, path: UserPath, limits: Limits) -> None:
    """Raises `TooLarge` for a directory that holds more than a zip may."""
    if not (limits.zip_files or limits.zip_bytes):
        return
    files = size = 0
    try:
        async for entry in storage.walk(path):
            files += 0 if entry.is_directory else 1
            size += entry.size or 0
            if limits.zip_files and files > limits.zip_files:
                raise TooLarge(f"A zip may hold at most {limits.zip_files} files")
            if limits.zip_bytes and size > limits.zip_bytes:
                raise TooLarge(f"A zip may hold at most {limits.zip_bytes} bytes")
    except NotFound:
        return  # a file, or nothing
