"""Reads a stream of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from collections.abc import AsyncIterator

import aiohttp


async def frames(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, str]]:
    """The fields of each frame that is no comment."""
    received = bytearray()
    async for piece in response.content.iter_any():
        received += piece
        while (end := received.find(b"\n\n")) >= 0:
            lines = received[:end].decode().split("\n")
            del received[: end + 2]
            pairs = [line.partition(": ") for line in lines if not line.startswith(":")]
            if pairs:
                yield {name: value for name, _, value in pairs}
