"""Requests and answers about webhooks."""

import re
from typing import Any, Final

from marshmallow import fields

from common.jobs.webhooks import EVENTS
from gateway.http.fields import Choice, Flag, Items, RequestSchema, Text, Whole, invalid
from gateway.http.responses import AnswerSchema
from gateway.webhooks.urls import LONGEST

MAX_PAGE: Final = 1_000

_LABEL: Final = re.compile(r"[A-Za-z0-9._/-]{1,63}(:.{0,255})?", re.DOTALL)

WEBHOOK_EXAMPLE: Final[dict[str, Any]] = {
    "id": 1,
    "url": "https://example.org/hooks/opencloud",
    "events": ["finished", "error"],
    "labels": ["exp:7"],
    "disabled_at": None,
}
REQUEST_EXAMPLE: Final = {name: WEBHOOK_EXAMPLE[name] for name in ("url", "events", "labels")}
SECRET_EXAMPLE: Final = {
    **WEBHOOK_EXAMPLE,
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=",
}
DELIVERY_EXAMPLE: Final = {
    "id": "msg_3f8b6f0e9d7c4b1a8e2d5c6b7a890123",
    "event": "job.finished",
    "attempts": 1,
    "last_status": 500,
    "date": "2026-01-01T12:00:00.123456",
    "next_attempt": "2026-01-01T12:00:05.234567",
}


class LabelText(Text):
    """A label, as `key` or `key:value`."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if not _LABEL.fullmatch(text):
            raise invalid("value_error", "Value error, a label is 'key' or 'key:value'")
        return text

    def accepts_all(self, values: list[Any]) -> bool:
        return super().accepts_all(values) and all(map(_LABEL.fullmatch, values))


class EventNames(Items):
    """At least one of the events, each once."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> list[Any]:
        names = super()._deserialize(value, attr, data, **kwargs)
        if not names:
            raise invalid("value_error", f"Value error, give one of {', '.join(EVENTS)} at least")
        return list(dict.fromkeys(names))


def _url(**kwargs: Any) -> Text:
    about = "Where to deliver: `https`, a public host, no credentials."
    return Text(longest=LONGEST, metadata={"description": about, "format": "uri"}, **kwargs)


def _events(**kwargs: Any) -> EventNames:
    about = "What to announce; `status` is every change of the status."
    return EventNames(
        Choice(EVENTS), most=10, metadata={"description": about, "minItems": 1}, **kwargs
    )


def _labels(**kwargs: Any) -> Items:
    about = "Only jobs with all of these: `key` or `key:value`."
    return Items(
        LabelText(longest=320), most=16, allow_none=True, metadata={"description": about}, **kwargs
    )


class NewWebhookSchema(RequestSchema):
    """A webhook to add."""

    url = _url(required=True)
    events = _events(load_default=("finished", "error"))
    labels = _labels(load_default=None)


class ChangeSchema(RequestSchema):
    """What to change of a webhook; what is left out stays."""

    url = _url()
    events = _events()
    labels = _labels()
    disabled = Flag(metadata={"description": "false: deliver again; true: deliver nothing."})


class WebhookIdSchema(RequestSchema):
    """A webhook in the path."""

    webhook_id = Whole(required=True, metadata={"description": "The webhook's id.", "example": 1})


class MessageSchema(WebhookIdSchema):
    """A delivery in the path."""

    message = Text(
        required=True,
        metadata={"description": "The delivery's id.", "example": DELIVERY_EXAMPLE["id"]},
    )


class DeliveriesQuerySchema(RequestSchema):
    """A page of the deliveries."""

    offset = Whole(load_default=0, least=0, metadata={"description": "How many to skip."})
    limit = Whole(
        load_default=100,
        least=0,
        metadata={"description": f"How many at most; above {MAX_PAGE} counts as {MAX_PAGE}."},
    )


class WebhookSchema(AnswerSchema):
    """A webhook."""

    id = fields.Integer()
    url = fields.String()
    events = fields.List(fields.String(metadata={"enum": list(EVENTS)}))
    labels = fields.List(fields.String())
    disabled_at = fields.String(
        allow_none=True,
        metadata={
            "description": "Since when nothing is delivered: the receiver answered 410 or failed "
            "for days, or you disabled it. UTC, ISO 8601; null: it is enabled."
        },
    )


class WebhookWithSecretSchema(WebhookSchema):
    """A webhook with its new secret."""

    secret = fields.String(
        metadata={
            "description": "Verifies signatures (Standard Webhooks 1.0); shown this once.",
            "pattern": "^whsec_",
        }
    )


class DeliverySchema(AnswerSchema):
    """A message to a webhook."""

    id = fields.String(metadata={"description": "The header `webhook-id` of each attempt."})
    event = fields.String(
        metadata={
            "enum": [*(f"job.{event}" for event in EVENTS), "webhook.test"],
            "description": "The message's `type`.",
        }
    )
    attempts = fields.Integer()
    last_status = fields.Integer(
        allow_none=True,
        metadata={"description": "HTTP status of the last answer; null: there was none."},
    )
    date = fields.String(metadata={"description": "When it happened: UTC, ISO 8601."})
    next_attempt = fields.String(
        allow_none=True,
        metadata={
            "description": "UTC, ISO 8601; in the past: it is under way, or about to begin; null: "
            "there will be none."
        },
    )
