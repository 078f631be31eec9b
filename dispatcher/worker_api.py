"""Client of the worker-facing API."""

from dataclasses import dataclass, replace
from typing import Final

import aiohttp
import orjson

from common.jobs.lifecycle import Status
from common.outbox.peer_client import HEADER_VALUE, Outcome, Reply, exchange, is_alive
from common.telemetry.redaction import NO_REDACTION, Redaction
from dispatcher.answers import Answer, judge

_ECHO_MARGIN: Final = 1 << 20
_LONGEST_ANSWER: Final = 8 << 20
_QUESTION_TIMEOUT: Final = 10.0
_PROBE_TIMEOUT: Final = 3.0


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
        if correlation_id and HEADER_VALUE.fullmatch(correlation_id):
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
        deadline = self._not_longer(_PROBE_TIMEOUT)
        return await is_alive(self._session, f"{self._url}/openapi.json", deadline=deadline)

    async def ask_status(self, number: int) -> Status | Unknown | None:
        """The status of the job known by `number`; None where there is no answer to rely on.

        While no question has ever been answered, `Unknown` may as well mean that the path is wrong.
        """
        path = self._status_path.replace("{job_id}", str(number))
        outcome = await self._ask(path)
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

    async def _ask(self, path: str) -> Outcome:
        return await exchange(
            self._session,
            "GET",
            f"{self._url}{path}",
            deadline=self._not_longer(_QUESTION_TIMEOUT),
            limit=_LONGEST_ANSWER,
            headers=self._headers,
        )

    def _not_longer(self, seconds: float) -> float:
        """No call takes much longer than a submission may."""
        return min(seconds, max(self._timeout, 1.0))
