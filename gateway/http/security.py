"""Checks against other sites: which host a request names, and which page sends it."""

import re
from functools import lru_cache
from typing import Final

from aiohttp import hdrs, web

from gateway.http.errors import BadHost
from gateway.http.keys import CORS
from gateway.identity import NotAllowed

SERVER: Final = "opencloud"
"""The header `Server`, which states no version."""

_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_LONGEST_HOST: Final = 261
"""Characters of the longest name (RFC 1035, 2.3.4) with a port."""


def check_host(host: str | None) -> None:
    """Refuse a `Host` that is no host with or without a port. Raises `BadHost`."""
    if host is not None and not (len(host) <= _LONGEST_HOST and _is_host(host)):
        raise BadHost("The Host header is malformed")


@lru_cache(256)
def _is_host(text: str) -> bool:
    return _HOST.fullmatch(text) is not None


def check_page(request: web.Request) -> None:
    """Refuse what a page of another site sends: it could log its visitors in as somebody else.

    Raises `NotAllowed`. Clients that are no browsers send neither header.
    """
    if request.app[CORS].allows(request):
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site == "cross-site" or (hdrs.ORIGIN in request.headers and site != "same-origin"):
        raise NotAllowed("A page of another site may not log in")
