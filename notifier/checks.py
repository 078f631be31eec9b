"""What `python -m notifier --check` tries out."""

from collections.abc import Sequence
from typing import Final

from common.config.environment import without_credentials
from common.outbox.peer_client import open_session
from common.runtime.checks import Check, CheckFailed, check_database
from common.telemetry.redaction import Redaction
from notifier.mailjet import Mailjet, Verdict
from notifier.messages import Message
from notifier.settings import MailjetSettings, Settings

_DEADLINE: Final = 9.0
"""Seconds for Mailjet's answer, below the time-out of a check."""


def checks(settings: Settings) -> Sequence[Check]:
    """Everything that the notifier uses."""

    async def check_mail() -> str:
        if settings.mailjet is None:
            return "no e-mail sender is configured: mails are discarded"
        return await _send_in_sandbox(settings.mailjet, Redaction(settings.logs.secrets))

    return [check_database(settings.database), Check("mail", check_mail)]


async def _send_in_sandbox(settings: MailjetSettings, redaction: Redaction) -> str:
    """Let Mailjet check a mail to the sender, and the keys, without delivering anything."""
    text = "A test of the settings."
    message = Message(
        recipient=settings.sender,
        custom_id="opencloud-check",
        correlation_id=None,
        subject=text,
        text=text,
        html=text,
    )
    shown = without_credentials(settings.url)
    async with open_session("notifier", connections=1) as session:
        mailjet = Mailjet(session, settings, timeout=_DEADLINE, redaction=redaction)
        (outcome,) = await mailjet.send([message], sandbox=True)
    if outcome.verdict is not Verdict.SENT:
        raise CheckFailed(f"{shown} as {settings.sender}: {outcome.reason}")
    return f"{shown} takes mails of {settings.sender} (a test in its sandbox, nothing was sent)"
