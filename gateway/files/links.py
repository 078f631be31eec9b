"""`/url` answers: the request that a client sends next, presigned or to this API itself."""

import re
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import quote

from aiohttp import hdrs, web

from common.storage.protocol import PresignedRequest
from gateway.http.keys import BY_COOKIE, SETTINGS
from gateway.http.routing import decode_path

_HOST: Final = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
_ENDING: Final = "/url"


def presigned(request: PresignedRequest) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": request.url,
        "headers": request.headers,
        "data": request.data,
    }


def to_this_api(request: web.Request, method: str, ending: str) -> dict[str, Any]:
    """The request's own URL as sent, its final `/url` replaced by `ending`."""
    raw = request.rel_url.raw_path
    if raw.endswith(_ENDING):
        path = raw.removesuffix(_ENDING) + ending
    else:  # the ending came percent-encoded
        path = quote(decode_path(raw).removesuffix(_ENDING)) + ending
    headers = {} if request[BY_COOKIE] else {"authorization": request.headers[hdrs.AUTHORIZATION]}
    return {
        "method": method,
        "url": f"{own_origin(request)}{path}",
        "headers": headers,
        "data": {},
    }


def own_origin(request: web.Request) -> str:
    """Scheme and host as the client used them; forwarded ones from trusted proxies only."""
    scheme, host = request.scheme, request.host
    if _is_trusted(request):
        forwarded = _first(request.headers.get(hdrs.X_FORWARDED_PROTO)).lower()
        scheme = forwarded if forwarded in {"http", "https"} else scheme
        forwarded = _first(request.headers.get(hdrs.X_FORWARDED_HOST))
        host = forwarded if _HOST.fullmatch(forwarded) else host
    return f"{scheme}://{host}"


def _is_trusted(request: web.Request) -> bool:
    try:
        address = ip_address(request.remote or "")
    except ValueError:
        return False
    return any(address in network for network in request.app[SETTINGS].trusted_proxies)


def _first(value: str | None) -> str:
    return (value or "").partition(",")[0].strip()
