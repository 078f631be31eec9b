"""A small Mailjet, and notifiers in this process or in their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from aiohttp import encode_basic_auth, web

from common.config.settings import AdminSettings, LogSettings
from common.database.engine import Database
from common.database.tables import emails
from common.outbox.outbox import Outbox
from devtools.database import database_settings
from notifier.messages import Mail
from notifier.settings import MailjetSettings, Settings, WebhookDeliverySettings
from tests.support.fakes import serving

API_KEY = "mailjet-api-key"
SECRET_KEY = "mailjet-secret-key"

Behaviour = Callable[[web.Request, list[dict[str, Any]]], Awaitable[web.StreamResponse | None]]


class FakeMailjet:
    """Sends mails: into a list. `behave` may answer a request instead (None: send)."""

    def __init__(self) -> None:
        self.url = ""
        self.api_key = API_KEY
        self.secret_key = SECRET_KEY
        self.requests: list[list[dict[str, Any]]] = []
        self.sent: list[dict[str, Any]] = []
        self.bad: set[str] = set()
        self.lookups: list[str] = []
        self.finds = True
        self.behave: Behaviour | None = None

    def _refuses(self, request: web.Request) -> bool:
        expected = encode_basic_auth(self.api_key, self.secret_key)
        return request.headers.get("Authorization") != expected

    async def send(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        messages = body["Messages"]
        self.requests.append(messages)
        if self._refuses(request):
            return web.json_response({"ErrorMessage": "unauthorized"}, status=401)
        if self.behave is not None:
            answer = await self.behave(request, messages)
            if answer is not None:
                return answer
        sent = list(self.sent)
        results = [self.deliver(message) for message in messages]
        if body.get("SandboxMode") is True:
            self.sent = sent
        failed = any(result["Status"] == "error" for result in results)
        return web.json_response({"Messages": results}, status=400 if failed else 200)

    def deliver(self, message: dict[str, Any]) -> dict[str, Any]:
        to = message["To"][0]["Email"]
        if to in self.bad:
            error = {"StatusCode": 400, "ErrorMessage": f"{to} is an invalid email address."}
            return {"Status": "error", "Errors": [error]}
        self.sent.append(message)
        return {"Status": "success", "CustomID": message["CustomID"], "To": [{"Email": to}]}

    async def look_up(self, request: web.Request) -> web.Response:
        if self._refuses(request):
            return web.json_response({"ErrorMessage": "unauthorized"}, status=401)
        custom_id = request.query["CustomID"]
        self.lookups.append(custom_id)
        found = [mail for mail in self.sent if self.finds and mail["CustomID"] == custom_id]
        data = [{"CustomID": mail["CustomID"]} for mail in found]
        return web.json_response({"Count": len(data), "Data": data, "Total": len(data)})

    @property
    def recipients(self) -> list[str]:
        return [mail["To"][0]["Email"] for mail in self.sent]

    @asynccontextmanager
    async def served(self, port: int | None = None) -> AsyncIterator[FakeMailjet]:
        routes = [
            web.post("/v3.1/send", self.send),
            web.get("/v3/REST/message", self.look_up),
        ]
        async with serving(routes, port) as self.url:
            yield self


def mailjet_settings(url: str) -> MailjetSettings:
    return MailjetSettings(
        url=url, sender="cloud@example.org", api_key=API_KEY, secret_key=SECRET_KEY
    )


def notifier_settings(url: str, mailjet_url: str, **changes: Any) -> Settings:
    settings = Settings(
        database=database_settings(url),
        admin=AdminSettings(host="127.0.0.1", port=0),
        logs=LogSettings(),
        mailjet=mailjet_settings(mailjet_url),
        webhooks=WebhookDeliverySettings(),
        send_timeout=30.0,
        lookup_wait=1.0,
        shutdown_grace=5.0,
    )
    return replace(settings, **changes)


def outbox_of(database: Database) -> Outbox[Mail]:
    """The mails, as one notifier claims them."""
    return Outbox(database, emails, Mail, lease=60.0)


def environment(url: str, mailjet_url: str, **changes: Any) -> dict[str, Any]:
    """Environment of a notifier process."""
    return {
        "DATABASE_URL": url,
        "EMAIL_SENDER_SERVICE": "mailjet",
        "EMAIL_SENDER_API_URL": mailjet_url,
        "EMAIL_SENDER_ADDRESS": "cloud@example.org",
        "EMAIL_SENDER_API_KEY": API_KEY,
        "EMAIL_SENDER_SECRET_KEY": SECRET_KEY,
        "EMAIL_TIMEOUT": 1,
        "EMAIL_LOOKUP_WAIT": 1,
        **changes,
    }
