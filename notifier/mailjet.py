"""Client of Mailjet's Send API v3.1 and of its message look-up, and what its answers mean."""

import re
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final

import aiohttp
import orjson

from common.outbox import peer_client
from common.outbox.peer_client import (
    HEADER_VALUE,
    CallResult,
    Lost,
    Reply,
    Unreachable,
    exchange,
    is_alive,
)
from common.telemetry.redaction import Redaction
from notifier.messages import SENDER_NAME, Message
from notifier.settings import MailjetSettings

BATCH: Final = 50
"""Mailjet takes at most this many messages in one request."""

MAX_REASON: Final = 500

_NOT_TAKEN: Final = frozenset({408, 425, 429})
_PERHAPS_SENT: Final = frozenset({502, 504})
_FAULTY_REQUEST: Final = frozenset({400, 413, 422})
_REFUSES_US: Final = frozenset({401, 403})

_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_LONGEST_ANSWER: Final = 1 << 20
_LOOKUP_TIMEOUT: Final = 10.0
_PROBE_TIMEOUT: Final = 3.0


class Verdict(StrEnum):
    """What became of one mail."""

    SENT = "sent"
    FAILED = "failed"
    NOT_TAKEN = "not_taken"
    IN_DOUBT = "in_doubt"
    HELD = "held"
    ALONE = "alone"
    """Some message of the batch is wrong, and Mailjet does not say which: send each by itself."""

    DROPPED = "dropped"
    """Not sent: the user or the owner of the address wants no mails."""


Outcome = peer_client.Outcome[Verdict]


class Mailjet:
    """Calls that never raise: failures are part of their results."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: MailjetSettings,
        *,
        timeout: float,
        redaction: Redaction,
    ) -> None:
        """`timeout`, in seconds, is the total deadline of a request; `redaction` is applied to
        Mailjet's words, which are kept and logged."""
        self._session = session
        self._url = settings.url
        self._sender = {"Email": settings.sender, "Name": SENDER_NAME}
        credentials = aiohttp.encode_basic_auth(settings.api_key, settings.secret_key)
        self._headers = {"Authorization": credentials}
        self._timeout = timeout
        self._redaction = redaction

    async def send(self, messages: Sequence[Message], *, sandbox: bool = False) -> list[Outcome]:
        """Send up to `BATCH` messages in one request; one outcome each, in their order.

        With `sandbox`, Mailjet checks them and our credentials, and delivers nothing.
        """
        body: dict[str, Any] = {"Messages": [self._as_json(message) for message in messages]}
        if sandbox:
            body["SandboxMode"] = True
        result = await exchange(
            self._session,
            "POST",
            f"{self._url}/v3.1/send",
            deadline=self._timeout,
            limit=_LONGEST_ANSWER,
            headers={**self._headers, "Content-Type": "application/json"},
            body=orjson.dumps(body),
        )
        outcomes = outcomes_of(result, [message.custom_id for message in messages])
        return [replace(outcome, reason=self._redaction(outcome.reason)) for outcome in outcomes]

    def _as_json(self, message: Message) -> dict[str, Any]:
        body: dict[str, Any] = {
            "From": self._sender,
            "To": [{"Email": message.recipient}],
            "Subject": message.subject,
            "TextPart": message.text,
            "HTMLPart": message.html,
            "CustomID": message.custom_id,
        }
        headers = dict(message.headers)
        if message.correlation_id and HEADER_VALUE.fullmatch(message.correlation_id):
            headers["X-Correlation-ID"] = message.correlation_id
        if headers:
            body["Headers"] = headers
        return body

    async def find(self, custom_id: str) -> bool | None:
        """Whether Mailjet has the message; None without a reliable answer."""
        result = await exchange(
            self._session,
            "GET",
            f"{self._url}/v3/REST/message?CustomID={custom_id}",
            deadline=_LOOKUP_TIMEOUT,
            limit=_LONGEST_ANSWER,
            headers=self._headers,
        )
        return was_found(result)

    async def is_alive(self) -> bool:
        """Whether anything but a proxy's error page answers at Mailjet's address."""
        return await is_alive(self._session, f"{self._url}/", deadline=_PROBE_TIMEOUT)


