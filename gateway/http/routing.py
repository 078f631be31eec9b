"""Routes that match the decoded path as it was sent: `//` kept, `%2F` a slash.

Existing clients build URLs by concatenation, so the patterns are those of the service they were
written for: `{name}` is one segment, `{name:path}` any text, empty or with slashes.
"""

import re
from typing import Any, Final
from urllib.parse import unquote

from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import istr

METHOD_OVERRIDE: Final = istr("X-HTTP-Method-Override")

_PART: Final = re.compile(r"\{(\w+)(:path)?\}")


class PathResource(web.DynamicResource):
    """The routes of one pattern, by method."""

    def __init__(
        self,
        template: str,
        *,
        slash: bool = False,
        also: str | None = None,
        overridable: bool = False,
    ) -> None:
        """`slash` lets the path end in one more slash than the template; `also` is a path that
        matches as well, with every part empty. `overridable`: the header `METHOD_OVERRIDE` names
        the method, for clients that cannot send any."""
        super().__init__(_PART.sub(_as_expression, template))
        pattern = self.get_info()["pattern"].pattern
        self._path = re.compile(pattern + ("/?" if slash else ""), re.DOTALL)
        self._also = also
        self._overridable = overridable
        self._by_method: dict[str, web.ResourceRoute] = {}

    def add_route(self, method: str, handler: Handler, **options: Any) -> web.ResourceRoute:
        self._by_method[method] = route = super().add_route(method, handler, **options)
        return route

    async def resolve(
        self, request: web.Request
    ) -> tuple[web.UrlMappingMatchInfo | None, set[str]]:
        parts = self.match(request.rel_url.path_safe)
        if parts is None:
            return None, set()
        method = request.method
        if self._overridable:
            method = (request.headers.get(METHOD_OVERRIDE) or method).upper()
        route = self._by_method.get(method)
        if route is None:
            return None, set(self._by_method)
        return web.UrlMappingMatchInfo(parts, route), set()

    def match(self, path: str) -> dict[str, str] | None:
        """The parts of a path as it was sent, without percent-escapes; None if it differs."""
        if path == self._also:
            return dict.fromkeys(self._path.groupindex, "")
        match = self._path.fullmatch(decode_path(path))
        return match.groupdict() if match else None


def _as_expression(part: re.Match[str]) -> str:
    """A part of a template in aiohttp's form."""
    return f"{{{part[1]}:{'.*' if part[2] else '[^/]+'}}}"


def decode_path(raw: str) -> str:
    """The path without percent-escapes; bytes that are not UTF-8 become lone surrogates."""
    return unquote(raw, errors="surrogateescape") if "%" in raw else raw


def add_route(
    app: web.Application,
    method: str,
    template: str,
    handler: Handler,
    *,
    slash: bool = False,
    also: str | None = None,
    overridable: bool = False,
) -> None:
    """Route `method` on `template`; several methods share one resource (see `PathResource`)."""
    new = PathResource(template, slash=slash, also=also, overridable=overridable)
    same = (found for found in app.router.resources() if found.canonical == new.canonical)
    resource = next(same, None)
    if not isinstance(resource, PathResource):
        resource = new
        app.router.register_resource(resource)
    resource.add_route(method, handler)
