"""What the mails say. Pure: no I/O."""

import re
from dataclasses import dataclass
from html import escape
from typing import Final

from common.jobs.terminal import as_shown
from common.outbox.item import OutboxItem

MAX_DETAILS: Final = 20_000
"""Longest run-time details in a mail, in characters as shown; of longer ones the end is kept."""

MAX_OUTPUT: Final = 4 << 20
"""Characters as sent from which the details are made: a progress bar shows few of many."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail(OutboxItem):
    """A claimed mail: `kind` is the final status that it announces, `custom_id` its name for later
    look-ups; `alone`: not in one request with others."""

    job_id: int
    kind: str
    recipient: str
    custom_id: str
    alone: bool


@dataclass(frozen=True, slots=True)
class Message:
    """A mail, ready to be sent."""

    recipient: str
    custom_id: str
    correlation_id: str | None
    subject: str
    text: str
    html: str


def write_message(mail: Mail, job_name: str | None, details: str | None) -> Message:
    """The message about a job that has reached a final status."""
    name = _CONTROL.sub(" ", job_name or "")
    subject = " ".join(filter(None, ("Job", name, f"(id={mail.job_id})", mail.kind)))
    shown = _end_of(details or "")
    facts = {"Name": name, "ID": str(mail.job_id), "Status": mail.kind}
    lines = [f"{label}: {value}" for label, value in facts.items()]
    rows = [f"<b>{label}:</b> {escape(value)}<br>" for label, value in facts.items()]
    return Message(
        recipient=mail.recipient,
        custom_id=mail.custom_id,
        correlation_id=mail.correlation_id,
        subject=subject,
        text="\n".join([*lines, "", "Run-time details:", shown or "none", ""]),
        html=(
            f"<p>{''.join(rows)}</p><p><b>Run-time details:</b></p>"
            f"<pre>{escape(shown) or 'none'}</pre>"
        ),
    )


def _end_of(details: str) -> str:
    shown = as_shown(details[-MAX_OUTPUT:]).strip()
    is_whole = len(details) <= MAX_OUTPUT and len(shown) <= MAX_DETAILS
    return shown if is_whole else f"[…]\n{shown[-MAX_DETAILS:]}"
