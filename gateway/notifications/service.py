"""Users' choices about mails, and what Mailjet says of addresses."""

from collections.abc import Sequence

from sqlalchemy import update

from common.database.engine import Database
from common.database.notify import EMAILS, ChannelNotifier
from common.database.tables import emails
from common.jobs.digest import change_choice
from common.notifications.choices import Choice, read_choice
from common.notifications.links import UnsubscribeLinks
from common.notifications.suppression import normalised, suppress
from common.telemetry.logs import get_logger
from gateway.notifications.mail_events import MailEvent

log = get_logger()


class Notifications:
    """Reads and writes choices; takes events."""

    def __init__(
        self, database: Database, notifier: ChannelNotifier, links: UnsubscribeLinks
    ) -> None:
        self._database = database
        self._notifier = notifier
        self._links = links

    async def choice_of(self, user_id: str) -> Choice:
        async with self._database.reading() as connection:
            return await read_choice(connection, user_id)

    async def choose(self, user_id: str, choice: Choice, *, address: str | None) -> None:
        """Write the user's choice; `address` is where the user's mails go."""
        await self._change(user_id, choice, by="user", address=address)

    def check(self, token: str) -> str:
        """The user whose mails a link stops. Raises `UnknownLink`."""
        return self._links.user_of(token)

    async def unsubscribe(self, token: str) -> None:
        """Stop the mails to the user of a link. Raises `UnknownLink`."""
        await self._change(self.check(token), Choice.NONE, by="link")

    async def _change(
        self, user_id: str, choice: Choice, *, by: str, address: str | None = None
    ) -> None:
        if await change_choice(self._database, user_id, choice, address=address):
            self._notifier.notify(EMAILS)
        log.info("notifications.changed", user_id=user_id, mail=choice, by=by)

    async def take(self, events: Sequence[MailEvent]) -> None:
        """Note events at their mails, and suppress addresses that will not take any."""
        if not events:
            return
        # rows are locked in one order by all, so that nobody deadlocks: Mailjet sends several
        # requests at a time, and some of them again
        suppressed = {normalised(e.address): e.reason for e in reversed(events) if e.suppresses}
        reasons = {event.custom_id: event.reason for event in events if event.custom_id}
        async with self._database.transaction() as tx:
            for address, reason in sorted(suppressed.items()):
                await suppress(tx, address, reason)
            for custom_id, reason in sorted(reasons.items()):
                own = emails.c.custom_id == custom_id
                await tx.execute(update(emails).where(own).values(last_error=reason))
        for event in events:
            log.warning(
                "mail.returned",
                custom_id=event.custom_id,
                reason=event.reason,
                suppressed=event.suppresses,
            )
