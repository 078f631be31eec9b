"""The public routes: greeting, access information, documentation."""

from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import Final

from aiohttp import web
from aiohttp_apispec import docs, response_schema
from marshmallow import fields

from gateway.http.keys import SETTINGS
from gateway.http.responses import AnswerSchema, json_response

WELCOME: Final = "Welcome to the DECODE OpenCloud User-facing API"


class CognitoInfoSchema(AnswerSchema):
    """A Cognito user pool and its client."""

    user_pool_id = fields.String()
    client_id = fields.String()
    region = fields.String()


class AccessInfoSchema(AnswerSchema):
    """Where users authenticate."""

    cognito = fields.Nested(CognitoInfoSchema)


@docs(
    tags=["Public"],
    summary="Welcome",
    description="Shows that the service is there.",
    responses={
        "200": {
            "description": "A greeting.",
            "content": {"application/json": {"schema": {"type": "string"}, "example": WELCOME}},
        }
    },
)
async def welcome(_: web.Request) -> web.Response:
    return json_response(WELCOME)


@docs(
    tags=["Public"],
    summary="Where to authenticate",
    description="The Cognito user pool whose ID tokens this service accepts.",
    response_example={
        "cognito": {
            "user_pool_id": "eu-central-1_AbCdEfGhI",
            "client_id": "3n4b5urk1ft4fl3mg5e62d9ado",
            "region": "eu-central-1",
        }
    },
)
@response_schema(AccessInfoSchema, HTTPStatus.OK, description="The pool's coordinates.")
async def access_info(request: web.Request) -> web.Response:
    return json_response(AccessInfoSchema().dump(request.app[SETTINGS]))


_ASSETS: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>DECODE OpenCloud: user-facing API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui" data-url="openapi.json"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

_START: Final = """SwaggerUIBundle({
  url: document.getElementById("swagger-ui").dataset.url,
  dom_id: "#swagger-ui",
  deepLinking: true,
  queryConfigEnabled: false,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""

_POLICY: Final = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)


async def docs_page(_: web.Request) -> web.Response:
    """Swagger UI, from local files only."""
    return web.Response(
        text=_PAGE, content_type="text/html", headers={"Content-Security-Policy": _POLICY}
    )


async def docs_asset(request: web.Request) -> web.Response:
    name = request.match_info["asset"]
    if name == "start.js":
        return web.Response(text=_START, content_type="text/javascript")
    if name not in _ASSETS:
        raise web.HTTPNotFound
    return web.Response(
        body=_content_of(name),
        content_type=_ASSETS[name],
        headers={"Cache-Control": "max-age=86400"},
    )


@cache
def _content_of(name: str) -> bytes:
    """One of the files above, read once."""
    return files("swagger_ui").joinpath("static", name).read_bytes()
