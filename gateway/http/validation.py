"""Validation of requests by the schemas that their handlers are decorated with.

The decorators are aiohttp-apispec's (`json_schema`, `querystring_schema`, …), so that validation
and `/openapi.json` cannot differ. All faults of a request are reported at once, up to `MAX_FAULTS`.
A handler finds the parsed data under the decorator's `put_into` key of the request.
"""

import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any, Final, TypeVar

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from marshmallow import Schema, ValidationError
from multidict import MultiMapping

from gateway.http.admission import compute
from gateway.http.body import is_small, read_body, read_form
from gateway.http.errors import Fault, Invalid, Location, TooLarge
from gateway.http.fields import Message
from gateway.http.keys import PARSED_JSON

Handler = TypeVar("Handler", bound=Callable[..., Any])
Inspection = Callable[[web.Request, Mapping[str, Any]], Awaitable[Sequence[Fault]]]

LOCATIONS: Final = {
    "json": "body",
    "form": "body",
    "querystring": "query",
    "match_info": "path",
    "headers": "header",
}
"""From a decorator's location to the first part of `loc`."""

_BODIES: Final = frozenset({"json", "form"})

_BROKEN_FORM: Final = (
    ValueError,
    AssertionError,
    LookupError,
    RuntimeError,
    HttpProcessingError,
)
"""What aiohttp raises for a malformed form."""


def inspected_by(inspection: Inspection) -> Callable[[Handler], Handler]:
    """Let `inspection` find further faults of a request that its schemas find faulty.

    It receives the valid parts. A request that passes its schemas is not inspected: its handler
    reports such faults itself.
    """

    def decorate(handler: Handler) -> Handler:
        handler.__inspection__ = inspection  # type: ignore[attr-defined]
        return handler

    return decorate


def otherwise(hint: str) -> Callable[[Handler], Handler]:
    """Let refusals of a body that is not JSON, or too long, end in this sentence."""

    def decorate(handler: Handler) -> Handler:
        handler.__hint__ = hint  # type: ignore[attr-defined]
        return handler

    return decorate


async def validate(request: web.Request, handler: Callable[..., Any]) -> None:
    """Parse the request by the handler's schemas, into the request. Raises `Invalid`."""
    valid: dict[str, Any] = {}
    faults: list[Fault] = []
    for item in getattr(handler, "__schemas__", ()):
        try:
            raw = await _raw(request, item["location"], item["schema"], handler)
            if item["location"] == "json":
                request[PARSED_JSON] = raw
            valid[item["put_into"]] = await _load(request, item, raw)
        except ValidationError as error:
            valid[item["put_into"]] = error.valid_data or {}
            faults.extend(flatten(error.messages, [LOCATIONS[item["location"]]]))
        except Invalid as error:
            faults.extend(error.faults)
    if faults:
        inspection: Inspection | None = getattr(handler, "__inspection__", None)
        raise Invalid(*faults, *(await inspection(request, valid) if inspection else ()))
    for place, parsed in valid.items():
        request[place] = parsed


async def _load(request: web.Request, item: Mapping[str, Any], raw: Any) -> Any:
    """Parse one part of the request; a large body in a thread."""
    if item["location"] == "querystring" and not raw:
        return dict(_defaults(item["schema"]))
    if item["location"] in _BODIES and not is_small(request):
        return await compute(request, partial(item["schema"].load, raw))
    return item["schema"].load(raw)


@cache
def _defaults(schema: Schema) -> dict[str, Any]:
    """What an empty query means: most requests have one. Raises `ValidationError`."""
    parsed: dict[str, Any] = schema.load({})
    return parsed


async def _raw(
    request: web.Request, location: str, schema: Schema, handler: Callable[..., Any]
) -> Any:
    """The data in one location of the request. A form may also be sent as JSON."""
    if location == "json":
        return await _read_json(
            request,
            getattr(handler, "__hint__", ""),
            mended=getattr(schema, "mends_texts", False),
            may_be_missing=getattr(schema, "may_be_missing", False),
        )
    if location == "querystring":
        if not request.query_string:
            return {}
        query = request.query
        found: dict[str, Any] = dict(query.items())  # the last value of a repeated key
        for name in getattr(schema, "repeated", ()):
            if name in found:
                found[name] = query.getall(name)
        return found
    if location == "match_info":
        return request.match_info
    if location == "headers":
        return request.headers
    if request.content_type == "application/json":
        return await _read_json(request)
    try:
        return _fields_of(await read_form(request))
    except _BROKEN_FORM as error:
        raise Invalid(Fault(["body"], "The form cannot be read", "form_invalid")) from error


def _fields_of(form: MultiMapping[Any]) -> dict[str, Any]:
    """A form's fields; a repeated one is a list."""
    found: dict[str, list[Any]] = {}
    for key, value in form.items():
        found.setdefault(key, []).append(value)
    return {key: values if len(values) > 1 else values[0] for key, values in found.items()}


async def _read_json(
    request: web.Request, hint: str = "", *, mended: bool = False, may_be_missing: bool = False
) -> Any:
    ending = f". {hint}" if hint else ""
    try:
        body = await read_body(request)
    except TooLarge as error:
        raise TooLarge(f"{error}{ending}") from error
    if not body and may_be_missing:
        return {}
    if not body:
        raise Invalid(Fault(["body"], "Field required", "missing"))
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        with contextlib.suppress(ValueError, RecursionError):
            return _parse_unusual(body, mended=mended)
        raise Invalid(
            Fault(["body"], f"JSON decode error: {error}{ending}", "json_invalid")
        ) from error


def _parse_unusual(body: bytes, *, mended: bool) -> Any:
    """JSON with a byte order mark or in another Unicode encoding. Raises `ValueError`.

    `mended`: lone surrogates in its texts become question marks.
    """
    text = body.decode(json.detect_encoding(body))
    if mended:
        text = json.dumps(json.loads(text), ensure_ascii=False)
    return orjson.loads(text.encode("utf-8", "replace"))


def flatten(messages: Any, loc: Location) -> Iterator[Fault]:
    """Marshmallow's nested messages as a flat sequence of faults."""
    if isinstance(messages, dict):
        for key, inner in messages.items():
            yield from flatten(inner, loc if key == "_schema" else [*loc, key])
        return
    for message in messages if isinstance(messages, list) else [messages]:
        if isinstance(message, dict):
            yield from flatten(message, loc)
        else:
            kind = message.kind if isinstance(message, Message) else "model_type"
            yield Fault(loc, str(message), kind)
