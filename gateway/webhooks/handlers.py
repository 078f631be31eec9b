"""`/webhooks`."""

from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp_apispec import (
    docs,
    json_schema,
    match_info_schema,
    querystring_schema,
    response_schema,
)

from gateway.http.audit import audit
from gateway.http.errors import Answer, ErrorTable
from gateway.http.keys import USER
from gateway.http.responses import json_response
from gateway.webhooks.deliveries import Deliveries
from gateway.webhooks.errors import (
    DeliveryNotFound,
    TooManyWebhooks,
    WebhookDisabled,
    WebhookNotFound,
)
from gateway.webhooks.schemas import (
    DELIVERY_EXAMPLE,
    REQUEST_EXAMPLE,
    SECRET_EXAMPLE,
    WEBHOOK_EXAMPLE,
    ChangeSchema,
    DeliveriesQuerySchema,
    DeliverySchema,
    MessageSchema,
    NewWebhookSchema,
    WebhookIdSchema,
    WebhookSchema,
    WebhookWithSecretSchema,
)
from gateway.webhooks.service import MOST, Webhooks

WEBHOOKS: Final = web.AppKey("webhooks", Webhooks)
DELIVERIES: Final = web.AppKey("webhook_deliveries", Deliveries)

_NOT_FOUND: Final = "Webhook not found"
_DISABLED: Final = "The webhook is disabled"
_TOO_MANY: Final = f"A user may have at most {MOST} webhooks"

ERRORS: Final[ErrorTable] = {
    WebhookNotFound: Answer(HTTPStatus.NOT_FOUND, _NOT_FOUND),
    DeliveryNotFound: Answer(HTTPStatus.NOT_FOUND, "Delivery not found"),
    TooManyWebhooks: Answer(HTTPStatus.CONFLICT, _TOO_MANY),
    WebhookDisabled: Answer(HTTPStatus.CONFLICT, _DISABLED),
}

_UNCACHED: Final = {"Cache-Control": "no-store"}

_SIGNED: Final = (
    "Messages are signed by Standard Webhooks 1.0 (https://www.standardwebhooks.com): verify "
    "`webhook-signature` with the secret, and use `webhook-id` to recognise a message that comes "
    "twice. The body is `{type, timestamp, data}`, where `data` is the job as `GET /jobs/{job_id}` "
    "answers it and `type` is `job.finished`, `job.error`, `job.cancelled` or `job.status`. "
    "Any 2xx takes it; otherwise it comes again, nine times within about three days. Redirects are "
    "not followed, 410 disables the webhook, and so do five days of failure."
)


@docs(
    tags=["Webhooks"],
    summary="Add a webhook",
    description=f"Announces changes of the caller's jobs to a URL. {_SIGNED}",
    errors={409: _TOO_MANY},
    request_example=REQUEST_EXAMPLE,
    response_example=SECRET_EXAMPLE,
)
@json_schema(NewWebhookSchema)
@response_schema(WebhookWithSecretSchema, HTTPStatus.CREATED, description="The webhook.")
async def add_webhook(request: web.Request) -> web.Response:
    added = await request.app[WEBHOOKS].add(request[USER], request["json"])
    audit(request, "add_webhook", target=f"webhooks/{added['id']}")
    return json_response(added, status=HTTPStatus.CREATED, headers=_UNCACHED)


@docs(
    tags=["Webhooks"],
    summary="List webhooks",
    description="The caller's webhooks, oldest first, without their secrets.",
    response_example=[WEBHOOK_EXAMPLE],
)
@response_schema(WebhookSchema(many=True), HTTPStatus.OK, description="The webhooks.")
async def list_webhooks(request: web.Request) -> web.Response:
    return json_response(await request.app[WEBHOOKS].all(request[USER]))


@docs(
    tags=["Webhooks"],
    summary="Describe a webhook",
    description="One of the caller's webhooks, without its secret.",
    errors={404: _NOT_FOUND},
    response_example=WEBHOOK_EXAMPLE,
)
@match_info_schema(WebhookIdSchema)
@response_schema(WebhookSchema, HTTPStatus.OK, description="The webhook.")
async def describe_webhook(request: web.Request) -> web.Response:
    webhook_id = request["match_info"]["webhook_id"]
    return json_response(await request.app[WEBHOOKS].find(request[USER], webhook_id))


