"""Requests of the tus protocol, byte by byte."""

import base64
import hashlib
import socket
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy import update

from common.database.engine import Database, utc_now
from common.database.tables import uploads
from devtools.postgres import run_apart
from tests.support.gateway import Api, Gateway, Reply, fresh

PORTION = "application/offset+octet-stream"


def metadata(**pairs: str) -> str:
    return ",".join(
        f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items()
    )


def checksum(content: bytes, algorithm: str = "sha1") -> dict[str, str]:
    """The header of a portion's checksum."""
    digest = base64.b64encode(hashlib.new(algorithm, content).digest()).decode()
    return {"Upload-Checksum": f"{algorithm} {digest}"}


def repr_digest(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


@dataclass
class Tus:
    """One client of the protocol."""

    api: Api

    def send(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **more: str,
    ) -> Reply:
        sent = {"Tus-Resumable": "1.0.0", **(headers or {})}
        sent |= {name.replace("_", "-"): value for name, value in more.items()}
        if body is not None:
            sent.setdefault("Content-Type", PORTION)
        kept = {name: value for name, value in sent.items() if value}
        reply = self.api.send(method, target, body=body, headers=kept)
        assert reply.headers["tus-resumable"] == "1.0.0", reply
        return reply

    def create(
        self,
        length: int,
        path: str = "",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **pairs: str,
    ) -> Reply:
        sent = metadata(path=path or f"data/{fresh('file')}", **pairs)
        base = {"Upload-Length": str(length), "Upload-Metadata": sent}
        return self.send("POST", "/uploads", body, {**base, **(headers or {})})

    def begin(self, length: int, path: str = "", **pairs: str) -> str:
        """The path of a new upload's URL."""
        reply = self.create(length, path, **pairs)
        assert reply.status == 201, reply
        return urlsplit(reply.headers["location"]).path

    def patch(
        self, target: str, offset: int, body: bytes, headers: Mapping[str, str] | None = None
    ) -> Reply:
        return self.send("PATCH", target, body, {"Upload-Offset": str(offset), **(headers or {})})

    def patch_chunked(self, target: str, offset: int, body: bytes) -> Reply:
        """A portion of which the length is not announced."""
        head = (
            f"PATCH {target} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {self.api.token}\r\n"
            f"Tus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\nContent-Type: {PORTION}\r\n"
            f"Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n"
        )
        return self.api.gateway.raw(head.encode() + body + b"\r\n0\r\n\r\n")

    def head(self, target: str) -> Reply:
        return self.send("HEAD", target)

    def offset(self, target: str) -> int:
        reply = self.head(target)
        assert reply.status == 200, reply
        return int(reply.headers["upload-offset"])

    def content(self, path: str) -> bytes:
        reply = self.api.get(f"/files/{path}/download")
        assert reply.status == 200, reply
        return reply.body


def expire(gateway: Gateway, target: str) -> None:
    """Let an upload be one that has expired just now."""

    async def run() -> None:
        database = Database(gateway.settings.database)
        try:
            async with database.transaction() as tx:
                mine = uploads.c.id == target.rpartition("/")[2]
                await tx.execute(update(uploads).where(mine).values(expires_at=utc_now(-1.0)))
        finally:
            await database.close()

    run_apart(run())


def begin_portion(
    tus: Tus, target: str, offset: int, length: int, *, extra: str = ""
) -> socket.socket:
    """A connection whose body is still to be sent."""
    connection = socket.create_connection(("127.0.0.1", tus.api.gateway.port), timeout=30)
    head = (
        f"PATCH {target} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {tus.api.token}\r\n"
        f"Tus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\nContent-Type: {PORTION}\r\n{extra}"
        f"Content-Length: {length}\r\n\r\n"
    )
    connection.sendall(head.encode())
    return connection


def until_offset(tus: Tus, target: str, offset: int) -> int:
    """Wait until an upload has come so far."""
    while (found := tus.offset(target)) < offset:
        time.sleep(0.02)
    return found


def until_free(tus: Tus, target: str, offset: int, body: bytes) -> None:
    while (reply := tus.patch(target, offset, body)).status == 423:
        assert reply.headers["retry-after"] == "1"
        time.sleep(0.02)
    assert reply.status == 204, reply


def resume(tus: Tus, target: str, content: bytes) -> None:
    """Send what is missing of `content`; until the writer before has ended, that may change."""
    status = 423
    while status in {409, 423}:
        offset = tus.offset(target)
        status = tus.patch(target, offset, content[offset:]).status
    assert status == 204


def cut_portion(tus: Tus, target: str, offset: int, content: bytes, size: int) -> None:
    """Begin to send `content`, of which `size` bytes come; returns once others may write."""
    with closing(begin_portion(tus, target, offset, len(content))) as connection:
        connection.sendall(content[:size])
        until_offset(tus, target, offset + size)
    until_free(tus, target, offset + size, b"")
