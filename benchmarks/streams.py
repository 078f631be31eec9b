"""Many streams of events at once, and how late each event reaches them."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, cast

import uvloop

from benchmarks.messages import Endpoint

_DATE: Final = b'"date":"'
_DATE_LENGTH: Final = len("2026-01-01T12:00:00.123456")
_QUIET: Final = 6.0
"""Seconds without an event after which no more is expected; a poll finds the last ones."""


class _Stream(asyncio.Protocol):
    """One open stream."""

    def __init__(self, latencies: list[float]) -> None:
        self._latencies = latencies
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        now = time.time()
        *frames, self._rest = (self._rest + data).split(b"\n\n")
        for frame in frames:
            if (at := frame.find(_DATE)) >= 0:
                text = frame[at + len(_DATE) : at + len(_DATE) + _DATE_LENGTH].decode()
                written = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
                self._latencies.append(now - written)


def follow(endpoint: Endpoint, tokens: Sequence[str], expected: int) -> list[float]:
    """Seconds from the writing of each event (before its commit) until a stream has it.

    Opens a stream per token, and waits for so many events in all, or until none comes any more.
    """
    return uvloop.run(_follow(endpoint, tokens, expected))


async def _follow(endpoint: Endpoint, tokens: Sequence[str], expected: int) -> list[float]:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    for token in tokens:
        transport, _ = await loop.create_connection(
            lambda: _Stream(latencies), endpoint.host, endpoint.port
        )
        request = endpoint.message("GET", "/jobs/events", Authorization=f"Bearer {token}")
        cast("asyncio.WriteTransport", transport).write(request)
    quiet_since, seen = None, 0
    while len(latencies) < expected:
        await asyncio.sleep(0.1)
        if len(latencies) != seen:
            quiet_since, seen = time.monotonic(), len(latencies)
        if quiet_since is not None and time.monotonic() > quiet_since + _QUIET:
            break
    return latencies
