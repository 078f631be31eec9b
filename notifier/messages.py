"""What the mails say. Pure: no I/O but reading the templates, once."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from humanize import precisedelta
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from common.jobs.lifecycle import Status
from common.jobs.terminal import as_shown
from common.notifications.links import UnsubscribeLinks
from common.outbox.item import OutboxItem

SENDER_NAME: Final = "DECODE OpenCloud"

NOTICE: Final = "webhook"
"""The `kind` of a mail about a webhook."""

MAX_DETAILS: Final = 20_000
"""Longest run-time details in a mail, in characters as shown; of longer ones the end is kept."""

MAX_OUTPUT: Final = 4 << 20
"""Characters as sent from which the details are made: a progress bar shows few of many."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")

_templates: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(["html"]),
    auto_reload=False,  # a running process keeps the templates that its code was written for
    undefined=StrictUndefined,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail(OutboxItem):
    """A claimed mail: `kind` is the final status that it announces, `custom_id` its name for later
    look-ups; `alone`: not in one request with others. A digest has no `job_id`, nor has a mail
    about a webhook."""

    job_id: int | None
    webhook_id: int | None
    user_id: str | None
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
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What mails link to. Without `public_url`, the gateway's address, no mail has a link that
    stops mails."""

    name: str = SENDER_NAME
    front_end: str = ""
    public_url: str = ""
    links: UnsubscribeLinks | None = None

    def unsubscribe(self, user_id: str | None) -> str:
        """The link that stops the user's mails; empty if there is none."""
        if not (self.public_url and self.links and user_id):
            return ""
        return self.links.url(self.public_url, user_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The job of a mail as it is now; `details` end where `runtime_details` do."""

    name: str
    user_id: str
    application: Sequence[str]
    labels: Mapping[str, str]
    results: Sequence[str]
    submitted: datetime | None
    started: datetime | None
    ended: datetime | None
    details: str | None
    is_chosen: bool = False
    """Whether its submission asked for mails."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook that was disabled, having taken nothing since `failing_since`."""

    id: int
    host: str
    failing_since: datetime | None
    disabled_at: datetime


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that a digest names."""

    id: int
    name: str
    status: str


@dataclass(frozen=True, slots=True)
class Digest:
    """The jobs of a digest: how many by status, and the first of them."""

    counts: Mapping[str, int]
    jobs: Sequence[Ended]

    @property
    def more(self) -> int:
        """Jobs that are not named."""
        return sum(self.counts.values()) - len(self.jobs)


def write_message(mail: Mail, job: Job | None, site: Site) -> Message:
    """The message about a job that has reached a final status; `job` is None once it is deleted."""
    name = on_one_line(job.name) if job else ""
    subject = " ".join(filter(None, ("Job", name, f"(id={mail.job_id})", mail.kind)))
    known = job is not None and job.is_chosen
    return _render(
        "job",
        mail,
        site,
        user_id=mail.user_id or (job.user_id if job else None),
        subject=subject,
        facts=[*_facts(mail, name, job)],
        job=job,
        results=[*map(on_one_line, job.results)] if job else [],
        calls=[f"GET {site.public_url}/jobs/{mail.job_id}/{what}" for what in ("download", "log")],
        details=_end_of(job.details or "") if job else "",
        has_error=mail.kind == Status.ERROR,
        reason="the job was submitted with this choice" if known else "a job of yours has ended",
    )


def write_digest(mail: Mail, digest: Digest, site: Site) -> Message:
    """The message about all jobs that ended until none was under way any more."""
    total = sum(digest.counts.values())
    counts = ", ".join(f"{count} {status}" for status, count in sorted(digest.counts.items()))
    head = "1 job has ended" if total == 1 else f"{total} jobs have ended"
    return _render(
        "digest",
        mail,
        site,
        user_id=mail.user_id,
        subject=f"{head}: {counts}",
        digest=digest,
        has_error=Status.ERROR in digest.counts,
        reason="you chose one mail for all jobs",
    )


def write_notice(mail: Mail, webhook: Webhook, site: Site) -> Message:
    """The message about a webhook that was disabled after days of failure."""
    address = f"{site.public_url}/webhooks/{webhook.id}"
    return _render(
        "webhook",
        mail,
        site,
        user_id=mail.user_id,
        subject=f"Webhook {webhook.id} to {webhook.host} has been disabled",
        since=_time(webhook.failing_since),
        disabled=_time(webhook.disabled_at),
        calls={
            "Once it works again, this enables it": f'PATCH {address} {{"disabled": false}}',
            "What it has missed": f"GET {address}/deliveries",
        },
        has_error=True,
        reason="a webhook of yours has been disabled",
    )


def on_one_line(text: str) -> str:
    """Without control characters: lines of an adopted job's text would forge a mail's, and marks
    of direction would turn around what follows a name."""
    return _CONTROL.sub(" ", text)


def _render(
    template: str, mail: Mail, site: Site, *, user_id: str | None, subject: str, **values: Any
) -> Message:
    link = site.unsubscribe(user_id)
    values |= {"subject": subject, "site": site, "unsubscribe": link}
    headers = {}
    if link:  # RFC 8058, section 3.1
        one_click = "List-Unsubscribe=One-Click"
        headers = {"List-Unsubscribe": f"<{link}>", "List-Unsubscribe-Post": one_click}
    return Message(
        recipient=mail.recipient,
        custom_id=mail.custom_id,
        correlation_id=mail.correlation_id,
        subject=subject,
        text=_templates.get_template(f"{template}.txt").render(values) + "\n",
        html=_templates.get_template(f"{template}.html").render(values),
        headers=headers,
    )


def _facts(mail: Mail, name: str, job: Job | None) -> Sequence[tuple[str, str]]:
    facts = [("Name", name), ("ID", str(mail.job_id)), ("Status", mail.kind)]
    if job is None:
        return facts
    waited_until = job.started or job.ended
    candidates = [
        ("Application", " ".join(map(on_one_line, job.application))),
        ("Labels", on_one_line(", ".join(map(":".join, sorted(job.labels.items()))))),
        ("Submitted", _time(job.submitted)),
        ("Started", _time(job.started)),
        ("Ended", _time(job.ended)),
        ("Waited", _duration(job.submitted, waited_until)),
        ("Ran", _duration(job.started, job.ended)),
    ]
    return [*facts, *((label, value) for label, value in candidates if value)]


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else ""


def _duration(since: datetime | None, until: datetime | None) -> str:
    if since is None or until is None:
        return ""
    seconds = max(0, round((until - since).total_seconds()))
    return precisedelta(timedelta(seconds=seconds), suppress=("months", "years"), format="%d")


def _end_of(details: str) -> str:
    shown = as_shown(details[-MAX_OUTPUT:]).strip()
    is_whole = len(details) <= MAX_OUTPUT and len(shown) <= MAX_DETAILS
    return shown if is_whole else f"[…]\n{shown[-MAX_DETAILS:]}"
