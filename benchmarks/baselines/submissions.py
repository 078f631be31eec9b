"""The dispatcher's submissions without a database, from a plain aiohttp client."""

import asyncio
from typing import Final

import aiohttp

from benchmarks import seed

_CONCURRENCY: Final = 16


async def submit(url: str, count: int) -> int:
    """Send `count` submissions, as many at once as a dispatcher does; returns `count`."""
    numbers = iter(range(1, count + 1))
    body = seed.PAYLOAD.encode()

    async def run(session: aiohttp.ClientSession) -> None:
        for _ in numbers:
            async with session.post(f"{url}/_jobs", data=body) as response:
                await response.read()
                response.raise_for_status()

    connector = aiohttp.TCPConnector(limit=_CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(run(session) for _ in range(_CONCURRENCY)))
    return count
