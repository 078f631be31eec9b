"""What the mails say. Pure: no I/O."""

import re
from dataclasses import dataclass
from html import escape
from typing import Final

MAX_DETAILS: Final = 20_000
"""Longest run-time details in a mail, in characters; of longer ones the end is kept."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail, ready to be sent; `custom_id` is what it can be found by afterwards."""

    recipient: str
    custom_id: str
    correlation_id: str | None
    subject: str
    text: str
    html: str


def write_mail(
    *,
    recipient: str,
    custom_id: str,
    correlation_id: str | None,
    job_id: int,
    job_name: str | None,
    status: str,
    details: str | None,
) -> Mail:
    """The mail about a job that has reached a final status."""
    name = _CONTROL.sub(" ", job_name or "")
    subject = " ".join(filter(None, ("Job", name, f"(id={job_id})", status)))
    shown = _end_of(details or "")
    facts = {"Name": name, "ID": str(job_id), "Status": status}
    lines = [f"{label}: {value}" for label, value in facts.items()]
    rows = [f"<b>{label}:</b> {escape(value)}<br>" for label, value in facts.items()]
    return Mail(
        recipient=recipient,
        custom_id=custom_id,
        correlation_id=correlation_id,
        subject=subject,
        text="\n".join([*lines, "", "Run-time details:", shown or "none", ""]),
        html=(
            f"<p>{''.join(rows)}</p><p><b>Run-time details:</b></p>"
            f"<pre>{escape(shown) or 'none'}</pre>"
        ),
    )


def _end_of(details: str) -> str:
    shown = _UNPRINTABLE.sub("", details[-MAX_DETAILS:]).strip()
    return shown if len(details) <= MAX_DETAILS else f"[…]\n{shown}"
