"""Response headers that depend on a file's name alone, for this API and for presigned URLs."""

import mimetypes
from typing import Final
from urllib.parse import quote

CACHE_CONTROL: Final = "private, no-cache"
"""Files belong to one user and may be replaced at any time."""

_UNKNOWN_TYPE: Final = "application/octet-stream"


def attachment(name: str) -> str:
    """`Content-Disposition` (RFC 6266): an ASCII name for old clients, the real one encoded."""
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%;' else "_" for c in name)
    header = f'attachment; filename="{plain}"'
    if plain != name:
        header += f"; filename*=UTF-8''{quote(name.encode('utf-8', 'replace'), safe='')}"
    return header


def content_type(name: str) -> str:
    """`Content-Type`; a compressed file is opaque bytes, so that no client decompresses it."""
    kind, encoding = mimetypes.guess_type(name, strict=False)
    return kind if kind is not None and encoding is None else _UNKNOWN_TYPE
