"""Send a response in chunks."""

from collections.abc import AsyncGenerator, Mapping, MutableMapping
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from common.telemetry.logs import get_logger
from gateway.http.middlewares import start_stream
from gateway.http.responses import json_bytes
from gateway.http.shares import Slot
from gateway.metrics import TRANSFERRED, TRANSFERS

Chunk = bytes | bytearray | memoryview
Chunks = AsyncGenerator[Chunk, None]

_BUFFERED: Final = 1 << 16
"""Bytes that a connection takes before its client does, as much as a small file has."""

log = get_logger()


@dataclass(frozen=True, slots=True)
class Content:
    """A response to be streamed; `length` in bytes if it is known, no `chunks` for no body."""

    status: int
    headers: MutableMapping[str, str]
    chunks: Chunks | None = None
    length: int | None = None


async def send(
    request: web.Request, content: Content, slot: Slot | None = None
) -> web.StreamResponse:
    """Answer with the content; `slot` is lent while the client does not take it.

    The head is sent once the first bytes are there, since the storage may refuse them. A failure
    in the middle breaks the connection, so that no client takes the part that it has received for
    the whole.
    """
    if content.chunks is None:
        return web.Response(status=content.status, headers=content.headers)
    response = web.StreamResponse(status=content.status, headers=content.headers)
    response.content_length = content.length
    if request.method == hdrs.METH_HEAD:
        await start_stream(request, response)
        return response
    async with aclosing(content.chunks) as chunks:
        # the first chunk has no name here, where it would stay in memory until the end
        await _send_chunks(request, response, await anext(chunks, b""), chunks, slot)
    return response


async def _send_chunks(
    request: web.Request,
    response: web.StreamResponse,
    first: Chunk,
    chunks: Chunks,
    slot: Slot | None,
) -> None:
    await start_stream(request, response)
    with TRANSFERS.labels("out").track_inprogress():
        sent = 0
        try:
            if len(first) <= _BUFFERED:
                await response.write(first)  # does not wait for the client
            else:
                await _write(response, first, slot)
            sent += len(first)
            del first
            async for chunk in chunks:
                await _write(response, chunk, slot)
                sent += len(chunk)
                del chunk  # not while the next one is waited for
            await response.write_eof()
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - any error leaves the response incomplete
            log.error("download.broken", path=request.path, sent=sent, reason=repr(error))
            if request.transport is not None:
                request.transport.abort()
        finally:
            TRANSFERRED.labels("out").inc(sent)


async def _write(response: web.StreamResponse, chunk: Chunk, slot: Slot | None) -> None:
    async with slot.lent() if slot else nullcontext():
        await response.write(chunk)


async def send_json(
    request: web.Request,
    found: bytes | Chunks,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Answer with JSON that is ready, or comes in chunks, which hold memory of their own budget."""
    if isinstance(found, bytes):
        return json_bytes(found, status=status, headers=headers)
    streamed = {"Content-Type": "application/json", **(headers or {})}
    return await send(request, Content(status, streamed, found))
