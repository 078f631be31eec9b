"""The last lines of log files, in the form of `tail -n`.

Memory is constant: files are read backwards in blocks, and a line may have any length. What the
files hold is sent as it is, colours for terminals included.
"""

import codecs
import heapq
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Final

from common.storage.errors import NotFound
from common.storage.paths import CONTROL, UserPath, relative_to
from common.storage.protocol import Entry, OpenFile, Storage
from gateway.http.streaming import Chunks

MOST_FILES: Final = 100
"""Files that are shown, the newest ones."""

MOST_BYTES: Final = 4 << 20
"""Bytes that are shown of a file, however long its lines are."""

_TOTAL: Final = 32 << 20
_BLOCK: Final = 64 << 10
_LARGEST_BLOCK: Final = 512 << 10
"""Blocks grow, since each is a request to S3; most tails end within the first."""

_NEW_LINE: Final = b"\n"


@dataclass(frozen=True, slots=True)
class LogFiles:
    """The newest files below `directory`, the newest last; `left_out` older ones are not shown."""

    directory: UserPath
    files: list[Entry]
    left_out: int


@dataclass(frozen=True, slots=True)
class _Tail:
    """Where the last lines begin; `content`: all of them, if they are few bytes."""

    start: int
    content: bytes
    is_cut: bool


async def newest_files(
    directory: UserPath, batches: AsyncGenerator[list[Entry], None]
) -> LogFiles | None:
    """The newest of the files in `batches`; None if all are empty, or there are none."""
    newest: list[Entry] = []
    count = 0
    async with aclosing(batches):
        async for batch in batches:
            count += len(batch)
            newest = heapq.nlargest(MOST_FILES, [*newest, *batch], key=_age)
    newest.reverse()
    if not any(entry.size for entry in newest):
        return None
    return LogFiles(directory, newest, count - len(newest))


def _age(entry: Entry) -> tuple[float, str]:
    return entry.modified or 0.0, entry.path


async def tail_files(storage: Storage, log: LogFiles, lines: int) -> Chunks:
    """The last `lines` of each file in UTF-8; with more than one, each behind a line with its name.

    A file that is gone by now is omitted. Raises what the storage raises.
    """
    most = min(MOST_BYTES, _TOTAL // len(log.files))
    separator = ""
    if log.left_out:
        yield f"[{log.left_out} older files are not shown]\n".encode()
        separator = "\n"
    for entry in log.files:
        path = UserPath(log.directory.user, tuple(entry.path.split("/")))
        async with AsyncExitStack() as stack:
            try:
                file = await stack.enter_async_context(storage.open(path))
                tail = await _find(file, lines, most)
            except NotFound:
                continue
            head = f"{separator}==> {_shown(entry, log)} <==\n" if len(log.files) > 1 else ""
            ahead = (head + (cut(tail.start) if tail.is_cut else "")).encode()
            separator = "\n"
            async with aclosing(_text(file, tail)) as chunks:
                async for chunk in chunks:
                    yield ahead + chunk  # not before: the storage may refuse these bytes
                    ahead = b""
            if ahead:
                yield ahead


def _shown(entry: Entry, log: LogFiles) -> str:
    """The name below the log directory; a control character could forge a line."""
    return CONTROL.sub("\ufffd", relative_to(entry.path, log.directory.parts))


def cut(size: int) -> str:
    """The line in place of what is left out."""
    return f"[{size} bytes before this are not shown]\n"


def tail_text(text: str, lines: int) -> tuple[bytes, bool]:
    """The last `lines` of a text in UTF-8, and whether they are all of it."""
    content = text.encode(errors="replace")
    start, missing = _line_start(content, _end_of_last_line(content), lines)
    return content[start:], bool(missing)


async def _find(file: OpenFile, lines: int, most: int) -> _Tail:
    """Where the last `lines` begin: at most `most` bytes before the end of the file."""
    start = size = file.entry.size or 0
    floor = max(0, size - most)
    length, missing = _BLOCK, lines
    last = b""
    while start > floor and missing:
        begin = max(floor, start - length)
        block = await _read(file, begin, start - begin)
        end = len(block)
        if start == size:
            last, end = block, _end_of_last_line(block)
        position, missing = _line_start(block, end, missing)
        start, length = begin + position, min(2 * length, _LARGEST_BLOCK)
    is_cut = bool(missing) and start > 0
    if is_cut:
        start += _rest_of_character(await _read(file, start, min(4, size - start)))
    known = size - len(last)
    return _Tail(start, last[start - known :] if start >= known else b"", is_cut)


def _rest_of_character(content: bytes) -> int:
    """How many bytes belong to a character of UTF-8 that began before (RFC 3629, section 3)."""
    return next((n for n, byte in enumerate(content) if byte & 0xC0 != 0x80), 0)


def _end_of_last_line(content: bytes) -> int:
    """The line feed at the very end belongs to the last line."""
    return len(content) - content.endswith(_NEW_LINE)


def _line_start(content: bytes, end: int, lines: int) -> tuple[int, int]:
    """Where the last `lines` before `end` begin, and how many of them are missing: then at 0."""
    found = content.count(_NEW_LINE, 0, end)
    if found < lines:
        return 0, lines - found
    for _ in range(lines):
        end = content.rfind(_NEW_LINE, 0, end)
    return end + 1, 0


async def _read(file: OpenFile, start: int, length: int) -> bytes:
    async with aclosing(file.read(start, length)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def _text(file: OpenFile, tail: _Tail) -> Chunks:
    """The tail in valid UTF-8: bytes that are none become U+FFFD."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    if tail.content:
        yield decode(tail.content, final=True).encode()
        return
    size = file.entry.size or 0
    async with aclosing(file.read(tail.start, size - tail.start)) as chunks:
        async for chunk in chunks:
            yield decode(chunk).encode()
    yield decode(b"", final=True).encode()
