"""Requests as bytes that repeat what is awkward about them."""

import itertools
from collections.abc import Iterator
from typing import Final

LARGEST: Final = 65_536
"""Bytes of a request."""

FORM: Final = "Content-Type: multipart/form-data; boundary=b"
JSON: Final = "Content-Type: application/json"
UPLOAD: Final = "POST /files/data/x/upload"
FILE: Final = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nx\r\n'

Named = Iterator[tuple[str, bytes]]
"""Requests with what is awkward about them."""

_LINE: Final = 32_000
"""Bytes of the longest header that is taken."""


def request(line: str, token: str, *headers: str | bytes, body: bytes | None = None) -> bytes:
    """A request of a user; its length is announced unless a header says how it is sent."""
    head = [f"{line} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {token}"]
    if not any(item.startswith("Connection") for item in headers if isinstance(item, str)):
        head.append("Connection: close")
    raw = [item.encode() if isinstance(item, str) else item for item in (*head, *headers)]
    if body is not None and not any(item.startswith(b"Transfer-Encoding") for item in raw):
        raw.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*raw, b"", body or b""])


def filled(piece: bytes, *, start: bytes = b"", end: bytes = b"", size: int = 60_000) -> bytes:
    """The piece, `@` in it a number of its own, as often as it has room in `size` bytes."""
    found, left = [], size - len(start) - len(end)
    for number in itertools.count():
        one = piece.replace(b"@", b"%d" % number)
        if not one or len(one) > left:
            return start + b"".join(found) + end
        found.append(one)
        left -= len(one)
    raise AssertionError


def line(piece: str, *, start: str = "", end: str = "", size: int = _LINE) -> str:
    """The same for a line of a head."""
    return filled(piece.encode(), start=start.encode(), end=end.encode(), size=size).decode()
