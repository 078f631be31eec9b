"""An incremental reader of HTTP/1.1 answers (RFC 9112): whole ones only count."""

import re
from typing import Final

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_BODILESS: Final = frozenset({204, 304})
_LARGEST_HEAD: Final = 65_536


class NotHttp(Exception):
    """The server sent something that is no answer, or one whose end cannot be told."""


class AnswerReader:
    """Feeds on what a connection receives; remembers only what it needs."""

    def __init__(self, *, keep_bodies: bool = False) -> None:
        self._keep = keep_bodies
        self._pending = b""
        self._step = self._read_head
        self._status = 0
        self._left = 0
        self._body: list[bytes] = []
        self._done: list[tuple[int, bytes]] = []

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Status and body (empty unless bodies are kept) of every answer that is whole by now."""
        if self._pending:
            data, self._pending = self._pending + data, b""
        position = 0
        while position < len(data):
            position = self._step(data, position)
        done, self._done = self._done, []
        return done

    def _wait(self, data: bytes, position: int) -> int:
        """Go on once more has come."""
        self._pending = data[position:]
        if len(self._pending) > _LARGEST_HEAD:
            raise NotHttp("the head has no end")
        return len(data)

    def _read_head(self, data: bytes, position: int) -> int:
        end = data.find(_HEAD_END, position)
        if end < 0:
            return self._wait(data, position)
        if not data.startswith(b"HTTP/1.1 ", position):
            raise NotHttp(f"no answer: {data[position : position + 80]!r}")
        self._status = int(data[position + 9 : position + 12])
        if found := _LENGTH.search(data, position, end):
            self._left = int(found[1])
            self._step = self._read_body
            if not self._left:
                self._complete()
        elif _CHUNKED.search(data, position, end):
            self._step = self._read_chunk_size
        elif self._status in _BODILESS:
            self._complete()
        else:
            raise NotHttp(f"an answer without a length: {data[position:end]!r}")
        return end + 4

    def _read_body(self, data: bytes, position: int) -> int:
        position = self._take(data, position)
        if not self._left:
            self._complete()
        return position

    def _take(self, data: bytes, position: int) -> int:
        size = min(self._left, len(data) - position)
        if self._keep:
            self._body.append(data[position : position + size])
        self._left -= size
        return position + size

    def _read_chunk_size(self, data: bytes, position: int) -> int:
        end = data.find(b"\r\n", position)
        if end < 0:
            return self._wait(data, position)
        self._left = int(data[position:end].partition(b";")[0], 16)
        self._step = self._read_chunk if self._left else self._read_trailer
        return end + 2

    def _read_chunk(self, data: bytes, position: int) -> int:
        if self._left:
            return self._take(data, position)
        if len(data) - position < 2:
            return self._wait(data, position)
        self._step = self._read_chunk_size
        return position + 2

    def _read_trailer(self, data: bytes, position: int) -> int:
        end = data.find(b"\r\n", position)
        if end < 0:
            return self._wait(data, position)
        if end == position:
            self._complete()
        return end + 2

    def _complete(self) -> None:
        self._done.append((self._status, b"".join(self._body)))
        self._body = []
        self._step = self._read_head
