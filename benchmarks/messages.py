"""Requests as bytes, made before the measurement."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import orjson

COUNTER: Final = b"@@@@@@@@@@"
"""The load generator replaces this in a request with a number that it never repeats."""


@dataclass(frozen=True)
class Endpoint:
    """A server, and the headers of every request to it."""

    host: str
    port: int
    headers: Mapping[str, str] = field(default_factory=dict)

    def message(self, method: str, target: str, body: bytes | None = None, **headers: str) -> bytes:
        """A request; underscores in the names of `headers` stand for hyphens."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        lines += [f"{name}: {value}" for name, value in {**self.headers, **more}.items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")

    def json(self, method: str, target: str, data: Any) -> bytes:
        """A request with a JSON body."""
        return self.message(method, target, orjson.dumps(data), Content_Type="application/json")

    def form(self, target: str, name: str, content: bytes) -> bytes:
        """An upload of one small file."""
        before, after, content_type = form_parts(name)
        return self.message("POST", target, before + content + after, Content_Type=content_type)


def form_parts(name: str) -> tuple[bytes, bytes, str]:
    """What precedes and follows a file in a form (RFC 7578), and the form's content type."""
    boundary = uuid4().hex
    before = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    after = f"\r\n--{boundary}--\r\n"
    return before.encode(), after.encode(), f"multipart/form-data; boundary={boundary}"
