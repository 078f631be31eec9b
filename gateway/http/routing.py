"""Routes that match the decoded path as it was sent: `//` kept, `%2F` a slash.

Existing clients build URLs by concatenation, so the patterns are those of the service they were
written for: `{name}` is one segment, `{name:path}` any text, empty or with slashes.
"""

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

_PART: Final = re.compile(r"\{(?P<name>\w+)(?P<path>:path)?\}")


class PathResource(web.AbstractResource):
    """The routes of one pattern, by method."""

    def __init__(self, template: str, *, slash: bool = False, also: str | None = None) -> None:
        """`slash` lets the path end in one more slash than the template; `also` is a path that
        matches as well, with every part empty."""
        super().__init__()
        pattern, position, shown = "", 0, ""
        for part in _PART.finditer(template):
            literal = template[position : part.start()]
            pattern += re.escape(literal)
            pattern += f"(?P<{part['name']}>{'.*' if part['path'] else '[^/]+'})"
            shown += f"{literal}{{{part['name']}}}"
            position = part.end()
        pattern += re.escape(template[position:]) + ("/?" if slash and template != "/" else "")
        self._pattern = re.compile(pattern, re.DOTALL)
        self._shown = shown + template[position:]
        self._also = also
        self._routes: dict[str, web.ResourceRoute] = {}

    def add_route(self, method: str, handler: Handler) -> None:
        assert method not in self._routes, f"{method} {self._shown} has a handler"
        self._routes[method] = web.ResourceRoute(method, handler, self)

    async def resolve(
        self, request: web.Request
    ) -> tuple[web.UrlMappingMatchInfo | None, set[str]]:
        parts = self._match(request.rel_url.path_safe)
        if parts is None:
            return None, set()
        route = self._routes.get(request.method)
        if route is None:
            return None, set(self._routes)
        return web.UrlMappingMatchInfo(parts, route), set()

    def _match(self, path: str) -> dict[str, str] | None:
        if path == self._also:
            return dict.fromkeys(self._pattern.groupindex, "")
        match = self._pattern.fullmatch(decode_path(path))
        return match.groupdict() if match else None

    @property
    def canonical(self) -> str:
        return self._shown

    def raw_match(self, path: str) -> bool:
        return self._shown == path

    def url_for(self, **parts: str) -> URL:
        return URL.build(path=self._shown.format_map(parts), encoded=True)

    def get_info(self) -> Any:
        return {"formatter": self._shown, "pattern": self._pattern}

    def add_prefix(self, prefix: str) -> None:
        raise RuntimeError(f"these routes have no prefix, not even {prefix!r}")

    def __len__(self) -> int:
        return len(self._routes)

    def __iter__(self) -> Iterator[web.ResourceRoute]:
        return iter(self._routes.values())


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
) -> None:
    """Route `method` on `template`; several methods share one resource (see `PathResource`)."""
    shown = _PART.sub(lambda part: f"{{{part['name']}}}", template)
    resource = next((found for found in app.router.resources() if found.canonical == shown), None)
    if not isinstance(resource, PathResource):
        resource = PathResource(template, slash=slash, also=also)
        app.router.register_resource(resource)
    resource.add_route(method, handler)
