"""`/user/notifications`, and what mails and Mailjet call under `/notifications`."""

import hmac
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import web
from aiohttp_apispec import docs, json_schema, response_schema
from marshmallow import fields

from common.notifications.choices import Choice
from common.notifications.links import UnknownLink
from gateway.http.body import read_body
from gateway.http.errors import Answer, ErrorTable
from gateway.http.fields import Choice as ChoiceField
from gateway.http.fields import RequestSchema
from gateway.http.keys import SETTINGS, USER
from gateway.http.responses import AnswerSchema, json_response
from gateway.notifications import page
from gateway.notifications.mail_events import parse_events
from gateway.notifications.service import Notifications

NOTIFICATIONS: Final = web.AppKey("notifications", Notifications)

_BAD_LINK: Final = "This link is not one of ours, or it is damaged"

_NO_EVENTS: Final = "The events are no JSON"
_NOT_MAILJET: Final = "Not the token that was agreed with Mailjet"


class WrongEventToken(Exception):
    """Events that somebody else than Mailjet may have sent."""


class UnreadableEvents(Exception):
    """Events that are no JSON."""


ERRORS: Final[ErrorTable] = {
    UnknownLink: Answer(HTTPStatus.BAD_REQUEST, _BAD_LINK),
    WrongEventToken: Answer(HTTPStatus.FORBIDDEN, _NOT_MAILJET),
    UnreadableEvents: Answer(HTTPStatus.BAD_REQUEST, _NO_EVENTS),
}

_EXAMPLE: Final = {"mail": "errors"}
_MEANING: Final = (
    "`all`: a mail for each job that ends; `errors`: for those that end in error; `last`: one when "
    "none is under way any more, naming those that ended since; `none`."
)


class NotificationsRequestSchema(RequestSchema):
    """Which mails the caller wants."""

    mail = ChoiceField([*Choice], required=True, metadata={"description": _MEANING})


class NotificationsSchema(AnswerSchema):
    """Which mails the caller gets."""

    mail = fields.String(metadata={"enum": [*map(str, Choice)], "description": _MEANING})


def _token(meaning: str, example: str) -> list[dict[str, Any]]:
    """The parameter `t`: without it, the token is as wrong as any other."""
    schema = {"type": "string", "default": ""}
    return [
        {"in": "query", "name": "t", "schema": schema, "description": meaning, "example": example}
    ]


_LINK: Final = _token("The token of the link in a mail.", "gAAAAABpVmY4c2VlLW5vdGhpbmc")


@docs(
    tags=["Account"],
    summary="Which mails I get",
    description="About jobs that end. A submission's `notify` overrides it for that job.",
    response_example=_EXAMPLE,
)
@response_schema(NotificationsSchema, HTTPStatus.OK, description="The choice.")
async def get_notifications(request: web.Request) -> web.Response:
    choice = await request.app[NOTIFICATIONS].choice_of(request[USER].id)
    return json_response({"mail": choice})


@docs(
    tags=["Account"],
    summary="Choose which mails I get",
    description="The choice holds for jobs that end from now on. Mails that wait already are sent, "
    "unless it is `none`; what was gathered for one mail (`last`) is sent at once when another "
    "choice follows. Mails go again to an address that had bounced.",
    request_example=_EXAMPLE,
    response_example=_EXAMPLE,
)
@json_schema(NotificationsRequestSchema)
@response_schema(NotificationsSchema, HTTPStatus.OK, description="The choice.")
async def put_notifications(request: web.Request) -> web.Response:
    user, choice = request[USER], Choice(request["json"]["mail"])
    await request.app[NOTIFICATIONS].choose(user.id, choice, address=user.mail_to)
    return json_response({"mail": choice})


def _page(text: str, meaning: str) -> dict[str, Any]:
    content = {"text/html": {"schema": {"type": "string"}, "example": text}}
    return {"200": {"description": meaning, "content": content}}


@docs(
    tags=["Public"],
    summary="Ask whether to stop mails",
    description="The page behind the link in a mail, with a button that sends the POST. It "
    "changes nothing.",
    parameters=_LINK,
    errors={400: _BAD_LINK},
    responses=_page(page.ASK, "The page."),
)
async def show_unsubscribe(request: web.Request) -> web.Response:
    request.app[NOTIFICATIONS].check(request.query.get("t", ""))
    return web.Response(text=page.ASK, content_type="text/html", headers=page.HEADERS)


@docs(
    tags=["Public"],
    summary="Stop mails",
    description="Sets `mail` to `none` for the user of the link. Mail clients send it with one "
    "click (RFC 8058); the body does not matter.",
    parameters=_LINK,
    errors={400: _BAD_LINK, 503: None},
    requestBody={
        "required": False,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {"type": "object"},
                "example": {"List-Unsubscribe": "One-Click"},
            }
        },
    },
    responses=_page(page.DONE, "No more mails."),
)
async def unsubscribe(request: web.Request) -> web.Response:
    await request.app[NOTIFICATIONS].unsubscribe(request.query.get("t", ""))
    return web.Response(text=page.DONE, content_type="text/html", headers=page.HEADERS)


_EVENT: Final = {
    "event": "bounce",
    "time": 1767268800,
    "email": "user@example.com",
    "CustomID": "0f6b8a7e4f0c4d7c9b1a2f3e4d5c6b7a",
    "hard_bounce": True,
    "error": "user unknown",
}


@docs(
    tags=["Internal"],
    summary="Take Mailjet's events",
    description="One event or a list of them, as Mailjet's Event API sends them. Addresses that "
    "bounced for good, are blocked, or whose owners complained get no more mails. There if "
    "`EMAIL_SENDER_EVENT_TOKEN` is set.",
    parameters=_token("`EMAIL_SENDER_EVENT_TOKEN`.", "5f0c0d8f2b7e4a61"),
    errors={400: _NO_EVENTS, 403: _NOT_MAILJET, 503: None},
    requestBody={
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        {"type": "object"},
                        {"type": "array", "items": {"type": "object"}},
                    ]
                },
                "example": _EVENT,
            }
        },
    },
    responses={"200": {"description": "They are noted; Mailjet sends them again otherwise."}},
)
async def take_mail_events(request: web.Request) -> web.Response:
    sent, expected = request.query.get("t", ""), request.app[SETTINGS].mail_event_token
    if not hmac.compare_digest(sent.encode("utf-8", "surrogateescape"), expected.encode()):
        raise WrongEventToken
    try:
        body = orjson.loads(await read_body(request))
    except orjson.JSONDecodeError as error:
        raise UnreadableEvents from error
    await request.app[NOTIFICATIONS].take([*parse_events(body)])
    return web.Response()
