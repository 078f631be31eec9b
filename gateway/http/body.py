"""Bodies that are read whole (JSON, forms): bounded in size, and large ones in their number.

A client that stops sending one is given up by `gateway.http.client_timeout`.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from aiohttp import hdrs, web

from gateway.http.errors import Busy, Encoded, TooLarge
from gateway.http.keys import LARGE_BODIES

T = TypeVar("T")

LARGE_AT_ONCE: Final = 16

_SMALL: Final = 64 * 1024
"""Bytes up to which a body is small, as bodies typed by people are."""


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
    try:
        return await _admit_announced(request, read)
    except web.HTTPRequestEntityTooLarge as error:
        raise TooLarge("The body is too long") from error


async def _admit_announced(request: web.Request, read: Callable[[], Awaitable[T]]) -> T:
    limit, length = request.client_max_size, request.content_length
    if length is not None and length > limit:
        raise TooLarge(f"The body may have at most {limit} bytes")
    if is_small(request) or request.content.is_eof():  # it arrived with the head
        return await read()
    large = request.app[LARGE_BODIES]
    if large.locked():
        raise Busy("Too many large requests are being read at the moment")
    async with large:
        return await read()
