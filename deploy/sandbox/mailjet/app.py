"""The two calls of Mailjet's API that a notifier makes, fault switches, and the page of mails."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web

from deploy.sandbox.faults import FaultError, FaultPlan, misbehave
from deploy.sandbox.mailjet.messages import BodyError, Judged, fault, judge
from deploy.sandbox.mailjet.page import inbox, webhooks
from deploy.sandbox.mailjet.store import Mail, MailStore
from deploy.sandbox.webhooks import RECEIVER, add_receiver, messages_as_html

_NO_KEY: Final = (
    "API key authentication/authorization failure. You may be unauthorized to access the API or "
    "your API key may be expired."
)
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; connect-src 'self'; "
    "script-src 'nonce-{}'"
)


@dataclass(frozen=True, kw_only=True)
class MailjetSettings:
    """`file` stores the mails; None: in memory only."""

    file: Path | None = None


@dataclass(kw_only=True)
class Mailjet:
    """The running stand-in; a look-up finds mails that are at least `lookup_lag` seconds old."""

    mails: MailStore
    faults: FaultPlan = field(default_factory=lambda: FaultPlan(("send", "lookup")))
    lookup_lag: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)


MAILJET: Final = web.AppKey("MAILJET", Mailjet)


def create_app(settings: MailjetSettings | None = None) -> web.Application:
    """The stand-in, ready to be served."""
    app = web.Application(client_max_size=64 << 20)
    file = settings.file if settings else None

    async def resources(app: web.Application) -> AsyncIterator[None]:
        mailjet = app[MAILJET] = Mailjet(mails=MailStore(file))
        yield
        mailjet.mails.close()

    app.cleanup_ctx.append(resources)
    app.add_routes(
        [
            web.post("/v3.1/send", send),
            web.get("/v3/REST/message", look_up),
            web.get("/_faults", get_faults),
            web.put("/_faults", put_faults),
            web.delete("/_faults", delete_faults),
            web.get("/_counters", get_counters),
            web.get("/_mails", get_mails),
            web.get("/", show_mails),
            web.get("/mails/{id}", show_mails),
            web.get("/webhooks", show_webhooks),
        ]
    )
    add_receiver(app)
    return app


def _json(value: Any, status: int = 200) -> web.Response:
    body = orjson.dumps(value)
    return web.Response(body=body, status=status, content_type="application/json")


def _authenticated(request: web.Request) -> bool:
    return request.headers.get("Authorization", "").lower().startswith("basic ")


async def send(request: web.Request) -> web.StreamResponse:
    """POST /v3.1/send: 200, or 400 if any message is refused; the others are sent."""
    mailjet = request.app[MAILJET]
    mailjet.counts["send"] += 1
    if not _authenticated(request):
        return _json(fault("mj-0401", _NO_KEY, status=401), 401)
    try:
        body = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        body = None
    try:
        judged = judge(body)
    except BodyError as error:
        return _json(error.answer, 400)

    async def act() -> web.Response:
        refused = any(item.errors for item in judged)
        base = str(request.url.origin())
        deliver = _rehearse if body.get("SandboxMode") is True else _deliver
        return _json(
            {"Messages": [deliver(mailjet, item, base) for item in judged]},
            400 if refused else 200,
        )

    names = [name for item in judged for name in (item.custom_id, *_receivers(item))]
    rule = mailjet.faults.take("send", names=names)
    return await act() if rule is None else await misbehave(request, rule, act)


def _receivers(item: Judged) -> list[str]:
    to = item.message.get("To")
    return (
        [str(one.get("Email")) for one in to if isinstance(one, dict)]
        if isinstance(to, list)
        else []
    )


def _deliver(mailjet: Mailjet, item: Judged, base: str) -> dict[str, Any]:
    if item.errors:
        mailjet.counts["refused"] += 1
        return {"Status": "error", "CustomID": item.custom_id, "Errors": item.errors}
    mailjet.counts["sent"] += 1
    mail = mailjet.mails.add(item.message)
    to = [
        {
            "Email": receiver["Email"],
            "MessageID": mail["id"],
            "MessageUUID": mail["uuid"],
            "MessageHref": f"{base}/v3/REST/message/{mail['id']}",
        }
        for receiver in mail["to"]
    ]
    return {"Status": "success", "CustomID": item.custom_id, "To": to, "Cc": [], "Bcc": []}


def _rehearse(_: Mailjet, item: Judged, __: str) -> dict[str, Any]:
    """Mailjet's sandbox: the same answer, and nothing is sent."""
    if item.errors:
        return {"Status": "error", "CustomID": item.custom_id, "Errors": item.errors}
    return {"Status": "success", "CustomID": item.custom_id, "To": [], "Cc": [], "Bcc": []}


