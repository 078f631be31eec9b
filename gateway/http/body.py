"""Bodies that are read whole (JSON, forms): bounded in size, in time, and in how many large ones
are held at once. A client that is slow or hostile costs the others nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from aiohttp import hdrs, web

from gateway.http.errors import Busy, TooLarge, TooSlow
from gateway.http.keys import LARGE_BODIES, SETTINGS

T = TypeVar("T")

LARGE_AT_ONCE: Final = 16

_SMALL: Final = 64 * 1024
"""Bytes up to which a body is small: whatever people send is."""


def is_small(request: web.Request) -> bool:
    """Whether the body is one of those that people send, as far as its head tells."""
    length = request.content_length
    if length is None:
        return not request.body_exists
    return length <= _SMALL and hdrs.CONTENT_ENCODING not in request.headers


async def read_body(request: web.Request) -> bytes:
    """The whole body. Raises `TooLarge`, `TooSlow`, and `Busy` rather than let it wait."""
    return await _bounded(request, request.read)


async def read_form(request: web.Request) -> Any:
    """The fields of a form. Raises as `read_body` does, and what aiohttp raises for no form."""
    return await _bounded(request, request.post)


async def _bounded(request: web.Request, read: Callable[[], Awaitable[T]]) -> T:
    """Refuse what is too long before it comes; what does not tell its length, as soon as it is."""
    limit, length = request.client_max_size, request.content_length
    if length is not None and length > limit:
        raise TooLarge(f"The body may have at most {limit} bytes")
    if request.content.is_eof():  # it has come with the head
        return await read()
    if is_small(request):
        return await _in_time(request, read)
    large = request.app[LARGE_BODIES]
    if large.locked():
        raise Busy("Too many large requests are being read at the moment")
    async with large:
        return await _in_time(request, read)


async def _in_time(request: web.Request, read: Callable[[], Awaitable[T]]) -> T:
    seconds = request.app[SETTINGS].client_timeout
    try:
        async with asyncio.timeout(seconds or None):
            return await read()
    except TimeoutError as error:
        raise TooSlow("The body did not come in time") from error
