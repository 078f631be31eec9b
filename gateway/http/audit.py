"""The audit trail: security-relevant events as log lines of one shape.

`action` and `outcome`, `user_id` (none before a log-in), the client's `address`, what it was about
(`target`), and the `request_id`.
"""

from typing import Any, Final, Literal

from aiohttp import web

from common.telemetry.logs import get_logger
from gateway.http.callers import client_of
from gateway.http.counted_lines import CountedLines
from gateway.http.keys import REQUEST_ID, USER

_EVENT: Final = "audit.recorded"

Action = Literal[
    "log_in",
    "delete_file",
    "delete_job",
    "cancel_job",
    "add_webhook",
    "change_webhook",
    "delete_webhook",
    "rotate_webhook_secret",
]
Outcome = Literal["ok", "refused"]

log = get_logger()


def audit(
    request: web.Request,
    action: Action,
    outcome: Outcome = "ok",
    *,
    target: str | None,
    user_id: str | None = None,
) -> None:
    """Record what the caller did, or tried to do. `user_id`: of a request without credentials."""
    log.info(_EVENT, **_fields(request, action, outcome, target, user_id))


class Denials:
    """Requests of known users that were refused (403), as actions named `access`."""

    def __init__(self) -> None:
        self._lines = CountedLines(_EVENT)

    def record(self, request: web.Request, reason: str) -> None:
        """Record one; a user's repetitions are counted."""
        target = f"{request.method} {request.path}"
        fields = {**_fields(request, "access", "denied", target, None), "reason": reason}
        self._lines.write((fields["user_id"], fields["address"], reason), fields)


DENIALS: Final = web.AppKey("denials", Denials)


def _fields(
    request: web.Request, action: str, outcome: str, target: str | None, user_id: str | None
) -> dict[str, Any]:
    user = request.get(USER)
    return {
        "action": action,
        "outcome": outcome,
        "user_id": user.id if user is not None else user_id,
        "address": client_of(request).text,
        "target": target,
        "request_id": request[REQUEST_ID],
    }
