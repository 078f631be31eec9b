"""The origin of this API as the client used it, for URLs in answers."""

import re
from collections.abc import Mapping
from typing import Final

from aiohttp import hdrs, web

from gateway.http.client_address import TrustedProxies
from gateway.http.keys import PROXIES

_HOST: Final = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")


def origin_of(request: web.Request) -> str:
    """Scheme and host of a request as its client used them."""
    return client_origin(
        request.scheme,
        request.host,
        request.headers,
        remote=request.remote,
        proxies=request.app[PROXIES],
    )


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
