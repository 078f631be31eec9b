"""Clients that take what they can, on an event loop in a thread of its own."""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from benchmarks.load_generator import ResponseReader
from benchmarks.messages import Endpoint

_BUFFER: Final = 16_384
"""Bytes that a client takes without reading."""

_APART: Final = 0.002
"""Seconds between the starts of two clients: all at once would overflow the listener's backlog."""

_NICE: Final = 19
"""The clients' priority: they stand for other machines, whose processors the server does not share.
"""

_PAUSE: Final = 0.1
_WITHIN: Final = 60.0

Behaviour = Callable[["Client"], Awaitable[None]]
"""What a client does again and again; it may never end."""


class Client:
    """One connection, which the next message after a `close` opens anew.

    `begun` is set once it does what it is for. Methods raise `OSError`.
    """

    def __init__(self, endpoint: Endpoint, number: int) -> None:
        self.endpoint = endpoint
        self.number = number
        self.begun = asyncio.Event()
        self._socket: socket.socket | None = None

    async def send(self, message: bytes) -> None:
        loop = asyncio.get_running_loop()
        if self._socket is None:
            self._socket = socket.socket()
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            await loop.sock_connect(self._socket, (self.endpoint.host, self.endpoint.port))
        await loop.sock_sendall(self._socket, message)

    async def read(self, most: int = 1_000) -> bytes:
        assert self._socket is not None
        data = await asyncio.get_running_loop().sock_recv(self._socket, most)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data

    async def ask(self, message: bytes) -> bytes:
        """Send a request; the body of the response."""
        await self.send(message)
        reader = ResponseReader()
        while (response := reader.feed(await self.read(1 << 18))) is None:
            pass
        return response[1]

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@contextlib.contextmanager
def hostile(endpoint: Endpoint, groups: Sequence[tuple[int, Behaviour]]) -> Iterator[None]:
    """So many clients of each behaviour; the block begins once all of them have begun.

    What the server breaks off is tried again. Raises `TimeoutError`, and what a behaviour raises.
    """
    loop = asyncio.new_event_loop()
    over, begun = asyncio.Event(), threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)  # of this thread only
        try:
            loop.run_until_complete(_run(endpoint, groups, begun, over))
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)
            begun.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        if not begun.wait(_WITHIN):
            raise TimeoutError("the hostile clients could not begin")
        if not failures:
            yield
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
    if failures:
        raise failures[0]


async def _run(
    endpoint: Endpoint,
    groups: Sequence[tuple[int, Behaviour]],
    begun: threading.Event,
    over: asyncio.Event,
) -> None:
    behaviours = [behave for count, behave in groups for _ in range(count)]
    clients = [Client(endpoint, number) for number in range(len(behaviours))]
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(_repeat(client, behave))
            for client, behave in zip(clients, behaviours, strict=True)
        ]
        for client in clients:
            await client.begun.wait()
        begun.set()
        await over.wait()
        for task in running:
            task.cancel()


async def _repeat(client: Client, behave: Behaviour) -> None:
    await asyncio.sleep(client.number * _APART)
    try:
        while True:
            try:
                await behave(client)
                client.begun.set()
            except ConnectionError:
                client.close()
                await asyncio.sleep(_PAUSE)
    finally:
        client.close()
