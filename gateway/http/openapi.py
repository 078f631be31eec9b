"""`/openapi.json`: OpenAPI 3.1, built from the decorators that validation uses.

aiohttp-apispec itself supports Swagger 2 only. `docs(...)` takes six keywords beyond its own:
`errors` (the operation's error statuses, or a mapping of them to example sentences; None: the usual
one), `request_example`, `response_example`, `response_headers` (of a success: names and meanings),
`json_names` (alternative names of a form's fields where it is sent as JSON), and `without_path`
(where a part of the path may be left out, which OpenAPI does not know: the path, the `operationId`
and the summary of a second operation).
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp_apispec.aiohttp_apispec import resolver
from aiohttp_apispec.utils import get_path, get_path_keys
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import fields

from common.config.settings import VERSION
from gateway.http.example_faults import example_faults
from gateway.http.json_schemas import with_nullable_enums, with_other_name
from gateway.http.responses import AnswerSchema

_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"

_BEARER: Final = {"type": "http", "scheme": "bearer", "bearerFormat": "Cognito ID token"}
_INTERNAL_KEY: Final = {"type": "apiKey", "in": "header", "name": "x-api-key"}

_REQUEST_ID: Final = {
    "in": "header",
    "name": "X-Request-ID",
    "schema": {"type": "string"},
    "description": "Names the request in the logs and in its answer: up to 128 letters, digits "
    "and `._:@=+/-`; another one is made if it is missing or not like that.",
}

_INFO: Final = {
    "description": """Upload data and configurations, start jobs, follow them, download results.

