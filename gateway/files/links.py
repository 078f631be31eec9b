"""`/url` answers: the request that a client sends next, presigned or to this API itself."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from aiohttp import hdrs

from common.storage.protocol import PreparedRequest
from gateway.http.client_address import TrustedProxies
from gateway.http.routing import decode_path

_HOST: Final = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
_ENDING: Final = "/url"


@dataclass(frozen=True, slots=True)
class SentRequest:
    """What the answer repeats of the request: origin, path as it was sent, `Authorization`.

    `authorization` is None for a caller by cookie: its client sends that anyway.
    """

    origin: str
    raw_path: str
    authorization: str | None


def to_this_api(sent: SentRequest, method: str, ending: str) -> PreparedRequest:
    """The URL of the request as it was sent, with `ending` in place of the final `/url`."""
    raw = sent.raw_path
    if raw.endswith(_ENDING):
        path = raw.removesuffix(_ENDING) + ending
    else:  # the ending was percent-encoded
        path = quote(decode_path(raw).removesuffix(_ENDING)) + ending
    headers = {} if sent.authorization is None else {"authorization": sent.authorization}
    return PreparedRequest(method, f"{sent.origin}{path}", headers, {})


def client_origin(
    scheme: str,
    host: str,
    headers: Mapping[str, str],
    *,
    remote: str | None,
    proxies: TrustedProxies,
) -> str:
    """Scheme and host as the client used them: forwarded ones if `remote` is a trusted proxy."""
    if proxies.trusts(remote):
        forwarded = _first(headers.get(hdrs.X_FORWARDED_PROTO)).lower()
        scheme = forwarded if forwarded in {"http", "https"} else scheme
        forwarded = _first(headers.get(hdrs.X_FORWARDED_HOST))
        host = forwarded if _HOST.fullmatch(forwarded) else host
    return f"{scheme}://{host}"


def _first(value: str | None) -> str:
    return (value or "").partition(",")[0].strip()