async def look_up(request: web.Request) -> web.StreamResponse:
    """GET /v3/REST/message?CustomID=…: the mails with that id."""
    mailjet = request.app[MAILJET]
    mailjet.counts["lookup"] += 1
    if not _authenticated(request):
        return _json(fault("mj-0401", _NO_KEY, status=401), 401)
    custom_id = request.query.get("CustomID")

    async def act() -> web.Response:
        found = (
            list(mailjet.mails) if custom_id is None else mailjet.mails.with_custom_id(custom_id)
        )
        before = time.time() - mailjet.lookup_lag
        data = [_as_message(mail) for mail in found if mail["sent_at"] <= before]
        return _json({"Count": len(data), "Data": data, "Total": len(data)})

    rule = mailjet.faults.take("lookup", names=[custom_id or ""])
    return await act() if rule is None else await misbehave(request, rule, act)


def _as_message(mail: Mail) -> dict[str, Any]:
    arrived = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(mail["sent_at"]))
    return {
        "ArrivedAt": arrived,
        "AttemptCount": 0,
        "CustomID": mail["custom_id"],
        "ID": mail["id"],
        "MessageSize": len(mail["text"]) + len(mail["html"]),
        "Status": "sent",
        "Subject": mail["subject"],
        "UUID": mail["uuid"],
    }


def _switches(mailjet: Mailjet) -> web.Response:
    return _json({"rules": mailjet.faults.as_json(), "lookup_lag": mailjet.lookup_lag})


async def get_faults(request: web.Request) -> web.Response:
    return _switches(request.app[MAILJET])


async def put_faults(request: web.Request) -> web.Response:
    """PUT /_faults {"rules": [...], "lookup_lag": 3}: a missing key changes nothing."""
    mailjet = request.app[MAILJET]
    try:
        body = mailjet.faults.switch(orjson.loads(await request.read()), "lookup_lag")
        mailjet.lookup_lag = float(body.get("lookup_lag", mailjet.lookup_lag))
    except (orjson.JSONDecodeError, FaultError, TypeError, ValueError) as error:
        return _json({"detail": str(error)}, 422)
    return _switches(mailjet)


async def delete_faults(request: web.Request) -> web.Response:
    mailjet = request.app[MAILJET]
    mailjet.faults.replace([])
    mailjet.lookup_lag = 0.0
    return _switches(mailjet)


async def get_counters(request: web.Request) -> web.Response:
    return _json(
        {name: request.app[MAILJET].counts[name] for name in ("send", "sent", "refused", "lookup")}
    )


async def get_mails(request: web.Request) -> web.Response:
    """GET /_mails?to=…&wait=10: oldest first; waits up to `wait` seconds for the first one."""
    mailjet, receiver = request.app[MAILJET], request.query.get("to")
    mailjet.counts["listed"] += 1
    end = time.monotonic() + min(float(request.query.get("wait", 0)), 30.0)
    while True:
        found = [
            mail
            for mail in mailjet.mails
            if receiver is None or any(to.get("Email") == receiver for to in mail["to"])
        ]
        if found or time.monotonic() > end:
            return _json(found)
        await asyncio.sleep(0.05)


async def show_mails(request: web.Request) -> web.Response:
    """The page: all mails, newest first, and the selected or newest one."""
    mails = request.app[MAILJET].mails
    text = request.match_info.get("id")
    chosen = mails.get(int(text)) if text and text.isdecimal() else None
    if text and chosen is None:
        raise web.HTTPNotFound(text="There is no such mail.")
    nonce = secrets.token_urlsafe(12)
    return _page(inbox(list(mails)[::-1], chosen, nonce), nonce)


async def show_webhooks(request: web.Request) -> web.Response:
    """The page of what came to the receiver of webhooks."""
    nonce = secrets.token_urlsafe(12)
    return _page(webhooks(messages_as_html(request.app[RECEIVER]), nonce), nonce)


def _page(page: str, nonce: str) -> web.Response:
    headers = {"Content-Security-Policy": _POLICY.format(nonce), "Cache-Control": "no-store"}
    return web.Response(text=page, content_type="text/html", headers=headers)
