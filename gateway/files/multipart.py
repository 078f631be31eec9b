"""Find the file in a multipart form (RFC 7578, RFC 2046) and read it as it arrives.

aiohttp's own reader turns a part that is multipart itself (a saved web page, a mail) into a nested
reader, waits without limit for a slow client, and copies each chunk twice.
"""

import asyncio
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final

from aiohttp import StreamReader, content_disposition_filename, parse_content_disposition

from common.telemetry.logs import get_logger
from gateway.http.digest_fields import CONTENT_DIGEST, REPR_DIGEST
from gateway.http.errors import TooSlow

_HEAD_CHUNK: Final = 1 << 16
_MAX_LINE: Final = 8_190
_MAX_HEADERS: Final = 128
_MAX_PARTS: Final = 1_000
_MAX_VALUE: Final = 256
"""Bytes that are kept of a field's value."""

MAX_AROUND: Final = 1 << 20
"""Bytes of a form besides the content of its file."""

_BOUNDARY: Final = re.compile(
    r"""boundary\s*=\s*"?([ -!#-:<-~]{0,69}[!#-:<-~])"?\s*(?:;|$)""", re.I
)
_HEADER: Final = re.compile(rb"([!#$%&'*+.^`|~\w-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_DIGESTS: Final = {name.lower().encode(): name for name in (REPR_DIGEST, CONTENT_DIGEST)}
_USUAL: Final = re.compile(r'form-data; name="([^"\\]*)"; filename="([^"\\]*)"', re.ASCII)
_FIELD: Final = re.compile(r'form-data; name="([^"\\]*)"', re.ASCII)
_PLAIN_NAME: Final = re.compile(r';\s*filename="((?:[^"\\]|\\.)*)"', re.IGNORECASE | re.DOTALL)

Waiting = Callable[[], AbstractAsyncContextManager[None]]
"""Makes what surrounds a wait for the client."""

log = get_logger()


class BrokenForm(Exception):
    """The body is not a multipart form, or it ends early."""


class FormReader:
    """Reads the form in `stream` once, part by part.

    Each read waits at most `timeout` seconds (0: no limit) for the client and then raises
    `TooSlow`; `waiting()` surrounds that wait. All methods raise `BrokenForm`, and what aiohttp
    raises for a broken body.
    """

    def __init__(
        self,
        content_type: str,
        stream: StreamReader,
        *,
        timeout: float,
        waiting: Waiting = nullcontext,
        kept: str = "",
    ) -> None:
        """`kept`: the form field whose values are kept in `values`."""
        boundary = _BOUNDARY.search(content_type)
        if boundary is None:
            raise BrokenForm("no boundary")
        self._delimiter = b"\r\n--" + boundary[1].encode()
        self._stream = stream
        self._timeout = timeout or None
        self._waiting = waiting
        self._buffer = b"\r\n"  # belongs to the first delimiter
        self._position = 0
        self._is_in_part = True  # the preamble reads like one
        self._parts = 0
        self._around = 0
        self._kept = kept or "\0"  # which is in no header
        self.values: list[bytes] = []
        """What the kept field has where it was found so far."""
        self.digests: dict[str, list[str]] = {}
        """Fields with digests among the headers of the current part, their lines by name."""

    async def find_file(self, field: str) -> str | None:
        """Skip to the next file of the form field; returns its name.

        None if the form ends without one: it is complete then.
        """
        while (disposition := await self._next_part()) is not None:
            name = file_name(disposition, field)
            if name is not None:
                return name
            if self._kept in disposition and self._kept == field_name(disposition):
                self.values.append(await self._value())
        return None

    async def _value(self) -> bytes:
        """The content of the current part, of which the end is cut off if it is long."""
        value = b""
        while chunk := await self.read(_HEAD_CHUNK):
            self._count(len(chunk))
            value = (value + chunk)[:_MAX_VALUE]
        return value

    async def read(self, size: int) -> bytes:
        """About `size` bytes of the current part; empty at its end."""
        while self._is_in_part:
            content = self._take_content()
            if content:
                return content
            if self._is_in_part:
                await self._fill(size)
        return b""

    def _take_content(self) -> bytes:
        """What is buffered, up to the delimiter, or to what may be the start of one."""
        start, buffer = self._position, self._buffer
        end = buffer.find(self._delimiter, start)
        if end >= 0:
            self._is_in_part = False
            self._position = end + len(self._delimiter)
            return buffer[start:end]
        end = buffer.find(b"\r", max(start, len(buffer) - len(self._delimiter) + 1))
        self._buffer = b"" if end < 0 else buffer[end:]
        self._position = 0
        return buffer[start:] if end < 0 else buffer[start:end]

    async def _next_part(self) -> str | None:
        """Skip what is left of the current part; returns the next one's `Content-Disposition`."""
        while skipped := await self.read(_HEAD_CHUNK):
            self._count(len(skipped))
        self._count(len(self._delimiter))
        rest = (await self._line(may_end=True)).strip()
        if rest == b"--":
            return None
        self._parts += 1
        if rest or self._parts > _MAX_PARTS:
            raise BrokenForm("no delimiter, or too many parts")
        self._is_in_part = True
        return await self._disposition()

    async def _disposition(self) -> str:
        found = b""
        self.digests = {}
        for _ in range(_MAX_HEADERS):
            line = await self._line()
            if not line:
                return found.decode("utf-8", "surrogateescape")
            header = _HEADER.fullmatch(line)
            if header is None:
                raise BrokenForm("not a header")
            name = header[1].lower()
            if name == b"content-disposition":
                found = header[2]
            elif name in _DIGESTS:
                lines = self.digests.setdefault(_DIGESTS[name], [])
                lines.append(header[2].decode("latin-1"))
        raise BrokenForm("too many headers")

    async def _line(self, *, may_end: bool = False) -> bytes:
        """The next line without its end; with `may_end`, the body may end instead."""
        while (end := self._buffer.find(b"\n", self._position)) < 0:
            end = len(self._buffer)
            if end - self._position > _MAX_LINE:
                break
            if may_end and self._stream.at_eof():
                break
            await self._fill(_HEAD_CHUNK, may_end=may_end)
        line = self._buffer[self._position : end]
        if len(line) > _MAX_LINE:
            raise BrokenForm("too long a line")
        self._position = end + 1
        self._count(len(line))
        return line.removesuffix(b"\r")

    def _count(self, size: int) -> None:
        """Count bytes that are no content of a file."""
        self._around += size
        if self._around > MAX_AROUND:
            raise BrokenForm("too much around the file")

    async def _fill(self, size: int, *, may_end: bool = False) -> None:
        """Add up to `size` bytes of the body to the buffer."""
        data = self._stream.read_nowait(size)
        if not data and not self._stream.is_eof():
            try:
                async with self._waiting(), asyncio.timeout(self._timeout):
                    data = await self._stream.read(size)
            except TimeoutError as error:
                log.info("client.given_up", owed="body")
                raise TooSlow("The body did not come in time") from error
            except RuntimeError as error:  # aiohttp's, the connection was lost before this read
                raise ConnectionResetError("the client went away") from error
        if not data and not may_end:
            raise BrokenForm("the body ends early")
        self._buffer = self._buffer[self._position :] + data
        self._position = 0


def file_name(disposition: str, field: str) -> str | None:
    """The file name in a `Content-Disposition`; None for another field, or for no file."""
    usual = _USUAL.fullmatch(disposition)  # takes a small part of the time of aiohttp's parser
    if usual is not None:
        return _unescaped(usual[2]) if usual[1] == field else None
    _, parameters = parse_content_disposition(disposition)
    name = content_disposition_filename(parameters, "filename")
    if name is None or content_disposition_filename(parameters, "name") != field:
        return None
    plain = _PLAIN_NAME.search(disposition)
    if plain is not None and "filename*" not in disposition:
        # clients escape nothing but the quotation mark: a backslash is part of the name
        return _unescaped(plain[1].replace("\\\\", "\\").replace('\\"', '"'))
    return name


def field_name(disposition: str) -> str | None:
    """The form field that a `Content-Disposition` names."""
    usual = _FIELD.fullmatch(disposition)
    if usual is not None:
        return usual[1]
    _, parameters = parse_content_disposition(disposition)
    return content_disposition_filename(parameters, "name")


def _unescaped(name: str) -> str:
    """The name without the three escapes of browsers (WHATWG HTML, multipart/form-data)."""
    return name.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")
