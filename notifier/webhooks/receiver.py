"""One call to a receiver, and what its answer means."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import aiohttp

from common.telemetry.logs import get_logger
from common.webhooks.addresses import ForbiddenAddress

DEADLINE: Final = 15.0
"""Seconds for a whole call."""

MOST_READ: Final = 64 * 1024
"""Bytes of an answer that are read; only its status counts."""

_TIME_TO_READ: Final = 2.0
"""Seconds for the rest of an answer whose status has come, which frees the connection for more."""

_GONE: Final = 410

log = get_logger()


class Verdict(StrEnum):
    """What became of one attempt."""

    TAKEN = "taken"
    FAILED = "failed"
    GONE = "gone"
    """The receiver wants nothing any more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`status` is that of the answer; None without one."""

    verdict: Verdict
    reason: str = ""
    status: int | None = None


class Receivers:
    """Calls that never raise: failures are part of their results."""

    def __init__(
        self, session: aiohttp.ClientSession, *, allow_http: bool, deadline: float = DEADLINE
    ) -> None:
        self._session = session
        self._allow_http = allow_http
        self._deadline = deadline

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Send one message; redirects are not followed."""
        if not (self._allow_http or url[:8].lower() == "https://"):
            return Outcome(Verdict.FAILED, "the URL does not begin with https://")
        sent = {"Content-Type": "application/json", **headers}
        outcome: Outcome | None = None
        try:
            async with (
                asyncio.timeout(self._deadline),
                self._session.post(url, headers=sent, data=body, allow_redirects=False) as answer,
            ):
                outcome = outcome_of(answer.status)
                await _read(answer)
                return outcome
        except TimeoutError:
            # also of the rest of an answer whose status came in time
            return outcome or Outcome(Verdict.FAILED, f"no answer within {self._deadline:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(Verdict.FAILED, _reason(error))
        except Exception as error:
            # a fault of ours, perhaps, which must not have the message tried without a pause
            log.exception("webhook.call_broke")
            return Outcome(Verdict.FAILED, type(error).__name__)


async def _read(answer: aiohttp.ClientResponse) -> None:
    """Read what is left of the answer; a long or slow one costs its connection, nothing else."""
    read = 0
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(_TIME_TO_READ):
            while piece := await answer.content.read(MOST_READ - read):
                read += len(piece)
                if read >= MOST_READ:
                    break
            else:
                return
    answer.close()


def outcome_of(status: int) -> Outcome:
    """Any 2xx is taken; a redirect is a failure."""
    if 200 <= status < 300:
        return Outcome(Verdict.TAKEN, status=status)
    verdict = Verdict.GONE if status == _GONE else Verdict.FAILED
    return Outcome(verdict, f"HTTP {status}", status)


def _reason(error: BaseException) -> str:
    """The kind of error, without text that the receiver controls."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ForbiddenAddress):
            return str(cause)
        cause = cause.__cause__
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
    return type(cause or error).__name__
