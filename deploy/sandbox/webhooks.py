"""A receiver of webhooks: keeps what arrives, and shows whether its signature is right.

It learns a webhook's secret by `PUT /webhook/secret`, and refuses what none of them has signed.
"""

import binascii
import hmac
import time
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from html import escape
from typing import Final

import orjson
from aiohttp import web

_KEPT: Final = 200
_TOLERANCE: Final = 300.0
"""Seconds by which a message's time may differ (Standard Webhooks 1.0, verifying)."""

_PREFIX: Final = "whsec_"


@dataclass(frozen=True)
class Received:
    """A message as it arrived; `verdict` on its signature."""

    id: str
    type: str
    verdict: str
    arrived_at: float
    body: str


@dataclass
class Receiver:
    """Messages, newest first, and the secrets that verify them, of which none is stored."""

    secrets: list[str] = field(default_factory=list)
    messages: deque[Received] = field(default_factory=lambda: deque(maxlen=_KEPT))


RECEIVER: Final = web.AppKey("RECEIVER", Receiver)


def add_receiver(app: web.Application) -> None:
    """Add the receiver's routes, and what it keeps."""
    app[RECEIVER] = Receiver()
    app.add_routes(
        [
            web.post("/webhook", receive),
            web.put("/webhook/secret", learn_secret),
            web.get("/_webhooks", get_messages),
        ]
    )


async def learn_secret(request: web.Request) -> web.Response:
    """PUT /webhook/secret: the body is a secret, as the gateway showed it."""
    secret = (await request.text()).strip()
    try:
        b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        return web.Response(status=422, text="This is no secret of a webhook.")
    request.app[RECEIVER].secrets.append(secret)
    return web.Response(text="Messages that are signed with it are verified from now on.")


async def receive(request: web.Request) -> web.Response:
    """POST /webhook: takes a message, unless there are secrets and none has signed it."""
    receiver, body = request.app[RECEIVER], await request.read()
    verdict = judge(receiver.secrets, request.headers, body)
    try:
        kind = str(orjson.loads(body)["type"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        kind = "?"
    message = Received(
        id=request.headers.get("webhook-id", ""),
        type=kind,
        verdict=verdict,
        arrived_at=time.time(),
        body=body.decode(errors="replace"),
    )
    receiver.messages.appendleft(message)
    return web.Response(status=204 if verdict in {"verified", "no secret known"} else 401)


def judge(secrets: Sequence[str], headers: Mapping[str, str], body: bytes) -> str:
    """A receiver's side of Standard Webhooks 1.0."""
    sent = headers.get("webhook-timestamp", "")
    if not sent.isdecimal() or abs(time.time() - int(sent)) > _TOLERANCE:
        return "too old, or without a time"
    if not secrets:
        return "no secret known"
    signed = f"{headers.get('webhook-id', '')}.{sent}.".encode() + body
    keys = [b64decode(secret.removeprefix(_PREFIX)) for secret in secrets]
    expected = [f"v1,{b64encode(hmac.digest(key, signed, sha256)).decode()}" for key in keys]
    given = headers.get("webhook-signature", "").split(" ")
    is_signed = any(hmac.compare_digest(one, other) for one in expected for other in given)
    return "verified" if is_signed else "wrong"


async def get_messages(request: web.Request) -> web.Response:
    """GET /_webhooks: newest first."""
    body = orjson.dumps([asdict(message) for message in request.app[RECEIVER].messages])
    return web.Response(body=body, content_type="application/json")


def messages_as_html(receiver: Receiver) -> str:
    """What the page shows."""
    if not receiver.messages:
        return '<p class="none">Messages to a webhook appear here as they arrive.</p>'
    return "".join(map(_as_html, receiver.messages))


def _as_html(message: Received) -> str:
    arrived = time.strftime("%H:%M:%S", time.localtime(message.arrived_at))
    try:
        text = orjson.dumps(orjson.loads(message.body), option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONDecodeError:
        text = message.body
    return (
        f"<h3>{escape(message.type)}</h3><dl>"
        f"<dt>Arrived</dt><dd>{arrived}</dd><dt>webhook-id</dt><dd>{escape(message.id)}</dd>"
        f"<dt>Signature</dt><dd>{message.verdict}</dd></dl><pre>{escape(text)}</pre>"
    )
