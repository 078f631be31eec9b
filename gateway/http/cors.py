"""Cross-origin requests (Fetch standard): allowed from the front end's origin alone."""

from collections.abc import MutableMapping
from typing import Final

from aiohttp import hdrs, web

from gateway.http.errors import detail_response

_EXPOSED: Final = (
    "Content-Disposition, Content-Range, ETag, Idempotent-Replayed, Link, Location, RateLimit, "
    "RateLimit-Policy, Repr-Digest, Retry-After, Tus-Checksum-Algorithm, Tus-Extension, "
    "Tus-Max-Size, Tus-Resumable, Tus-Version, Upload-Expires, Upload-Length, Upload-Metadata, "
    "Upload-Offset, WWW-Authenticate, X-Request-ID, X-Total-Count"
)
_METHODS: Final = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
_MAX_AGE: Final = "600"


class Cors:
    """The one origin that may call with credentials; an empty one switches CORS off."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def allows(self, request: web.BaseRequest) -> bool:
        return bool(self._origin) and request.headers.get(hdrs.ORIGIN) == self._origin

    def add_headers(self, request: web.BaseRequest, headers: MutableMapping[str, str]) -> None:
        """Add which origin may read the answer; every answer needs it, errors and streams too."""
        if not self._origin:
            return
        vary = headers.get(hdrs.VARY)
        headers[hdrs.VARY] = f"{vary}, Origin" if vary else "Origin"
        if self.allows(request):
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = self._origin
            headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
            headers.setdefault(hdrs.ACCESS_CONTROL_EXPOSE_HEADERS, _EXPOSED)

    def preflight(self, request: web.BaseRequest) -> web.Response | None:
        """The answer to a preflight request; None for any other OPTIONS request."""
        sent = request.headers
        if hdrs.ORIGIN not in sent or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in sent:
            return None
        if not self.allows(request):
            return detail_response(400, "This origin may not call")
        names = sent.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "authorization, content-type")
        return web.Response(
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: names,
                hdrs.ACCESS_CONTROL_MAX_AGE: _MAX_AGE,
            }
        )
