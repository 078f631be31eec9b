"""Requests as the bytes that go over the wire."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import orjson

COUNTER: Final = b"@@@@@@@@@@"
"""In a request, the load generator writes a number that is never the same twice over this."""

_NONE: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who sends, and where to."""

    host: str
    port: int
    headers: Mapping[str, str] = field(default_factory=dict)

    def message(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        length: int | None = None,
        headers: Mapping[str, str] = _NONE,
    ) -> bytes:
        """A request; `length` announces a body that is sent apart from it."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        lines += [f"{name}: {value}" for name, value in {**self.headers, **headers}.items()]
        if body is not None or length is not None:
            lines.append(f"Content-Length: {len(body or b'') if length is None else length}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")

    def json(self, method: str, target: str, data: Any) -> bytes:
        """A request with a JSON body."""
        kind = {"Content-Type": "application/json"}
        return self.message(method, target, orjson.dumps(data), headers=kind)

    def form(self, target: str, name: str, content: bytes) -> bytes:
        """An upload of one small file."""
        before, after, kind = form_parts(name)
        body = before + content + after
        return self.message("POST", target, body, headers={"Content-Type": kind})


def form_parts(name: str) -> tuple[bytes, bytes, str]:
    """What stands before and after a file's bytes in a form (RFC 7578), and its content type."""
    mark = uuid4().hex
    before = (
        f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    after = f"\r\n--{mark}--\r\n"
    return before.encode(), after.encode(), f"multipart/form-data; boundary={mark}"
