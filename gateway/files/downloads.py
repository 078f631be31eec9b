"""Downloads: files with ranges and conditions, directories as zip archives."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from email.utils import formatdate
from http import HTTPStatus
from typing import TypeVar
from uuid import uuid4

from aiohttp import hdrs
from multidict import MultiMapping

from common.storage.errors import NotFound
from common.storage.headers import CACHE_CONTROL, attachment, content_type
from common.storage.paths import UserPath
from common.storage.protocol import OpenFile, Storage
from gateway.files.digests.service import Digests
from gateway.files.ranges import (
    Span,
    is_not_modified,
    is_precondition_failed,
    is_range_valid,
    parse_ranges,
)
from gateway.http.budgets import Kind
from gateway.http.digest_fields import REPR_DIGEST, repr_digest, wants_digest
from gateway.http.shares import Slot
from gateway.http.streaming import Chunks, Content
from gateway.settings import Limits
from gateway.trees.zips import Packing, check_limits, everything_below, list_few, send_zip

Response = TypeVar("Response")


class OtherVersion(Exception):
    """The file is not the version that the request names; `headers` describe the one it is."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__("The file is not the one that was expected")
        self.headers = headers


class NoSuchRange(Exception):
    """All requested ranges begin after the end of the file, which has `size` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__("No part of the file lies in this range")
        self.size = size


async def download(
    storage: Storage,
    digests: Digests,
    path: UserPath,
    conditions: MultiMapping[str],
    limits: Limits,
    send: Callable[[Content, Slot], Awaitable[Response]],
    *,
    work: Callable[[Kind], AbstractAsyncContextManager[Slot]],
) -> Response:
    """Send a file, or a directory as a zip archive; `conditions` are the request's headers.

    A file's digest is among the answer's headers if they want it and `digests` finds it.

    `work` gives a slot of the caller's share, which `send` lends while the client stands still.
    Raises `NotFound`, `TooLarge`, `OtherVersion`, `NoSuchRange`.
    """
    async with work("transfer") as slot, AsyncExitStack() as stack:
        try:
            file = await stack.enter_async_context(storage.open(path))
        except NotFound:
            file = None
        if file is not None:
            content = _file_content(file, path.name, conditions)
            if content.chunks is not None and wants_digest(conditions):
                sha256 = await digests.find(path, file, slot)
                if sha256 is not None:
                    # of the whole file, whatever part of it is sent (RFC 9530)
                    content.headers[REPR_DIGEST] = repr_digest(sha256)
            return await send(content, slot)
    directory = path.as_directory
    await storage.stat(directory)
    packing = Packing(storage, path.user, everything_below(storage, directory))
    async with work("zip") as slot:
        await check_limits(packing, limits)
        listing = await list_few(packing)
        return await send_zip(packing, listing, directory.name or "files", send, slot)


def _file_content(file: OpenFile, name: str, conditions: Mapping[str, str]) -> Content:
    entry = file.entry
    size, etag = entry.size or 0, entry.etag or ""
    headers: dict[str, str] = {
        hdrs.ETAG: f'"{etag}"',
        hdrs.ACCEPT_RANGES: "bytes",
        hdrs.CACHE_CONTROL: CACHE_CONTROL,
        hdrs.CONTENT_DISPOSITION: attachment(name),
    }
    if entry.modified is not None:
        headers[hdrs.LAST_MODIFIED] = formatdate(int(entry.modified), usegmt=True)
    if is_precondition_failed(conditions, etag, entry.modified):
        raise OtherVersion(headers)
    if is_not_modified(conditions, etag, entry.modified):
        return Content(HTTPStatus.NOT_MODIFIED, headers)
    spans = None
    if is_range_valid(conditions, etag, entry.modified):
        spans = parse_ranges(conditions.get(hdrs.RANGE), size)
    headers[hdrs.CONTENT_TYPE] = content_type(name)
    if spans is None:
        return Content(HTTPStatus.OK, headers, file.read(0, size), size)
    if not spans:
        raise NoSuchRange(size)
    if len(spans) == 1:
        span = spans[0]
        headers[hdrs.CONTENT_RANGE] = span.content_range(size)
        chunks = file.read(span.start, span.length)
        return Content(HTTPStatus.PARTIAL_CONTENT, headers, chunks, span.length)
    return _multipart_content(file, spans, headers)


def _multipart_content(file: OpenFile, spans: list[Span], headers: dict[str, str]) -> Content:
    """Several ranges: `multipart/byteranges` (RFC 9110, section 14.6)."""
    boundary = uuid4().hex
    size, kind = file.entry.size or 0, headers[hdrs.CONTENT_TYPE]
    heads = [
        f"\r\n--{boundary}\r\nContent-Type: {kind}\r\n"
        f"Content-Range: {span.content_range(size)}\r\n\r\n".encode()
        for span in spans
    ]
    tail = f"\r\n--{boundary}--\r\n".encode()

    async def parts() -> Chunks:
        for head, span in zip(heads, spans, strict=True):
            ahead = head  # sent with the first bytes, which the storage may refuse
            async for chunk in file.read(span.start, span.length):
                yield ahead + chunk
                ahead = b""
        yield tail

    return Content(
        HTTPStatus.PARTIAL_CONTENT,
        headers | {hdrs.CONTENT_TYPE: f"multipart/byteranges; boundary={boundary}"},
        parts(),
        sum(map(len, heads)) + sum(span.length for span in spans) + len(tail),
    )
