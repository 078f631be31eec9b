"""Every answer that a test's client gets is checked against the OpenAPI document."""

from functools import cache
from typing import Any

import orjson
from aiohttp import web
from openapi_schema_validator import OAS31Validator

from gateway.routes import add_routes, openapi_document

_BEFORE_ROUTING = {
    (405, b'{"detail":"Method Not Allowed"}'),
    (414, b'{"detail":"A path may have at most 4200 slashes"}'),
    (417, b'{"detail":"Expectation Failed"}'),
}

_CHECKED = 30
"""Items of a list that are checked."""


def check_answer(method: str, target: str, status: int, kind: str, body: bytes) -> None:
    """The operation documents this status, and for JSON a schema that knows every key."""
    operation = _find_operation(method, target.partition("?")[0])
    if operation is None or (status, body) in _BEFORE_ROUTING:
        return
    documented = operation["responses"].get(str(status))
    assert documented is not None, f"{method} {target}: {status} is not documented"
    content = documented.get("content", {}).get("application/json")
    if content is None or kind != "application/json" or method == "HEAD":
        return
    answer = orjson.loads(body)
    schema = {**content["schema"], "components": _document()["components"]}
    shown = answer[:_CHECKED] if isinstance(answer, list) else answer
    for error in OAS31Validator(schema).iter_errors(shown):
        raise AssertionError(f"{method} {target}: {error.json_path}: {error.message}")


@cache
def _app() -> web.Application:
    app = web.Application()
    add_routes(app, accounts=True)
    return app


@cache
def _document() -> Any:
    document = orjson.loads(orjson.dumps(openapi_document(_app(), accounts=True)))
    _close(document)
    return document


def _close(node: Any) -> None:
    """Let no object have keys that its schema does not declare."""
    for inner in node.values() if isinstance(node, dict) else node:
        if isinstance(inner, dict | list):
            _close(inner)
    if isinstance(node, dict) and isinstance(node.get("properties"), dict):
        node.setdefault("additionalProperties", False)


def _find_operation(method: str, path: str) -> Any:
    for resource in _app().router.resources():
        if resource.match(path) is not None:
            return _document()["paths"].get(resource.canonical, {}).get(method.lower())
    return None
