"""Bodies that are read whole (JSON, forms): bounded in size, and large ones in their number.

A body is large once so many of its bytes have arrived: what is only announced takes no memory. Its
slot is held to the end of the request. A client that stops sending one is given up by
`gateway.http.client_timeout`.
"""

from typing import Any, Final

from aiohttp import hdrs, web

from gateway.http.admission import acquire
from gateway.http.budgets import Kind
from gateway.http.errors import Encoded, TooLarge
from gateway.http.keys import BODY_SLOT, CALLER
from gateway.http.limits import INTERNAL_CALLER, LimitExceeded, Overloaded
from gateway.http.shares import Slot

_SMALL: Final = 64 * 1024
"""Bytes up to which a body is small, as bodies typed by people are."""


MAX_FIELDS: Final = 100
"""Fields of a form, more than any form of this API has: each takes tens of microseconds."""


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
    """The whole body. Raises `TooLarge`, `TooSlow`, and `LimitExceeded` beyond a caller's share."""
    _check_length(request)
    if is_small(request):
        return await request.read()
    limit, body = request.client_max_size, bytearray()
    most = min(_SMALL, limit)
    while len(body) <= most:
        chunk = await request.content.read(most + 1 - len(body))  # the rest may have to wait
        if not chunk:
            return bytes(body)
        body += chunk
    if len(body) > limit:
        raise _too_large(limit)
    slot = await _begin_large(request)
    size = 0
    while size < len(body):
        size = len(body)
        async with slot.lent():
            body += await request.content.readany()
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


async def read_form(request: web.Request) -> Any:
    """A form's fields. Raises as `read_body` does, and aiohttp's errors for a malformed form."""
    _check_length(request)
    try:
        if is_small(request):
            return await request.post()
        slot = await _begin_large(request)  # aiohttp reads it in one step, as slowly as it arrives
        async with slot.lent():
            return await request.post()
    except web.HTTPRequestEntityTooLarge as error:
        limits = f"{MAX_FIELDS} fields and {request.client_max_size} bytes"
        raise TooLarge(f"A form may have at most {limits}") from error


def end_body(request: web.Request) -> None:
    """Give back the slot of a large body, whose request has ended."""
    if request.body_exists and (slot := request.get(BODY_SLOT)) is not None:
        slot.release()


async def _begin_large(request: web.Request) -> Slot:
    is_internal = request[CALLER] is INTERNAL_CALLER
    kind: Kind = "status_update" if is_internal else "large_body"
    try:
        slot = request[BODY_SLOT] = await acquire(request, kind)
    except LimitExceeded as error:
        if is_internal:  # all workers are one caller, and none of them has a share to keep to
            raise Overloaded(error.limit, error.retry_after) from error
        raise
    return slot


def _check_length(request: web.Request) -> None:
    """Refuse a body that is announced as too long; the bytes of any other are counted."""
    limit, length = request.client_max_size, request.content_length
    if length is not None and length > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body may have at most {limit} bytes")
