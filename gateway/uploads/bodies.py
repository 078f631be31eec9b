"""The body of a request, in pieces as large as is good for a storage."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from common.storage.budget import ChunkBudget
from common.telemetry.logs import get_logger
from gateway.http.errors import TooSlow

_LONGEST_WAIT: Final = 0.5
"""Seconds after which a piece of a slow client is complete: what a killed process has of it is
lost."""

log = get_logger()


@dataclass(frozen=True, slots=True)
class Body:
    """`length` in bytes if it is known; `waiting()` surrounds each wait for the client."""

    stream: StreamReader
    length: int | None
    waiting: Callable[[], AbstractAsyncContextManager[None]]


_BROKEN: Final = (ConnectionError, HttpProcessingError, web.RequestPayloadError)


class BrokenBody(Exception):
    """The body is not what its head announced, or its client is gone."""


class _Pause(Exception):
    """The client pauses; what has come of a piece is not to wait for the rest."""


class BodyReader:
    """Reads a body once. A client may pause for at most `timeout` seconds (0: no limit)."""

    def __init__(self, body: Body, budget: ChunkBudget, *, timeout: float) -> None:
        self._body = body
        self._budget = budget
        self._timeout = timeout or None
        self._failure: Exception | None = None

    async def read(self) -> bytearray:
        """The next piece; empty at the end of the body.

        Raises `BrokenBody` and `TooSlow`, once all that came before has been read.
        """
        if self._failure is not None:
            raise self._failure
        piece, size, began = bytearray(), self._budget.size, time.monotonic()
        try:
            while len(piece) < size:
                data = self._body.stream.read_nowait(size - len(piece))
                if not data:
                    if self._body.stream.is_eof():
                        break
                    left = began + _LONGEST_WAIT - time.monotonic()
                    if piece and left <= 0:
                        break
                    data = await self._wait(size - len(piece), left if piece else None)
                piece += data
        except _Pause:
            pass
        except TooSlow as error:
            self._failure = error
        except _BROKEN as error:
            self._failure = BrokenBody("The body ends early")
            self._failure.__cause__ = error
        if not piece and self._failure is not None:
            raise self._failure
        return piece

    async def _wait(self, size: int, most: float | None) -> bytes:
        """Wait for the client; for `most` seconds, after which this raises `_Pause`."""
        try:
            async with self._body.waiting(), asyncio.timeout(most or self._timeout):
                return await self._body.stream.read(size)
        except TimeoutError as error:
            if most is not None:
                raise _Pause from error
            log.info("client.given_up", owed="body")
            raise TooSlow("The body did not come in time") from error
        except RuntimeError as error:  # aiohttp's, the connection was lost before this read
            raise ConnectionResetError("the client went away") from error