Authenticate with a Cognito ID token: `Authorization: Bearer <token>`.""",
    "contact": {"name": "The DECODE OpenCloud authors"},
    "license": {"name": "MIT License", "identifier": "MIT"},
}
_LOG_IN: Final = " **Authorize** logs in with e-mail address and password."

_ERRORS: Final = {
    # status: its meaning, and its example unless the operation has one of its own
    400: ("The request cannot be carried out as it is.", "The Host header is malformed"),
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
    410: ("It was there, and has expired.", "The upload has expired"),
    412: ("A condition that was sent does not hold.", "there is something at 'data/x'"),
    413: ("Too large.", "The body is too long"),
    415: (
        "The body is compressed.",
        "A body is taken as it is: Content-Encoding may only be identity",
    ),
    416: ("No part of the file lies in the range.", "No part of the file lies in this range"),
    423: ("Another request changes it at the moment.", "Another request writes to the upload"),
    429: (
        "A limit on this caller's requests is used up; `Retry-After` says when to try again.",
        "Limit exceeded: 64 requests at once",
    ),
    460: (
        "The bytes are not those of the checksum that was sent.",
        "The bytes do not have the checksum that was sent",
    ),
    500: ("Something went wrong here; it has been logged.", "Internal Server Error"),
    503: (
        "Something that this request needs is away; try again.",
        "The database does not answer at the moment",
    ),
    507: ("There is not enough space left.", "There is not enough space left for this file"),
}


def _log_in(token_path: str) -> dict[str, Any]:
    return {
        "type": "oauth2",
        "description": "E-mail address and password; no client is needed.",
        "flows": {"password": {"tokenUrl": token_path, "scopes": {}}},
        "x-tokenName": "id_token",  # where Swagger UI finds the token in the answer
    }


class DetailSchema(AnswerSchema):
    """A refusal: one sentence."""

    detail = fields.String(metadata={"example": "Not Found"})


class FaultSchema(AnswerSchema):
    """One fault of a request."""

    loc = fields.List(fields.Raw(), metadata={"example": ["body", "priority"]})
    msg = fields.String(metadata={"example": "Field required"})
    type = fields.String(metadata={"example": "missing"})


class InvalidSchema(AnswerSchema):
    """A request that fails validation, with all its faults."""

    detail = fields.List(fields.Nested(FaultSchema))


class OpenApi:
    """Collects decorated handlers into an OpenAPI 3.1 document.

    `tags` maps the handlers' tags to their descriptions. `token_path` is where a password is
    exchanged for a token, with OAuth 2's password grant; None: nowhere.
    """

    def __init__(
        self,
        *,
        public: frozenset[Handler],
        internal: frozenset[Handler],
        tags: Mapping[str, str],
        token_path: str | None,
    ) -> None:
        plugin = MarshmallowPlugin(schema_name_resolver=resolver)
        about = f"{_INFO['description']}{_LOG_IN if token_path else ''}"
        self.spec = APISpec(
            title="DECODE OpenCloud: user-facing API",
            version=VERSION,
            openapi_version="3.1.0",
            info={**_INFO, "description": about},
            servers=[{"url": "/", "description": "This service"}],
            plugins=[plugin],
        )
        self._converter: Any = plugin.converter
        self._public = public
        self._internal = internal
        self._tags = dict(tags)
        self._user: list[dict[str, list[str]]] = [{"user": []}]
        if token_path:
            self._user.append({"login": []})
            self.spec.components.security_scheme("login", _log_in(token_path))
        self.spec.components.security_scheme("user", _BEARER)

    def build(self, routes: Iterable[web.AbstractRoute]) -> dict[str, Any]:
        """The document for all decorated handlers among `routes`."""
        used: set[str] = set()
        for route in routes:
            data = getattr(route.handler, "__apispec__", None)
            if data is None:
                continue
            used.update(data["tags"])
            method, name = route.method.lower(), route.handler.__name__
            name = f"{name}_head" if method == "head" else name
            self._add(route.handler, data, method, get_path(route), name)
            if "without_path" in data:
                path, name, summary = data["without_path"]
                self._add(route.handler, {**data, "summary": summary}, method, path, name)
        for tag, description in self._tags.items():
            if tag in used:
                self.spec.tag({"name": tag, "description": description})
        document: dict[str, Any] = with_nullable_enums(self.spec.to_dict())
        return document

    def _add(self, handler: Any, data: Any, method: str, path: str, name: str) -> None:
        schemas = data.get("schemas", [])
        operation: dict[str, Any] = {
            "operationId": name,
            "tags": data["tags"],
            "summary": data["summary"],
            "description": data["description"],
            "parameters": self._parameters(data, set(get_path_keys(path))),
        }
        if "requestBody" in data:
            operation["requestBody"] = data["requestBody"]
        for item in schemas:
            if item["location"] in {"json", "form"}:
                operation["requestBody"] = self._request_body(item, data)
        errors = {400, 415, 500, *data.get("errors", ())}
        if "requestBody" in operation:
            errors |= {408, 413}
        if handler in self._internal:
            operation["security"] = [{"internal": []}]
            self.spec.components.security_scheme("internal", _INTERNAL_KEY)
            errors |= {401, 503}
        elif handler not in self._public:
            operation["security"] = self._user
            errors |= {401, 403, 429, 503}
        else:
            operation["security"] = []
            errors.add(429)
        operation["responses"] = _responses(data, errors, example_faults(schemas))
        self.spec.path(path=path, operations={method: operation})

    def _parameters(self, data: Any, in_path: set[str]) -> list[dict[str, Any]]:
        """Those of the operation, of the path's only those that this path has."""
        found = list(data.get("parameters", []))
        for item in data.get("schemas", []):
            place = {"match_info": "path", "querystring": "query"}.get(item["location"])
            if place:
                found.extend(self._converter.schema2parameters(item["schema"], location=place))
        return [
            *(item for item in found if item["in"] != "path" or item["name"] in in_path),
            _REQUEST_ID,
        ]

    def _request_body(self, item: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        content: dict[str, Any] = {"schema": item["schema"]}
        if "request_example" in data:
            content["example"] = data["request_example"]
        contents = {_JSON: content}
        if item["location"] == "form":
            contents[_FORM] = dict(content)
            for name, other in data.get("json_names", {}).items():
                shape = self._converter.schema2jsonschema(item["schema"])
                # a component, since generators do not name bodies that differ by content type
                component = f"{resolver(item['schema'])}AsJson"
                self.spec.components.schema(component, with_other_name(shape, name, other))
                content["schema"] = component
        required = not getattr(item["schema"], "may_be_missing", False)
        return {"required": required, "content": contents}


def _responses(data: Any, errors: set[int], faults: list[dict[str, Any]]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for code, answer in data.get("responses", {}).items():
        shaped: dict[str, Any] = {
            "description": answer.get("description") or HTTPStatus(int(code)).phrase
        }
        if "headers" in answer:
            shaped["headers"] = answer["headers"]
        if "content" in answer:
            shaped["content"] = answer["content"]
        elif "schema" in answer:
            content = {"schema": answer["schema"]}
            if data.get("response_example") is not None:
                content["example"] = data["response_example"]
            shaped["content"] = {_JSON: content}
        if int(code) < HTTPStatus.MULTIPLE_CHOICES and "response_headers" in data:
            shaped["headers"] = {
                name: {"description": meaning, "schema": {"type": "string"}}
                for name, meaning in data["response_headers"].items()
            }
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
    if data.get("schemas"):
        content = {"schema": InvalidSchema}
        if faults:
            content["example"] = {"detail": faults}
        responses["422"] = {
            "description": "The request fails validation.",
            "content": {_JSON: content},
        }
    return responses
