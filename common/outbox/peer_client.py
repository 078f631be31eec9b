"""One HTTP call to a peer, whose result shows what may have happened there.

`Unreachable`: nothing was sent. `Lost`: sent, perhaps acted upon, no (whole) answer. `Reply`: an
answer. A call raises nothing but its cancellation.
"""

import asyncio
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Generic, TypeVar

import aiohttp

MAX_RETRY_AFTER: Final = 60.0
"""Longest time in seconds for which a peer's `Retry-After` is respected."""

HEADER_VALUE: Final = re.compile(r"[\x21-\x7e]{1,200}")
"""A correlation id that may go into a header."""

_OF_PROXIES: Final = frozenset({502, 503, 504})
_LONGEST_SIGN_OF_LIFE: Final = 8 << 20
_CONNECT_TIMEOUT: Final = 5.0
# shorter than any server's: a request on a connection that is being closed would be lost, without
# a sign whether it had arrived
_KEEP_ALIVE: Final = 1.0
_INLINE_BODY: Final = 256 * 1024
_PIECE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; `retry_after` in seconds, if the peer asked for it."""

    status: int
    content_type: str
    body: bytes
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Unreachable:
    """No connection, so nothing was sent."""

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """Sent, but no whole answer came back."""

    reason: str
    timed_out: bool = False


CallResult = Reply | Unreachable | Lost

Verdict = TypeVar("Verdict")


@dataclass(frozen=True)
class Outcome(Generic[Verdict]):
    """What a result means for an item; `retry_after` in seconds, if the peer asked for it."""

    verdict: Verdict
    reason: str = ""
    retry_after: float | None = None
    reachable: bool = True
    timed_out: bool = False


def open_session(service: str, *, connections: int) -> aiohttp.ClientSession:
    """A session that reuses its connections, at most `connections` of them."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=_KEEP_ALIVE),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"opencloud-{service}", "Accept": "application/json"},
        skip_auto_headers=("Accept-Encoding",),
        timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_TIMEOUT),
    )


async def exchange(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    deadline: float,
    limit: int,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> CallResult:
    """Send one request; redirects are not followed.

    `deadline`, in seconds, covers the whole call; an answer of more than `limit` bytes is `Lost`.
    """
    # aiohttp writes large bytes at once, and a stream piece by piece
    data = io.BytesIO(body) if body is not None and len(body) > _INLINE_BODY else body
    connecting = aiohttp.ClientTimeout(total=None, connect=min(_CONNECT_TIMEOUT, deadline / 2))
    try:
        async with (
            asyncio.timeout(deadline),
            session.request(
                method, url, headers=headers, data=data, allow_redirects=False, timeout=connecting
            ) as response,
        ):
            content = await _read(response, limit)
            if content is None:
                return Lost(f"the answer is longer than {limit} bytes")
            return Reply(
                status=response.status,
                content_type=response.content_type if "Content-Type" in response.headers else "",
                body=content,
                retry_after=parse_retry_after(response.headers.get("Retry-After")),
            )
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        return Unreachable(_name(error))
    except TimeoutError:
        return Lost(f"no answer within {deadline:g} s", timed_out=True)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Lost(_name(error))


async def is_alive(session: aiohttp.ClientSession, url: str, *, deadline: float) -> bool:
    """Whether anything but a proxy's error page answers at `url` within `deadline` seconds."""
    return await why_dead(session, url, deadline=deadline) is None


async def why_dead(session: aiohttp.ClientSession, url: str, *, deadline: float) -> str | None:
    """What is in the way of a sign of life (see `is_alive`); None if there is one."""
    outcome = await exchange(session, "GET", url, deadline=deadline, limit=_LONGEST_SIGN_OF_LIFE)
    if not isinstance(outcome, Reply):
        return outcome.reason
    return f"HTTP {outcome.status}" if outcome.status in _OF_PROXIES else None


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    content = bytearray()
    async for piece in response.content.iter_chunked(_PIECE):
        content += piece
        if len(content) > limit:
            return None
    return bytes(content)


def _name(error: BaseException) -> str:
    """The error's type: short, and without text that the peer controls."""
    cause = getattr(error, "os_error", None) or error
    return type(cause).__name__


def parse_retry_after(value: str | None) -> float | None:
    """Seconds that `Retry-After` asks for (RFC 9110, 10.2.3), at most `MAX_RETRY_AFTER`.

    None if it is absent, or neither a number nor a date.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):  # no date, or one with an impossible offset
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)
