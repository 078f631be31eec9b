"""URLs of this API as the client would write them."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from aiohttp import hdrs, web

from gateway.http.client_address import TrustedProxies
from gateway.http.keys import PROXIES

_HOST: Final = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")


def origin_of(request: web.Request) -> str:
    """Scheme and host as the client used them."""
    return client_origin(
        request.scheme,
        request.host,
        request.headers,
        remote=request.remote,
        proxies=request.app[PROXIES],
    )


def next_link(request: web.Request, **changes: str | None) -> str:
    """A `Link` header (RFC 8288) to the next page: the request's own URL, with some parameters of
    its query string changed, or removed (None)."""
    kept = [(key, value) for key, value in request.query.items() if key not in changes]
    new = [(key, value) for key, value in changes.items() if value is not None]
    url = f"{origin_of(request)}{request.rel_url.raw_path}?{urlencode(kept + new)}"
    return f'<{url}>; rel="next"'


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
