"""Mails without batches and without a database: one call each, from a plain aiohttp client."""

import asyncio
from typing import Final

import aiohttp
import orjson

_CONCURRENCY: Final = 16


async def send(url: str, count: int) -> int:
    """Send `count` mails, one in each request; returns `count`."""
    numbers = iter(range(1, count + 1))
    message = {
        "From": {"Email": "no-reply@example.org"},
        "To": [{"Email": "user@example.com"}],
        "Subject": "Job train_1 (id=1) finished",
        "TextPart": "Name: train_1",
        "HTMLPart": "<p>Name: train_1</p>",
    }

    async def run(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            body = orjson.dumps({"Messages": [{**message, "CustomID": str(number)}]})
            async with session.post(f"{url}/v3.1/send", data=body) as response:
                await response.read()
                response.raise_for_status()

    connector = aiohttp.TCPConnector(limit=_CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(run(session) for _ in range(_CONCURRENCY)))
    return count
