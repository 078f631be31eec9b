"""Client of the worker-facing API, and what its answers mean.

The API is not idempotent and commits before it answers, so "perhaps taken" is a verdict of its
own. An answer that is neither its final word on the job nor a passing failure shows a wrong key or
address: the job is not to blame, and is held.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import aiohttp
import orjson

from common.jobs.lifecycle import Status
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
from common.telemetry.redaction import NO_REDACTION, Redaction

MAX_WORDS: Final = 2_000
"""Longest text, in characters, that is kept of the peer's words."""

MAX_RETRY_AFTER: Final = 45.0
"""Longest `Retry-After`, in seconds, that is respected: a waiting job has to arrive within a minute
of the peer's return, even if it asked for a longer pause before."""

_FINAL_WORD: Final = frozenset({400, 409, 413, 422})
_NOT_TAKEN: Final = frozenset({408, 425, 429, 500, 503})
_PERHAPS_TAKEN: Final = frozenset({502, 504})

_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_ECHO_MARGIN: Final = 1 << 20
_LONGEST_ANSWER: Final = 8 << 20
_QUESTION_TIMEOUT: Final = 10.0
_PROBE_TIMEOUT: Final = 3.0


class Verdict(StrEnum):
    """What became of a submission."""

    TAKEN = "taken"
    REFUSED = "refused"
    NOT_TAKEN = "not_taken"
    IN_DOUBT = "in_doubt"
    HELD = "held"


Outcome = peer_client.Outcome[Verdict]


@dataclass(frozen=True, slots=True)
class Unknown:
    """The peer does not know a job; `proven` if it has answered such a question before."""

    proven: bool


class WorkerApi:
    """Calls that never raise: failures are part of their results."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        key: str,
        *,
        timeout: float,
        status_path: str,
        redaction: Redaction = NO_REDACTION,
    ) -> None:
        """`timeout`, in seconds, is the total deadline of a submission; `redaction` is applied to
        the peer's words, which users read."""
        self._session = session
        self._url = url
        self._headers = {"x-api-key": key}
        self._timeout = timeout
        self._status_path = status_path
        self._redaction = redaction
        self._has_answered = False

    @property
    def can_be_asked(self) -> bool:
        """Whether a setting says how to ask for a job's status."""
        return bool(self._status_path)

    async def submit(self, payload: str, number: int, correlation_id: str | None) -> Outcome:
        """Submit a stored job under its number, once, within the total deadline."""
        try:
            job = orjson.loads(payload)
            job["job"]["meta"]["job_id"] = number
            body = orjson.dumps(job)
        except (ValueError, KeyError, TypeError):
            reason = "what was stored of this job is unreadable"
            return Outcome(Verdict.REFUSED, reason, reachable=False)
        headers = {**self._headers, "Content-Type": "application/json"}
        if correlation_id and HEADER_VALUE.fullmatch(correlation_id):
            headers["X-Request-ID"] = correlation_id
        outcome = outcome_of(
            await exchange(
                self._session,
                "POST",
                f"{self._url}/_jobs",
                deadline=self._timeout,
                limit=4 * len(body) + _ECHO_MARGIN,  # it echoes what it took
                headers=headers,
                body=body,
            )
        )
        return replace(outcome, reason=self._redaction(outcome.reason))

    async def is_alive(self) -> bool:
        """Whether anything but a proxy's error page answers at the peer's address."""
        deadline = self._at_most(_PROBE_TIMEOUT)
        return await is_alive(self._session, f"{self._url}/openapi.json", deadline=deadline)

    async def ask_status(self, number: int) -> Status | Unknown | None:
        """The status of the job with this delivery number; None without a reliable answer.

        Until a question has been answered, `Unknown` may as well mean that the path is wrong.
        """
        path = self._status_path.replace("{job_id}", str(number))
        result = await exchange(
            self._session,
            "GET",
            f"{self._url}{path}",
            deadline=self._at_most(_QUESTION_TIMEOUT),
            limit=_LONGEST_ANSWER,
            headers=self._headers,
        )
        if not isinstance(result, Reply):
            return None
        if result.status == 404:
            return Unknown(proven=self._has_answered)
        if result.status != 200:
            return None
        try:
            status = Status(orjson.loads(result.body))
        except ValueError:
            return None
        self._has_answered = True
        return status

    def _at_most(self, seconds: float) -> float:
        """No call takes much longer than a submission may."""
        return min(seconds, max(self._timeout, 1.0))


def outcome_of(result: CallResult) -> Outcome:
    """What the result of `POST /_jobs` means for the job."""
    match result:
        case Unreachable(reason):
            return Outcome(Verdict.NOT_TAKEN, f"no connection ({reason})", reachable=False)
        case Lost(reason, timed_out):
            return Outcome(Verdict.IN_DOUBT, f"no answer ({reason})", timed_out=timed_out)
        case Reply(status) if 200 <= status < 300:
            return _outcome_of_success(result)
        case Reply(status) if status in _FINAL_WORD:
            return Outcome(Verdict.REFUSED, words_of(result))
        case Reply(status, retry_after=pause) if status in _NOT_TAKEN:
            pause = None if pause is None else min(pause, MAX_RETRY_AFTER)
            return Outcome(Verdict.NOT_TAKEN, f"HTTP {status}", retry_after=pause)
        case Reply(status) if status in _PERHAPS_TAKEN:
            return Outcome(Verdict.IN_DOUBT, f"HTTP {status}")
        case Reply(status):
            return Outcome(Verdict.HELD, f"HTTP {status}")


def _outcome_of_success(reply: Reply) -> Outcome:
    """Taken if the body is JSON; a page of HTML shows that another service has this address."""
    try:
        orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        if reply.content_type == "application/json" or reply.content_type.endswith("+json"):
            return Outcome(Verdict.IN_DOUBT, f"HTTP {reply.status} with broken JSON")
        return Outcome(Verdict.HELD, f"HTTP {reply.status} without JSON")
    return Outcome(Verdict.TAKEN)


def words_of(reply: Reply) -> str:
    """The peer's words, fit for the user: its `detail`, else its text, but never HTML."""
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
