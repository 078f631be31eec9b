"""Webhooks, messages to them, and receivers that keep what they get."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from aiohttp import web
from sqlalchemy import insert, update

from common.database.engine import Database, utc_now
from common.database.tables import webhook_deliveries, webhooks
from common.webhooks.keys import SecretBox
from common.webhooks.settings import WebhookSettings
from notifier.settings import WebhookDeliverySettings
from tests.support.fakes import serving

KEY = "the tests' key for secrets of webhooks"
SECRET = f"whsec_{b64encode(b'secret of all webhooks in tests.').decode()}"
PAYLOAD = '{"type":"job.finished","timestamp":"2026-01-01T12:00:00.000000Z","data":{"id":1}}'

Behaviour = Callable[[web.Request, "Message"], Awaitable[web.StreamResponse | None]]


@dataclass
class Message:
    """A message as it arrived."""

    id: str
    timestamp: str
    signatures: list[str]
    body: bytes
    path: str

    def is_signed_by(self, secret: str) -> bool:
        key = b64decode(secret.removeprefix("whsec_"))
        signed = f"{self.id}.{self.timestamp}.".encode() + self.body
        digest = b64encode(hmac.digest(key, signed, "sha256")).decode()
        return f"v1,{digest}" in self.signatures


@dataclass
class Receiver:
    """Takes messages, unless `behave` answers (None: take)."""

    behave: Behaviour | None = None
    url: str = ""
    got: list[Message] = field(default_factory=list)
    answered: int = 0

    async def receive(self, request: web.Request) -> web.StreamResponse:
        message = Message(
            id=request.headers["webhook-id"],
            timestamp=request.headers["webhook-timestamp"],
            signatures=request.headers["webhook-signature"].split(" "),
            body=await request.read(),
            path=request.path,
        )
        self.got.append(message)
        answer = None if self.behave is None else await self.behave(request, message)
        response = answer or web.Response(status=204)
        await response.prepare(request)
        await response.write_eof()
        self.answered += 1
        return response

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.got]

    @asynccontextmanager
    async def served(self) -> AsyncIterator[Receiver]:
        async with serving([web.post("/{path:.*}", self.receive)]) as self.url:
            yield self


def delivery_settings(*, allow_private: bool = True, **changes: Any) -> WebhookDeliverySettings:
    shared = WebhookSettings(keys=(KEY,), allow_private=allow_private)
    return WebhookDeliverySettings(shared=shared, **changes)


async def add_webhook(database: Database, url: str, **values: Any) -> int:
    """An enabled webhook of `ada`; returns its id."""
    row = {
        "user_id": "ada",
        "url": url,
        "events": ["finished", "error"],
        "labels": [],
        "secret": SecretBox([KEY]).seal(SECRET),
        "created_at": utc_now(),
        **values,
    }
    async with database.transaction() as tx:
        added = await tx.execute(insert(webhooks).values(row).returning(webhooks.c.id))
        return int(added.scalar_one())


async def add_message(database: Database, webhook_id: int, **values: Any) -> str:
    """A due message; returns its id."""
    row = {
        "webhook_id": webhook_id,
        "state": "pending",
        "message": f"msg_{uuid4().hex}",
        "event": "job.finished",
        "payload": PAYLOAD,
        "due_at": utc_now(),
        "created_at": utc_now(),
        **values,
    }
    async with database.transaction() as tx:
        await tx.execute(insert(webhook_deliveries).values(row))
    return str(row["message"])


async def make_due(database: Database) -> None:
    """Let the time pass until the next attempts."""
    waiting = webhook_deliveries.c.state == "pending"
    async with database.transaction() as tx:
        await tx.execute(update(webhook_deliveries).where(waiting).values(due_at=utc_now()))


async def change_webhook(database: Database, webhook_id: int, **values: Any) -> None:
    async with database.transaction() as tx:
        await tx.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(values))