def outcomes_of(result: CallResult, custom_ids: Sequence[str]) -> list[Outcome]:
    """One outcome for each message of the batch, in its order."""
    count = len(custom_ids)
    match result:
        case Unreachable(reason):
            outcome = Outcome(Verdict.NOT_TAKEN, f"no connection ({reason})", reachable=False)
        case Lost(reason):
            outcome = Outcome(Verdict.IN_DOUBT, f"no answer ({reason})")
        case Reply():
            if (outcomes := _outcomes_of_messages(result, custom_ids)) is not None:
                return outcomes
            outcome = _outcome_of_whole(result, count)
    return [outcome] * count


def _outcomes_of_messages(reply: Reply, custom_ids: Sequence[str]) -> list[Outcome] | None:
    """Mailjet's results for the single messages; None if it gives none.

    It answers 400 as soon as one message is wrong, although the others have been sent.
    """
    if not (200 <= reply.status < 300 or reply.status in _FAULTY_REQUEST):
        return None
    body = _parse(reply)
    messages = body.get("Messages") if isinstance(body, dict) else None
    if not isinstance(messages, list):
        return None
    by_id = {name: item for item in messages if (name := _custom_id(item))}
    in_order = messages if len(messages) == len(custom_ids) else [None] * len(custom_ids)
    return [
        _outcome_of_message(by_id.get(custom_id) or (None if _custom_id(item) else item))
        for custom_id, item in zip(custom_ids, in_order, strict=True)
    ]


def _custom_id(item: Any) -> str | None:
    """Which message a result names; None: it names none, and its place counts."""
    name = item.get("CustomID") if isinstance(item, dict) else None
    return name if isinstance(name, str) and name else None


def _outcome_of_message(item: Any) -> Outcome:
    if not isinstance(item, dict):
        return Outcome(Verdict.IN_DOUBT, "Mailjet's answer leaves this mail out")
    if item.get("Status") == "success":
        return Outcome(Verdict.SENT)
    errors = item.get("Errors")
    if item.get("Status") != "error" or not isinstance(errors, list):
        return Outcome(Verdict.IN_DOUBT, "Mailjet's answer gives no result for this mail")
    faults = [error for error in errors if isinstance(error, dict)]
    reason = _reason("; ".join(str(fault.get("ErrorMessage", "")) for fault in faults))
    statuses = {code for fault in faults if isinstance(code := fault.get("StatusCode"), int)}
    if statuses & _REFUSES_US:
        return Outcome(Verdict.HELD, reason)
    if any(_is_passing(status) for status in statuses):
        return Outcome(Verdict.NOT_TAKEN, reason)
    return Outcome(Verdict.FAILED, reason or "refused by Mailjet")


def _is_passing(status: int) -> bool:
    return status in _NOT_TAKEN or status >= 500


def _outcome_of_whole(reply: Reply, count: int) -> Outcome:
    """The outcome of every message of a request that was answered as a whole."""
    status = reply.status
    if 200 <= status < 300:
        if "json" in reply.content_type:
            return Outcome(Verdict.IN_DOUBT, f"HTTP {status} without results")
        return Outcome(Verdict.HELD, f"HTTP {status} without JSON")
    if status in _PERHAPS_SENT:
        return Outcome(Verdict.IN_DOUBT, f"HTTP {status}")
    if _is_passing(status):
        return Outcome(Verdict.NOT_TAKEN, f"HTTP {status}", retry_after=reply.retry_after)
    if status in _FAULTY_REQUEST:
        if count > 1:
            return Outcome(Verdict.ALONE, f"HTTP {status}")
        body = _parse(reply)
        words = str(body.get("ErrorMessage") or "") if isinstance(body, dict) else ""
        return Outcome(Verdict.FAILED, _reason(words) or f"HTTP {status}")
    return Outcome(Verdict.HELD, f"HTTP {status}")


def was_found(result: CallResult) -> bool | None:
    """Whether Mailjet knows a message that was looked up; None without a reliable answer."""
    if not isinstance(result, Reply):
        return None
    if result.status == 404:
        return False
    body = _parse(result)
    if result.status != 200 or not isinstance(body, dict):
        return None
    data = body.get("Data")
    return bool(data) if isinstance(data, list) else None


def _parse(reply: Reply) -> Any:
    try:
        return orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return None


def _reason(text: str) -> str:
    text = _CONTROL.sub("", text)
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 1] + "…"
