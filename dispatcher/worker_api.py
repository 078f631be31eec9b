"""Client of the worker-facing API."""

import re
from dataclasses import dataclass, replace
from typing import Final

import aiohttp
import orjson

from common.http_client import Outcome, Reply, exchange
from common.lifecycle import Status
from common.redaction import NO_REDACTION, Redaction
from dispatcher.answers import Answer, judge

_ECHO_MARGIN: Final = 1 << 20
_LONGEST_ANSWER: Final = 8 << 20
_QUESTION_TIMEOUT: Final = 10.0
_PROBE_TIMEOUT: Final = 3.0
_DEAD: Final = frozenset({502, 503, 504})
_HEADER_VALUE = re.compile(r"[\x21-\x7e]{1,200}")


@dataclass(frozen=True, slots=True)
class Unknown:
    """The peer says that it does not know a job; `proven` if it is known to answer questions."""

    proven: bool


class UnreadablePayload(Exception):
    """What is stored of the job is not what the peer takes."""


def body_of(payload: str, number: int) -> bytes:
    """The body of a submission: the stored payload with its number. Raises `UnreadablePayload`."""
    try:
        body = orjson.loads(payload)
        body["job"]["meta"]["job_id"] = number
        return orjson.dumps(body)
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadablePayload(type(error).__name__) from error


class WorkerApi:
    """Calls that never raise: what comes of them is their result."""

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
        """`redaction` is for the peer's words, which users read."""
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

    async def submit(self, body: bytes, correlation_id: str | None) -> Answer:
        """Submit a job, once, within the total deadline."""
        headers = {**self._headers, "Content-Type": "application/json"}
        if correlation_id and _HEADER_VALUE.fullmatch(correlation_id):
            headers["X-Request-ID"] = correlation_id
        answer = judge(
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
        return replace(answer, reason=self._redaction(answer.reason)) if answer.reason else answer

    async def is_alive(self) -> bool:
        """Whether anything but a gateway's error page answers at the peer's address."""
        outcome = await self._get("/openapi.json", _PROBE_TIMEOUT, keyed=False)
        return isinstance(outcome, Reply) and outcome.status not in _DEAD

    async def ask_status(self, number: int) -> Status | Unknown | None:
        """The status of the job known by `number`; None where there is no answer to rely on.

        While no question has ever been answered, `Unknown` may as well mean that the path is wrong.
        """
        path = self._status_path.replace("{job_id}", str(number))
        outcome = await self._get(path, _QUESTION_TIMEOUT, keyed=True)
        if not isinstance(outcome, Reply):
            return None
        if outcome.status == 404:
            return Unknown(proven=self._has_answered)
        if outcome.status != 200:
            return None
        try:
            status = Status(orjson.loads(outcome.body))
        except ValueError:
            return None
        self._has_answered = True
        return status

    async def _get(self, path: str, deadline: float, *, keyed: bool) -> Outcome:
        return await exchange(
            self._session,
            "GET",
            f"{self._url}{path}",
            deadline=min(deadline, max(self._timeout, 1.0)),
            limit=_LONGEST_ANSWER,
            headers=self._headers if keyed else None,
        )
