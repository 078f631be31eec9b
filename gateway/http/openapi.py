"""`/openapi.json`: OpenAPI 3.1, built from the decorators that validation uses.

aiohttp-apispec itself supports Swagger 2 only. `docs(...)` takes four keywords beyond its own:
`errors` (the operation's error statuses, or a mapping of them to example sentences; None: the usual
one), `request_example`, `response_example`, and `json_names` (alternative names of a form's fields
where it is sent as JSON).
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp_apispec.aiohttp_apispec import resolver
from aiohttp_apispec.utils import get_path, get_path_keys
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema, fields

from common.config.settings import VERSION
from gateway.http.responses import json_bytes

_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"

_INTERNAL_KEY: Final = {"type": "apiKey", "in": "header", "name": "x-api-key"}

_ABOUT: Final = """Upload data and configurations, start jobs, follow them, download results.

Authenticate with a Cognito ID token: `Authorization: Bearer <token>`. Outside production
`POST /token` issues one; put it into **Authorize** below."""

_ERRORS: Final = {
    # status: its meaning, and its example unless the operation has one of its own
    400: ("The request cannot be carried out as it is.", "The body is not what its headers say"),
    401: (
        "No usable token, or one that does not hold; `WWW-Authenticate` says if it has expired.",
        "Not authenticated",
    ),
    403: (
        "Not a member of the 'users' group, or not allowed.",
        "Not a member of the 'users' group",
    ),
    404: ("There is nothing of this kind for this caller.", "Not Found"),
    405: ("This cannot be done with this kind of thing.", "Method Not Allowed"),
    408: ("The body did not come in time.", "The body did not come in time"),
    409: ("The request clashes with what is there already.", "'data/x' is not a directory"),
    412: ("A condition that was sent does not hold.", "there is something at 'data/x'"),
    413: ("Too large.", "The body is too long"),
    415: (
        "The body is compressed.",
        "A body is taken as it is: Content-Encoding may only be identity",
    ),
    416: ("No part of the file lies in the range.", "No part of the file lies in this range"),
    429: (
        "A limit on this caller's requests is used up; `Retry-After` says when to try again.",
        "Limit exceeded: 64 requests at once",
    ),
    500: ("Something went wrong here; it has been logged.", "Internal Server Error"),
    503: (
        "Something that this request needs is away; try again.",
        "The database does not answer at the moment",
    ),
    507: ("There is not enough space left.", "There is not enough space left for this file"),
}


class DetailSchema(Schema):
    """A refusal: one sentence."""

    detail = fields.String(required=True, metadata={"example": "Not Found"})


class FaultSchema(Schema):
    """One fault of a request."""

    loc = fields.List(fields.Raw(), required=True, metadata={"example": ["body", "priority"]})
    msg = fields.String(required=True, metadata={"example": "Field required"})
    type = fields.String(required=True, metadata={"example": "missing"})


class InvalidSchema(Schema):
    """A request that fails validation, with all its faults."""

    detail = fields.List(fields.Nested(FaultSchema), required=True)


class OpenApi:
    """Collects decorated handlers into an OpenAPI 3.1 document."""

    def __init__(self, *, public: frozenset[Handler], internal: frozenset[Handler]) -> None:
        plugin = MarshmallowPlugin(schema_name_resolver=resolver)
        self.spec = APISpec(
            title="DECODE OpenCloud: user-facing API",
            version=VERSION,
            openapi_version="3.1.0",
            info={"description": _ABOUT},
            plugins=[plugin],
        )
        self._converter: Any = plugin.converter
        self._public = public
        self._internal = internal
        self.spec.components.security_scheme(
            "user", {"type": "http", "scheme": "bearer", "bearerFormat": "Cognito ID token"}
        )

    def build(self, routes: Iterable[web.AbstractRoute]) -> bytes:
        """The document, as JSON, for all decorated handlers among `routes`."""
        for route in routes:
            data = getattr(route.handler, "__apispec__", None)
            if data is not None:
                self._add(route.handler, dict(data), route.method.lower(), get_path(route))
        return orjson.dumps(self.spec.to_dict())

    def _add(self, handler: Any, data: dict[str, Any], method: str, path: str) -> None:
        schemas = data.get("schemas", [])
        names = set(get_path_keys(path))
        parameters = [
            item
            for item in data.get("parameters", [])
            if item["in"] != "path" or item["name"] in names
        ]
        operation: dict[str, Any] = {
            "operationId": f"{method}_{handler.__name__}",
            "tags": data.get("tags", []),
            "summary": data["summary"],
            "description": data["description"],
            "parameters": parameters,
        }
        if "requestBody" in data:
            operation["requestBody"] = data["requestBody"]
        for item in schemas:
            if item["location"] in {"json", "form"}:
                operation["requestBody"] = self._request_body(item, data)
            elif item["location"] != "headers":
                parameters.extend(
                    self._converter.schema2parameters(
                        item["schema"],
                        location="path" if item["location"] == "match_info" else "query",
                    )
                )
        errors = {400, 415, 500, *data.get("errors", ())}
        if "requestBody" in operation:
            errors |= {408, 413}
        if handler in self._internal:
            operation["security"] = [{"internal": []}]
            self.spec.components.security_scheme("internal", _INTERNAL_KEY)
            errors |= {401, 503}
        elif handler not in self._public:
            operation["security"] = [{"user": []}]
            errors |= {401, 403, 429, 503}
        else:
            operation["security"] = []
            errors.add(429)
        operation["responses"] = _responses(data, errors, validated=bool(schemas))
        self.spec.path(path=path, operations={method: operation})

    def _request_body(self, item: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        content: dict[str, Any] = {"schema": item["schema"]}
        if "request_example" in data:
            content["example"] = data["request_example"]
        contents = {_JSON: content}
        if item["location"] == "form":
            contents[_FORM] = dict(content)
            for name, other in data.get("json_names", {}).items():
                content["schema"] = self._with_other_name(item["schema"], name, other)
        return {"required": True, "content": contents}

    def _with_other_name(self, schema: Schema, name: str, other: str) -> dict[str, Any]:
        """The schema of an object in which `name` may also be called `other`."""
        shape = self._converter.schema2jsonschema(schema)
        return {
            **shape,
            "properties": {**shape["properties"], other: shape["properties"][name]},
            "required": [needed for needed in shape["required"] if needed != name],
            "anyOf": [{"required": [name]}, {"required": [other]}],
        }


def _responses(data: dict[str, Any], errors: set[int], *, validated: bool) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for code, answer in data.get("responses", {}).items():
        shaped: dict[str, Any] = {
            "description": answer.get("description") or HTTPStatus(int(code)).phrase
        }
        if "content" in answer:
            shaped["content"] = answer["content"]
        elif "schema" in answer:
            content = {"schema": answer["schema"]}
            if data.get("response_example") is not None:
                content["example"] = data["response_example"]
            shaped["content"] = {_JSON: content}
        responses[str(code)] = shaped
    named = data.get("errors", ())
    own: Mapping[int, str | None] = named if isinstance(named, Mapping) else {}
    for status in sorted(errors):
        meaning, usual = _ERRORS[status]
        example = {"detail": own.get(status) or usual}
        responses[str(status)] = {
            "description": meaning,
            "content": {_JSON: {"schema": DetailSchema, "example": example}},
        }
    if validated:
        responses["422"] = {
            "description": "The request fails validation.",
            "content": {_JSON: {"schema": InvalidSchema}},
        }
    return responses


def openapi_handler(document: bytes) -> Handler:
    """A handler that serves the document."""

    async def openapi(_: web.Request) -> web.Response:
        return json_bytes(document)

    return openapi
