"""Send a response in chunks."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import hdrs, web

from common.telemetry.logs import get_logger
from gateway.http.middlewares import start_stream
from gateway.http.responses import json_bytes
from gateway.http.shares import Slot
from gateway.metrics import TRANSFERRED, TRANSFERS

Chunks = AsyncGenerator[bytes | memoryview, None]

log = get_logger()


@dataclass(frozen=True, slots=True)
class Content:
    """A response to be streamed; `length` in bytes if it is known, no `chunks` for no body."""

    status: int
    headers: Mapping[str, str]
    chunks: Chunks | None = None
    length: int | None = None


async def send(
    request: web.Request, content: Content, slot: Slot | None = None
) -> web.StreamResponse:
    """Answer with the content; `slot`, if there is one, is lent while the client does not take it.

    A failure in the middle breaks the connection, so that no client takes the part that it has
    received for the whole.
    """
    if content.chunks is None:
        return web.Response(status=content.status, headers=content.headers)
    response = web.StreamResponse(status=content.status, headers=content.headers)
    response.content_length = content.length
    await start_stream(request, response)
    if request.method == hdrs.METH_HEAD:
        return response
    with TRANSFERS.labels("out").track_inprogress():
        sent = 0
        try:
            async with aclosing(content.chunks) as chunks:
                async for chunk in chunks:
                    async with slot.lent() if slot else nullcontext():
                        await response.write(chunk)
                    sent += len(chunk)
            await response.write_eof()
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - any error leaves the response incomplete
            log.error("download.broken", path=request.path, sent=sent, reason=repr(error))
            if request.transport is not None:
                request.transport.abort()
        finally:
            TRANSFERRED.labels("out").inc(sent)
    return response


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
