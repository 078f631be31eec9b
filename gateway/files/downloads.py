"""Bytes out: files with ranges and conditions, directories as zip archives."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from email.utils import formatdate
from uuid import uuid4

from aiohttp import hdrs, web

from common.storage.errors import NotFound
from common.storage.headers import CACHE_CONTROL, attachment, content_type
from common.storage.paths import UserPath
from common.storage.protocol import OpenFile, Storage
from common.telemetry.logs import get_logger
from gateway.files.ranges import (
    Span,
    is_not_modified,
    is_precondition_failed,
    is_range_valid,
    parse_ranges,
)
from gateway.files.zips import Pieces, check_limits, stream_zip
from gateway.http.errors import detail_response
from gateway.http.middlewares import start_stream
from gateway.metrics import TRANSFERRED, TRANSFERS
from gateway.settings import Limits

log = get_logger()


async def download(
    request: web.Request, storage: Storage, path: UserPath, limits: Limits
) -> web.StreamResponse:
    """Answer with the file's bytes, or with a zip of the directory.

    Raises `NotFound`, `TooLarge`.
    """
    async with AsyncExitStack() as stack:
        try:
            file = await stack.enter_async_context(storage.open(path))
        except NotFound:
            file = None
        if file is not None:
            return await _send_file(request, file, path.name)
    directory = UserPath(path.user, path.parts, slash=True)
    await storage.stat(directory)
    await check_limits(storage, directory, limits)
    return await _send_zip(request, storage, directory)


async def _send_file(request: web.Request, file: OpenFile, name: str) -> web.StreamResponse:
    entry = file.entry
    size, etag = entry.size or 0, entry.etag or ""
    headers = {
        hdrs.ETAG: f'"{etag}"',
        hdrs.ACCEPT_RANGES: "bytes",
        hdrs.CACHE_CONTROL: CACHE_CONTROL,
        hdrs.CONTENT_DISPOSITION: attachment(name),
        "X-Content-Type-Options": "nosniff",
    }
    if entry.modified is not None:
        headers[hdrs.LAST_MODIFIED] = formatdate(int(entry.modified), usegmt=True)
    if is_precondition_failed(request.headers, etag, entry.modified):
        return detail_response(412, "The file is not the one that was expected", headers)
    if is_not_modified(request.headers, etag, entry.modified):
        return web.Response(status=304, headers=headers)
    spans = None
    if is_range_valid(request.headers, etag, entry.modified):
        spans = parse_ranges(request.headers.get(hdrs.RANGE), size)
    if spans == []:
        headers = {hdrs.CONTENT_RANGE: f"bytes */{size}", hdrs.ACCEPT_RANGES: "bytes"}
        return detail_response(416, "No part of the file lies in this range", headers)
    kind = content_type(name)
    if spans is None:
        return await _send_span(
            request,
            file,
            Span(0, size),
            web.StreamResponse(headers={**headers, hdrs.CONTENT_TYPE: kind}),
        )
    if len(spans) == 1:
        headers[hdrs.CONTENT_RANGE] = spans[0].content_range(size)
        return await _send_span(
            request,
            file,
            spans[0],
            web.StreamResponse(status=206, headers={**headers, hdrs.CONTENT_TYPE: kind}),
        )
    return await _send_spans(request, file, spans, kind, headers)


async def _send_span(
    request: web.Request, file: OpenFile, span: Span, response: web.StreamResponse
) -> web.StreamResponse:
    response.content_length = span.length
    return await _send(request, response, file.read(span.start, span.length))


async def _send_spans(
    request: web.Request, file: OpenFile, spans: list[Span], kind: str, headers: dict[str, str]
) -> web.StreamResponse:
    """Several ranges: `multipart/byteranges` (RFC 9110, section 14.6)."""
    boundary = uuid4().hex
    size = file.entry.size or 0
    heads = [
        f"\r\n--{boundary}\r\nContent-Type: {kind}\r\n"
        f"Content-Range: {span.content_range(size)}\r\n\r\n".encode()
        for span in spans
    ]
    tail = f"\r\n--{boundary}--\r\n".encode()
    response = web.StreamResponse(
        status=206,
        headers={**headers, hdrs.CONTENT_TYPE: f"multipart/byteranges; boundary={boundary}"},
    )
    response.content_length = sum(
        len(head) + span.length for head, span in zip(heads, spans, strict=True)
    ) + len(tail)

    async def parts() -> AsyncGenerator[bytes, None]:
        for head, span in zip(heads, spans, strict=True):
            yield head
            async for piece in file.read(span.start, span.length):
                yield piece
        yield tail

    return await _send(request, response, parts())


async def _send_zip(request: web.Request, storage: Storage, path: UserPath) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            hdrs.CONTENT_TYPE: "application/zip",
            hdrs.CONTENT_DISPOSITION: attachment(f"{path.name or 'files'}.zip"),
            hdrs.CACHE_CONTROL: CACHE_CONTROL,
        }
    )
    return await _send(request, response, stream_zip(storage, path))


async def _send(
    request: web.Request, response: web.StreamResponse, pieces: Pieces
) -> web.StreamResponse:
    """Stream the answer; a failure in the middle breaks the connection, so that nobody takes
    what has arrived for the whole."""
    await start_stream(request, response)
    if request.method == hdrs.METH_HEAD:
        return response
    with TRANSFERS.labels("out").track_inprogress():
        sent = 0
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    await response.write(piece)
                    sent += len(piece)
            await response.write_eof()
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, the answer is broken
            log.error("download.broken", path=request.path, sent=sent, reason=repr(error))
            if request.transport is not None:
                request.transport.abort()
        finally:
            TRANSFERRED.labels("out").inc(sent)
    return response
