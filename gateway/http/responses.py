"""JSON responses, by orjson, and the form of dates in them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import orjson
from aiohttp import web

_JSON: Final = {"Content-Type": "application/json"}


def json_response(
    data: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON response; `data` may hold `orjson.Fragment`s."""
    return json_bytes(orjson.dumps(data), status=status, headers=headers)


def json_bytes(
    body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A response of ready JSON."""
    return web.Response(
        body=body, status=status, headers={**_JSON, **headers} if headers else _JSON
    )


def iso(moment: datetime | None) -> str | None:
    """UTC, ISO 8601 with microseconds and without an offset."""
    return None if moment is None else moment.isoformat(timespec="microseconds")
