"""What one user's files may take, enforced as the bytes of uploads arrive.

A user's uploads under way count with all that has arrived of them, those of other gateways as of
two seconds ago; so do resumable ones that rest. A file that an upload is going to replace counts
until then: both are stored.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final
from uuid import uuid4

from sqlalchemy import bindparam, delete
from sqlalchemy.dialects import postgresql, sqlite

from common.database.engine import Database, utc_now
from common.database.errors import DatabaseUnavailable
from common.database.tables import usage_uploads
from common.runtime.tasks import in_background
from common.storage.protocol import Entry
from common.telemetry.logs import get_logger
from common.usage.ledger import UsageLedger
from common.usage.records import staged_bytes, uploads_elsewhere

_REFRESH_AFTER: Final = 2.0
_PUBLISH_EVERY: Final = 1.0
_EXPIRES_AFTER: Final = 10.0
"""Seconds after which the uploads of a gateway that was killed do not count any more."""

log = get_logger()


class QuotaExceeded(Exception):
    """The user's files would take more than they may."""

    def __init__(self, limit: int, used: int) -> None:
        super().__init__(
            f"Your files may take at most {limit} bytes in all, and {used} bytes are in use"
        )


class _Account:
    """A user with uploads under way; all in bytes."""

    def __init__(self) -> None:
        self.uploads = 0
        self.arrived = 0
        self.used = 0
        self.placed = 0  # by uploads that ended after `used` was read
        self.read_at = float("-inf")
        self.reading = asyncio.Lock()

    @property
    def taken(self) -> int:
        return self.used + self.placed + self.arrived


class UploadShare:
    """One upload's part of a quota."""

    def __init__(self, quota: "Quota", account: _Account, user_id: str) -> None:
        self._quota = quota
        self._account = account
        self._user_id = user_id
        self._arrived = 0
        self._last_at = time.monotonic()

    async def expect(self, size: int) -> None:
        """Refuse an upload of at least `size` bytes that cannot fit. Raises `QuotaExceeded`."""
        await self._quota.check(self._user_id, self._account, size)

    async def add(self, size: int) -> None:
        """Count bytes that have arrived. Raises `QuotaExceeded`, and counts none of them then."""
        self._arrived += size
        self._account.arrived += size
        self._last_at = time.monotonic()
        try:
            await self._quota.check(self._user_id, self._account, own=self._arrived)
        except QuotaExceeded:
            self.release()
            raise

    def stage(self, size: int) -> None:
        """The database counts so many of the bytes that have arrived, from now on.

        To be called before it does: bytes that count twice would refuse an upload that fits.
        """
        self._arrived -= size
        self._account.arrived -= size
        self._account.placed += size

    def place(self, entry: Entry) -> None:
        """The upload is complete, and is the file `entry` from now on."""
        self.grow((entry.size or 0) - entry.replaced)

    def grow(self, growth: int) -> None:
        """The upload is complete, and the user's files take so many bytes more from now on."""
        self.release()
        self._account.placed += growth
        self._quota.ledger.changed(self._user_id, growth, began=self._last_at)

    def release(self) -> None:
        """Nothing of the upload counts any more; idempotent."""
        self._account.arrived -= self._arrived
        self._arrived = 0


class Quota:
    """Limits what each user's files take to `limit` bytes; 0: no limit, and no query."""

    def __init__(self, database: Database, ledger: UsageLedger, limit: int) -> None:
        self.ledger = ledger
        self.limit = limit
        self._database = database
        self._owner = uuid4().hex
        self._accounts: dict[str, _Account] = {}
        self._published: set[str] = set()

    @asynccontextmanager
    async def upload(self, user_id: str) -> AsyncIterator[UploadShare]:
        """Count an upload of the user until the exit."""
        account = self._accounts.setdefault(user_id, _Account())
        account.uploads += 1
        share = UploadShare(self, account, user_id)
        try:
            yield share
        finally:
            share.release()
            account.uploads -= 1
            if not account.uploads:
                del self._accounts[user_id]

    async def left(self, user_id: str) -> int | None:
        """Bytes that the user may add, at least 1; None: any number. Raises `QuotaExceeded`."""
        if not self.limit:
            return None
        async with self.upload(user_id):
            account = self._accounts[user_id]
            await self.check(user_id, account, 1)
            return self.limit - account.taken

    async def check(self, user_id: str, account: _Account, more: int = 0, *, own: int = 0) -> None:
        """Raise `QuotaExceeded` if `more` bytes are too many; by fresh figures if they seem so.

        `own`: bytes that have arrived of this upload, which the message leaves out.
        """
        if not self.limit:
            return
        is_new = account.read_at == float("-inf")
        if is_new or time.monotonic() - account.read_at > _REFRESH_AFTER:
            try:
                await self._refresh(user_id, account, _REFRESH_AFTER)
            except DatabaseUnavailable:
                if is_new:  # else the upload goes on by the figures that there are
                    raise
        if account.taken + more > self.limit:
            with suppress(DatabaseUnavailable):
                await self._refresh(user_id, account, 0.0)
            if account.taken + more > self.limit:
                raise QuotaExceeded(self.limit, account.taken - own)

    async def _refresh(self, user_id: str, account: _Account, max_age: float) -> None:
        """Read what the user's files take, unless another upload has done so meanwhile."""
        asked_at = time.monotonic()
        async with account.reading:
            if account.read_at >= asked_at - max_age:
                return
            placed, read_at = account.placed, time.monotonic()
            usage = await self.ledger.read(user_id)
            async with self._database.reading() as connection:
                elsewhere = await uploads_elsewhere(connection, user_id, self._owner)
                staged = await staged_bytes(connection, user_id)
            account.used = usage.bytes + elsewhere + staged
            account.placed -= placed
            account.read_at = read_at

    # -- what other gateways see ------------------------------------------------------------------
    @asynccontextmanager
    async def running(self) -> AsyncIterator["Quota"]:
        """Let other gateways see the uploads under way, if there is a limit, until the exit."""
        async with AsyncExitStack() as stack:
            if self.limit:
                await stack.enter_async_context(in_background(self._publish_forever()))
            yield self

    async def _publish_forever(self) -> None:
        while True:
            await asyncio.sleep(_PUBLISH_EVERY)
            try:
                await self.publish()
            except DatabaseUnavailable as error:
                log.warning("usage.postponed", reason=str(error))
            except Exception:
                log.exception("usage.failed")

    async def publish(self) -> None:
        """Write what has arrived of the uploads under way, for other gateways."""
        arrived = {user: one.arrived for user, one in self._accounts.items() if one.arrived}
        ended = self._published - arrived.keys()
        if not arrived and not ended:
            return
        dialect = sqlite if self._database.is_sqlite else postgresql
        new = dialect.insert(usage_uploads).values(
            owner=self._owner,
            user_id=bindparam("user"),
            bytes=bindparam("arrived"),
            expires_at=utc_now(_EXPIRES_AFTER),
        )
        changed = {"bytes": new.excluded.bytes, "expires_at": new.excluded.expires_at}
        table = usage_uploads.c
        async with self._database.transaction() as tx:
            if arrived:
                rows = [{"user": user, "arrived": size} for user, size in arrived.items()]
                await tx.execute(
                    new.on_conflict_do_update(
                        index_elements=[table.owner, table.user_id], set_=changed
                    ),
                    rows,
                )
            if ended:
                await tx.execute(
                    delete(usage_uploads).where(
                        table.owner == self._owner, table.user_id == bindparam("user")
                    ),
                    [{"user": user} for user in ended],
                )
        self._published = set(arrived)
