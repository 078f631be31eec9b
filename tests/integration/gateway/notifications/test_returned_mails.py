"""What Mailjet's events leave in the database."""

import asyncio

from common.database.engine import Database
from common.database.notify import ChannelNotifier
from common.database.tables import emails, suppressed_addresses
from common.notifications.links import UnsubscribeLinks
from gateway.notifications.mail_events import MailEvent
from gateway.notifications.service import Notifications
from tests.support.records import add_mail, rows

MAILS = 20


async def test_requests_with_the_same_events_in_another_order_do_not_block_each_other(
    database: Database,
) -> None:
    notifications = Notifications(database, ChannelNotifier(database), UnsubscribeLinks(["key"]))
    events = [
        MailEvent(f"User{n}@example.org", f"mail-{n}", f"bounced for good ({n})", suppresses=True)
        for n in range(MAILS)
    ]
    for n in range(MAILS):
        await add_mail(database, custom_id=f"mail-{n}")
    again = [MailEvent("user0@example.org", None, "bounced again", suppresses=True)]
    for _ in range(10):
        await asyncio.gather(
            notifications.take(events + again), notifications.take([*again, *reversed(events)])
        )
    found = await rows(database, suppressed_addresses)
    assert len(found) == MAILS
    reasons = {row["custom_id"]: row["last_error"] for row in await rows(database, emails)}
    assert reasons == {event.custom_id: event.reason for event in events}
