"""Clients that misbehave on real connections: they stall, are slow, or disconnect."""

import asyncio
import contextlib
import re
import resource
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any

import orjson
import pytest

from devtools.user_pool import INTERNAL_KEY
from tests.support.gateway import job_body

MARK = "boundary"
START = f'--{MARK}\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n'
END = f"\r\n--{MARK}--\r\n".encode()


class Client:
    """One connection, with small buffers: what is not read stays with the peer."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)

    async def connect(self) -> None:
        await asyncio.get_running_loop().sock_connect(self._socket, ("127.0.0.1", self._port))

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def begin(self, method: str, path: str, length: int, *headers: str) -> None:
        """Send a head that announces a body."""
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: gateway",
            f"Authorization: Bearer {self._token}",
            f"x-api-key: {INTERNAL_KEY}",
            f"Content-Length: {length}",
            *headers,
        ]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def begin_upload(self, name: str, length: int) -> None:
        """Begin to upload a file of `length` bytes into data/slow."""
        start = (START % name).encode()
        kind = f"Content-Type: multipart/form-data; boundary={MARK}"
        await self.begin("POST", "/files/data/slow/upload", len(start) + length + len(END), kind)
        await self.send(start)

    async def begin_portion(self, target: str, length: int) -> None:
        """Begin to send the first `length` bytes of a resumable upload."""
        kind = "Content-Type: application/offset+octet-stream"
        await self.begin("PATCH", target, length, "Tus-Resumable: 1.0.0", "Upload-Offset: 0", kind)

    async def read(self, most: int = 65_536) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self._socket, most)

    async def read_all(self) -> bytes:
        """Read until the connection ends or breaks."""
        found = bytearray()
        with contextlib.suppress(ConnectionError):
            while piece := await self.read():
                found += piece
        return bytes(found)

    def close(self) -> None:
        self._socket.close()

    def abort(self) -> None:
        """Disconnect as a killed process does: the peer gets a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


Begin = Callable[[Client], Any]


async def stop_in_head(client: Client) -> None:
    await client.send(b"GET /files/ HTTP/1.1\r\nHost: gateway\r\nX-Slow: ")


async def stop_in_upload(client: Client) -> None:
    await client.begin_upload("stopped", 10_000_000)
    await client.send(b"x" * 300_000)


async def stop_in_submission(client: Client) -> None:
    await client.begin("POST", "/jobs", 4_000_000)
    with contextlib.suppress(ConnectionError):  # the gateway may refuse it
        await client.send(b"[" * 1_500_000)


async def stop_in_download(client: Client) -> None:
    await client.begin("GET", "/files/data/large/file/download", 0)
    await client.read(1_000)


async def submit(client: Client, name: str) -> None:
    body = orjson.dumps(job_body(job_name=name, attributes={"files_down": {}}))
    await client.begin("POST", "/jobs", len(body))
    await client.send(body)


@contextlib.asynccontextmanager
async def connected(
    port: int, token: str, kinds: Sequence[Begin], count: int
) -> AsyncIterator[list[Client]]:
    """`count` clients of each kind, each of which has begun."""
    clients: list[Client] = []

    async def start(begin: Begin) -> None:
        client = Client(port, token)
        clients.append(client)
        await client.connect()
        await begin(client)

    try:
        for kind in kinds:
            for begun in range(0, count, 50):
                await asyncio.gather(*(start(kind) for _ in range(min(50, count - begun))))
        yield clients
    finally:
        for client in clients:
            client.close()


@contextlib.contextmanager
def many_files(count: int) -> Iterator[None]:
    """Raise this process's limit of open files to `count`; skip the test where it cannot be."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(count, before[0]), max(count, before[1])))
    except (ValueError, PermissionError):
        pytest.skip(f"this system lets nobody open {count} files: at most {before[1]}")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def statuses(port: int, requests: Iterable[bytes]) -> Counter[int]:
    """Send requests one after the other over one connection; returns how often each status came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found: Counter[int] = Counter()
    for request in requests:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = re.findall(rb"(?i)\r\ncontent-length: *(\d+)", head)
        await reader.readexactly(int(length))
        found[int(head.split(b" ", 2)[1])] += 1
    writer.close()
    await writer.wait_closed()
    return found
