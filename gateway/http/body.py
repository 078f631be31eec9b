"""Bodies that are read whole (JSON, forms).

They are bounded in size, by the progress that the client has to make, and in the number of large
ones read at once, so that a slow or hostile client costs the others nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from aiohttp import hdrs, web

from gateway.http.errors import Busy, Encoded, TooLarge, TooSlow
from gateway.http.keys import LARGE_BODIES, SETTINGS

T = TypeVar("T")

LARGE_AT_ONCE: Final = 16

_SMALL: Final = 64 * 1024
"""Bytes up to which a body is small, as bodies typed by people are."""

_LOOKS: Final = 4
"""How often within the client's time-out its progress is checked."""


def is_small(request: web.Request) -> bool:
    """Whether the body is small, according to the request's head."""
    length = request.content_length
    if length is None:
        return not request.body_exists
    return length <= _SMALL


def check_encoding(request: web.Request) -> None:
    """Refuse a compressed body: what it unpacks to has no limit. Raises `Encoded`."""
    codings = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING)).lower()
    if request.body_exists and any(
        coding.strip() not in {"", "identity"} for coding in codings.split(",")
    ):
        raise Encoded("A body is taken as it is: Content-Encoding may only be identity")


async def read_body(request: web.Request) -> bytes:
    """The whole body. Raises `TooLarge`, `TooSlow`, and `Busy` instead of queueing it."""
    return await _admit(request, request.read)


async def read_form(request: web.Request) -> Any:
    """A form's fields. Raises as `read_body` does, and aiohttp's errors for a malformed form."""
    return await _admit(request, request.post)


async def _admit(request: web.Request, read: Callable[[], Awaitable[T]]) -> T:
    """Refuse a body that is announced as too long; aiohttp counts the bytes of any other."""
    limit, length = request.client_max_size, request.content_length
    if length is not None and length > limit:
        raise TooLarge(f"The body may have at most {limit} bytes")
    if request.content.is_eof():  # it arrived with the head
        return await read()
    if is_small(request):
        return await _while_it_moves(request, read)
    large = request.app[LARGE_BODIES]
    if large.locked():
        raise Busy("Too many large requests are being read at the moment")
    async with large:
        return await _while_it_moves(request, read)


async def _while_it_moves(request: web.Request, read: Callable[[], Awaitable[T]]) -> T:
    """Give up when no byte has arrived for the client's time-out, up to a quarter longer.

    A body may take any time as long as its bytes arrive.
    """
    seconds = request.app[SETTINGS].client_timeout
    if not seconds:
        return await read()
    loop, content = asyncio.get_running_loop(), request.content
    timer: asyncio.TimerHandle

    def look(arrived: int) -> None:
        nonlocal timer
        if content.total_bytes > arrived and not deadline.expired():
            deadline.reschedule(loop.time() + seconds)
        timer = loop.call_later(seconds / _LOOKS, look, content.total_bytes)

    timer = loop.call_later(seconds / _LOOKS, look, content.total_bytes)
    try:
        async with asyncio.timeout(seconds) as deadline:
            return await read()
    except TimeoutError as error:
        raise TooSlow("The body did not come in time") from error
    finally:
        timer.cancel()
