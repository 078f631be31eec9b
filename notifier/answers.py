"""What Mailjet's answers mean for each mail of a batch. Pure: no I/O."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from common.outbox.peer_client import Lost, Outcome, Reply, Unreachable

MAX_REASON: Final = 500

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")

_NOT_TAKEN: Final = frozenset({408, 425, 429})
_PERHAPS_SENT: Final = frozenset({502, 504})
_FAULTY_REQUEST: Final = frozenset({400, 413, 422})
_REFUSES_US: Final = frozenset({401, 403})


class Verdict(StrEnum):
    """What became of one mail."""

    SENT = "sent"
    FAILED = "failed"
    NOT_TAKEN = "not_taken"
    IN_DOUBT = "in_doubt"
    HELD = "held"
    ALONE = "alone"
    """Something in the batch is wrong, and nobody knows what: send each mail by itself."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict on one mail; `retry_after` in seconds, where Mailjet asked for it."""

    verdict: Verdict
    reason: str = ""
    retry_after: float | None = None
    reachable: bool = True


def judge(outcome: Outcome, custom_ids: Sequence[str]) -> list[Answer]:
    """One answer for each mail of the batch, in its order."""
    count = len(custom_ids)
    match outcome:
        case Unreachable(reason):
            answer = Answer(Verdict.NOT_TAKEN, f"no connection ({reason})", reachable=False)
            return [answer] * count
        case Lost(reason):
            return [Answer(Verdict.IN_DOUBT, f"no answer ({reason})")] * count
        case Reply():
            results = _results(outcome, custom_ids)
            return results if results is not None else [_judge_whole(outcome, count)] * count


def _results(reply: Reply, custom_ids: Sequence[str]) -> list[Answer] | None:
    """Mailjet's results for the single messages; None where it gives none.

    It answers 400 as soon as one message is wrong, though the others have been sent.
    """
    if not (200 <= reply.status < 300 or reply.status in _FAULTY_REQUEST):
        return None
    body = _parse(reply)
    messages = body.get("Messages") if isinstance(body, dict) else None
    if not isinstance(messages, list):
        return None
    named = [item for item in messages if isinstance(item, dict)]
    by_id = {name: item for item in named if isinstance(name := item.get("CustomID"), str)}
    in_order = len(messages) == len(custom_ids)
    answers = []
    for position, custom_id in enumerate(custom_ids):
        item = by_id.get(custom_id) or (messages[position] if in_order else None)
        answers.append(_judge_message(item))
    return answers


def _judge_message(item: Any) -> Answer:
    if not isinstance(item, dict):
        return Answer(Verdict.IN_DOUBT, "Mailjet's answer leaves this mail out")
    if item.get("Status") == "success":
        return Answer(Verdict.SENT)
    errors = item.get("Errors")
    if item.get("Status") != "error" or not isinstance(errors, list):
        return Answer(Verdict.IN_DOUBT, "Mailjet's answer does not tell what became of this mail")
    faults = [error for error in errors if isinstance(error, dict)]
    reason = _reason("; ".join(str(fault.get("ErrorMessage", "")) for fault in faults))
    statuses = {code for fault in faults if isinstance(code := fault.get("StatusCode"), int)}
    if statuses & _REFUSES_US:
        return Answer(Verdict.HELD, reason)
    if any(_is_passing(status) for status in statuses):
        return Answer(Verdict.NOT_TAKEN, reason)
    return Answer(Verdict.FAILED, reason or "refused by Mailjet")


def _is_passing(status: int) -> bool:
    return status in _NOT_TAKEN or status >= 500


def _judge_whole(reply: Reply, count: int) -> Answer:
    """The verdict on every mail of a request that was answered as a whole."""
    status = reply.status
    if 200 <= status < 300:
        if "json" in reply.content_type:
            return Answer(Verdict.IN_DOUBT, f"HTTP {status} without results")
        return Answer(Verdict.HELD, f"HTTP {status} without JSON")
    if status in _PERHAPS_SENT:
        return Answer(Verdict.IN_DOUBT, f"HTTP {status}")
    if _is_passing(status):
        return Answer(Verdict.NOT_TAKEN, f"HTTP {status}", retry_after=reply.retry_after)
    if status in _FAULTY_REQUEST:
        if count > 1:
            return Answer(Verdict.ALONE, f"HTTP {status}")
        body = _parse(reply)
        words = str(body.get("ErrorMessage") or "") if isinstance(body, dict) else ""
        return Answer(Verdict.FAILED, _reason(words) or f"HTTP {status}")
    return Answer(Verdict.HELD, f"HTTP {status}")


def was_found(outcome: Outcome) -> bool | None:
    """Whether Mailjet knows a message that was looked up; None where it did not say."""
    if not isinstance(outcome, Reply):
        return None
    if outcome.status == 404:
        return False
    body = _parse(outcome)
    if outcome.status != 200 or not isinstance(body, dict):
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
