"""JSON responses, by orjson, their schemas, and the form of dates in them."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

import orjson
from aiohttp import web
from marshmallow import Schema, fields

_JSON: Final = {"Content-Type": "application/json"}


class AnswerSchema(Schema):
    """A schema of answers: a key is always there, unless its field's metadata says `optional`."""

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        del field_name
        field_obj.required = not field_obj.metadata.get("optional")


Handler = TypeVar("Handler", bound=Callable[..., Any])


def refused_with(headers: Mapping[str, str]) -> Callable[[Handler], Handler]:
    """Let refusals of a handler's requests carry these headers, those without credentials too."""

    def decorate(handler: Handler) -> Handler:
        handler.__refused_with__ = headers  # type: ignore[attr-defined]
        return handler

    return decorate


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
