"""What each outcome of a submission means. Pure: no I/O.

The worker-facing API is not idempotent and commits before it answers, so "perhaps taken" is a
verdict of its own. What is neither its word on the job nor a passing trouble is a wrong key or
address: the job is not to blame, and waits.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from common.outbox.peer_client import Lost, Outcome, Reply, Unreachable

MAX_WORDS: Final = 2_000
"""Longest text, in characters, that is kept of what the peer said."""

MAX_PATIENCE: Final = 45.0
"""Longest `Retry-After`, in seconds, that is waited for: whatever a peer says when it goes away, a
waiting job has to arrive within a minute of its return."""

_FINAL_WORD: Final = frozenset({400, 409, 413, 422})
_NOT_TAKEN: Final = frozenset({408, 425, 429, 500, 503})
_PERHAPS_TAKEN: Final = frozenset({502, 504})

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


class Verdict(StrEnum):
    """What became of a submission."""

    TAKEN = "taken"
    REFUSED = "refused"
    NOT_TAKEN = "not_taken"
    IN_DOUBT = "in_doubt"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict with its reason; `retry_after` in seconds, where the peer asked for it."""

    verdict: Verdict
    reason: str = ""
    retry_after: float | None = None
    reachable: bool = True
    timed_out: bool = False


def judge(outcome: Outcome) -> Answer:
    """The meaning of what came of `POST /_jobs`."""
    match outcome:
        case Unreachable(reason):
            return Answer(Verdict.NOT_TAKEN, f"no connection ({reason})", reachable=False)
        case Lost(reason, timed_out):
            return Answer(Verdict.IN_DOUBT, f"no answer ({reason})", timed_out=timed_out)
        case Reply():
            return _judge_reply(outcome)


def _judge_reply(reply: Reply) -> Answer:
    status = reply.status
    if 200 <= status < 300:
        return _judge_success(reply)
    if status in _FINAL_WORD:
        return Answer(Verdict.REFUSED, words_of(reply))
    if status in _NOT_TAKEN:
        patience = None if reply.retry_after is None else min(reply.retry_after, MAX_PATIENCE)
        return Answer(Verdict.NOT_TAKEN, f"HTTP {status}", retry_after=patience)
    if status in _PERHAPS_TAKEN:
        return Answer(Verdict.IN_DOUBT, f"HTTP {status}")
    return Answer(Verdict.HELD, f"HTTP {status}")


def _judge_success(reply: Reply) -> Answer:
    """Taken if the body is JSON; a page says that somebody else lives at this address."""
    try:
        orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        if _is_json(reply.content_type):
            return Answer(Verdict.IN_DOUBT, f"HTTP {reply.status} with broken JSON")
        return Answer(Verdict.HELD, f"HTTP {reply.status} without JSON")
    return Answer(Verdict.TAKEN)


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or content_type.endswith("+json")


def words_of(reply: Reply) -> str:
    """What the peer said, fit for the user: its `detail`, else its text, but no page of HTML."""
    words = _CONTROL.sub("", _detail(reply)).strip()
    if len(words) > MAX_WORDS:
        words = words[: MAX_WORDS - 1] + "…"
    return words or f"HTTP {reply.status}"


def _detail(reply: Reply) -> str:
    try:
        body = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        if "html" in reply.content_type:
            return ""
        text = reply.body[: 4 * MAX_WORDS].decode("utf-8", "replace")
        return "" if text.lstrip().startswith("<") else text
    if isinstance(body, dict) and "detail" in body:
        body = body["detail"]
    if isinstance(body, list):
        return "; ".join(_fault(item) for item in body)
    return _text(body)


def _fault(item: Any) -> str:
    """One entry of a validation error's list, as the front end shows it."""
    if not isinstance(item, dict) or "msg" not in item:
        return _text(item)
    place = item.get("loc")
    loc = ".".join(map(str, place)) if isinstance(place, list) else ""
    return f"{loc}: {item['msg']}" if loc else str(item["msg"])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
