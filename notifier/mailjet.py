"""Client of Mailjet's Send API v3.1 and of its message look-up."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import aiohttp
import orjson

from common.outbox.peer_client import HEADER_VALUE, exchange, is_alive
from common.telemetry.redaction import Redaction
from notifier.answers import Answer, judge, was_found
from notifier.messages import Mail
from notifier.settings import MailjetSettings

SENDER_NAME: Final = "DECODE OpenCloud"
BATCH: Final = 50
"""Mailjet takes at most this many messages in one request."""

_LONGEST_ANSWER: Final = 1 << 20
_LOOKUP_TIMEOUT: Final = 10.0
_PROBE_TIMEOUT: Final = 3.0


class Mailjet:
    """Calls that never raise: what comes of them is their result."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: MailjetSettings,
        *,
        timeout: float,
        redaction: Redaction,
    ) -> None:
        """`redaction` is for Mailjet's words, which are kept and logged."""
        self._session = session
        self._url = settings.url
        self._sender = {"Email": settings.sender, "Name": SENDER_NAME}
        credentials = aiohttp.encode_basic_auth(settings.api_key, settings.secret_key)
        self._headers = {"Authorization": credentials}
        self._timeout = timeout
        self._redaction = redaction

    async def send(self, mails: Sequence[Mail]) -> list[Answer]:
        """Send up to `BATCH` mails in one request; one answer per mail, in their order."""
        body = orjson.dumps({"Messages": [self._message(mail) for mail in mails]})
        outcome = await exchange(
            self._session,
            "POST",
            f"{self._url}/v3.1/send",
            deadline=self._timeout,
            limit=_LONGEST_ANSWER,
            headers={**self._headers, "Content-Type": "application/json"},
            body=body,
        )
        answers = judge(outcome, [mail.custom_id for mail in mails])
        return [replace(answer, reason=self._redaction(answer.reason)) for answer in answers]

    def _message(self, mail: Mail) -> dict[str, Any]:
        message: dict[str, Any] = {
            "From": self._sender,
            "To": [{"Email": mail.recipient}],
            "Subject": mail.subject,
            "TextPart": mail.text,
            "HTMLPart": mail.html,
            "CustomID": mail.custom_id,
        }
        if mail.correlation_id and HEADER_VALUE.fullmatch(mail.correlation_id):
            message["Headers"] = {"X-Correlation-ID": mail.correlation_id}
        return message

    async def find(self, custom_id: str) -> bool | None:
        """Whether Mailjet has the message; None where it did not say."""
        outcome = await exchange(
            self._session,
            "GET",
            f"{self._url}/v3/REST/message?CustomID={custom_id}",
            deadline=_LOOKUP_TIMEOUT,
            limit=_LONGEST_ANSWER,
            headers=self._headers,
        )
        return was_found(outcome)

    async def is_alive(self) -> bool:
        """Whether anything but a proxy's error page answers at Mailjet's address."""
        return await is_alive(self._session, f"{self._url}/", deadline=_PROBE_TIMEOUT)
