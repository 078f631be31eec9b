"""The sandbox's receiver takes messages to webhooks, and judges their signatures."""

import time
from base64 import b64encode
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from deploy.sandbox.mailjet import create_app
from deploy.sandbox.webhooks import RECEIVER, Receiver
from notifier.webhooks.signing import sign
from tests.tools.sandbox.support import Standin

SECRET, OTHER = (f"whsec_{b64encode(text).decode()}" for text in (b"secret", b"another"))
BODY = b'{"type":"job.finished","data":{"job_name":"<script>"}}'


@pytest.fixture
async def receiver(session: aiohttp.ClientSession) -> AsyncIterator[Standin[Receiver]]:
    async with TestServer(create_app()) as server:
        yield Standin(server, RECEIVER, session)


@pytest.mark.parametrize(
    ("known", "signed_by", "age", "status", "verdict"),
    [
        (SECRET, [SECRET], 0, 204, "verified"),
        (SECRET, [OTHER, SECRET], 0, 204, "verified"),
        (SECRET, [OTHER], 0, 401, "wrong"),
        (SECRET, [SECRET], 1_000, 401, "too old, or without a time"),
        (None, [SECRET], 0, 204, "no secret known"),
    ],
)
async def test_a_message_is_shown_with_the_verdict_on_its_signature(
    receiver: Standin[Receiver],
    known: str | None,
    signed_by: list[str],
    age: int,
    status: int,
    verdict: str,
) -> None:
    if known:
        await receiver.call("PUT", "/webhook/secret", data=f"{known}\n")
    headers = sign(signed_by, "msg_1", int(time.time()) - age, BODY)
    assert (await receiver.call("POST", "/webhook", data=BODY, headers=headers))[0] == status
    _, (message,) = await receiver.call("GET", "/_webhooks")
    assert (message["id"], message["type"]) == ("msg_1", "job.finished")
    assert message["verdict"] == verdict
    _, page = await receiver.call("GET", "/webhooks")
    assert verdict in page
    assert "&lt;script&gt;" in page
    assert "<script>" not in page


async def test_what_is_no_message_is_shown_as_it_is(receiver: Standin[Receiver]) -> None:
    assert "appear here" in (await receiver.call("GET", "/webhooks"))[1]
    assert (await receiver.call("POST", "/webhook", data=b"\xff"))[0] == 401
    assert "without a time" in (await receiver.call("GET", "/webhooks"))[1]


async def test_what_is_no_secret_is_refused(receiver: Standin[Receiver]) -> None:
    assert (await receiver.call("PUT", "/webhook/secret", data="whsec_?"))[0] == 422