@docs(
    tags=["Webhooks"],
    summary="Change a webhook",
    description='Changes what is given. `{"disabled": false}` enables a webhook again; what '
    "happened meanwhile is not delivered by itself.",
    errors={404: _NOT_FOUND},
    request_example={"disabled": False},
    response_example=WEBHOOK_EXAMPLE,
)
@match_info_schema(WebhookIdSchema)
@json_schema(ChangeSchema)
@response_schema(WebhookSchema, HTTPStatus.OK, description="The webhook.")
async def change_webhook(request: web.Request) -> web.Response:
    webhook_id = request["match_info"]["webhook_id"]
    changed = await request.app[WEBHOOKS].change(request[USER], webhook_id, request["json"])
    audit(request, "change_webhook", target=f"webhooks/{webhook_id}")
    return json_response(changed)


@docs(
    tags=["Webhooks"],
    summary="Delete a webhook",
    description="Removes the webhook and its deliveries; an attempt under way is not called back.",
    errors={404: _NOT_FOUND},
    responses={"204": {"description": "The webhook is gone."}},
)
@match_info_schema(WebhookIdSchema)
async def delete_webhook(request: web.Request) -> web.Response:
    webhook_id = request["match_info"]["webhook_id"]
    await request.app[WEBHOOKS].delete(request[USER], webhook_id)
    audit(request, "delete_webhook", target=f"webhooks/{webhook_id}")
    return web.Response(status=HTTPStatus.NO_CONTENT)


@docs(
    tags=["Webhooks"],
    summary="Replace a webhook's secret",
    description="Gives a new secret. The old one signs as well for 24 hours: `webhook-signature` "
    "then holds two signatures, or more, up to five, if secrets are replaced again meanwhile.",
    errors={404: _NOT_FOUND},
    response_example=SECRET_EXAMPLE,
)
@match_info_schema(WebhookIdSchema)
@response_schema(WebhookWithSecretSchema, HTTPStatus.OK, description="The webhook.")
async def rotate_secret(request: web.Request) -> web.Response:
    webhook_id = request["match_info"]["webhook_id"]
    changed = await request.app[WEBHOOKS].rotate(request[USER], webhook_id)
    audit(request, "rotate_webhook_secret", target=f"webhooks/{webhook_id}")
    return json_response(changed, headers=_UNCACHED)


@docs(
    tags=["Webhooks"],
    summary="Test a webhook",
    description="Delivers a message of the type `webhook.test` with empty `data`.",
    errors={404: _NOT_FOUND, 409: _DISABLED},
    response_example={
        **DELIVERY_EXAMPLE,
        "event": "webhook.test",
        "attempts": 0,
        "last_status": None,
    },
)
@match_info_schema(WebhookIdSchema)
@response_schema(DeliverySchema, HTTPStatus.ACCEPTED, description="The delivery to come.")
async def test_webhook(request: web.Request) -> web.Response:
    webhook_id = request["match_info"]["webhook_id"]
    delivery = await request.app[DELIVERIES].test(request[USER], webhook_id)
    return json_response(delivery, status=HTTPStatus.ACCEPTED)


@docs(
    tags=["Webhooks"],
    summary="List a webhook's deliveries",
    description="Messages of the last days, newest first.",
    errors={404: _NOT_FOUND},
    response_example=[DELIVERY_EXAMPLE],
)
@match_info_schema(WebhookIdSchema)
@querystring_schema(DeliveriesQuerySchema)
@response_schema(DeliverySchema(many=True), HTTPStatus.OK, description="The deliveries.")
async def list_deliveries(request: web.Request) -> web.Response:
    webhook_id, page = request["match_info"]["webhook_id"], request["querystring"]
    found = await request.app[DELIVERIES].page(
        request[USER], webhook_id, offset=page["offset"], limit=page["limit"]
    )
    return json_response(found)


@docs(
    tags=["Webhooks"],
    summary="Deliver a message again",
    description="Delivers the message at once, with the same id and body; one that waits for its "
    "next attempt does not wait any longer.",
    errors={404: "Delivery not found", 409: _DISABLED},
    response_example={**DELIVERY_EXAMPLE, "last_status": 200},
)
@match_info_schema(MessageSchema)
@response_schema(DeliverySchema, HTTPStatus.ACCEPTED, description="The delivery to come.")
async def redeliver_message(request: web.Request) -> web.Response:
    path = request["match_info"]
    delivery = await request.app[DELIVERIES].redeliver(
        request[USER], path["webhook_id"], path["message"]
    )
    return json_response(delivery, status=HTTPStatus.ACCEPTED)
