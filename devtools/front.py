"""A load balancer in front of several gateways: connections go to them in turn."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

_LOOPBACK: Final = "127.0.0.1"
_PIECE: Final = 64 * 1024

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Front:
    """Forwards bytes; closes a connection that no gateway accepts.

    `ports` may be replaced: open connections stay where they are. `refused` counts the connections
    that a port did not accept.
    """

    def __init__(self, ports: Sequence[int] = ()) -> None:
        self.ports = ports
        self.refused = 0
        self._turn = 0
        self._open: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def served(self, port: int) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._accept, _LOOPBACK, port)
        try:
            yield
        finally:
            server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._pass_on(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found = await self._connect()
        if found is None:
            writer.transport.abort()
            return
        sides = (writer, found[1])
        ways = [
            asyncio.ensure_future(_pump(reader, found[1])),
            asyncio.ensure_future(_pump(found[0], writer)),
        ]
        try:
            ended, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if all(way.result() for way in ended):
                await _close(ways, sides)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for side in sides:
                side.transport.abort()

    async def _connect(self) -> Streams | None:
        ports = self.ports
        self._turn += 1
        for shift in range(len(ports)):
            try:
                return await asyncio.open_connection(
                    _LOOPBACK, ports[(self._turn + shift) % len(ports)]
                )
            except OSError:
                self.refused += 1
        return None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Pass bytes on in one direction; returns whether they ended as they should."""
    try:
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
    except OSError:
        return False
    return True


async def _close(
    ways: Sequence[asyncio.Future[bool]], sides: Sequence[asyncio.StreamWriter]
) -> None:
    """Close both sides, what they still hold having gone out."""
    for way in ways:
        way.cancel()
    await asyncio.gather(*ways, return_exceptions=True)
    for side in sides:
        side.close()
    for side in sides:
        with contextlib.suppress(OSError):
            await side.wait_closed()
