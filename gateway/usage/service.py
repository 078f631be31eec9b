"""What a user has in use, beside the limits on it."""

from typing import Any

from common.database.engine import Database
from common.jobs.quota import count_unfinished
from common.usage.ledger import UsageLedger
from gateway.http.rates import Standing
from gateway.http.responses import iso
from gateway.settings import Limits


class UserUsage:
    """Reads what users have in use, without looking at their files."""

    def __init__(self, database: Database, ledger: UsageLedger, limits: Limits) -> None:
        self._database = database
        self._ledger = ledger
        self._limits = limits

    async def describe(self, user_id: str, standing: Standing | None) -> dict[str, Any]:
        """The user's usage and limits as clients read them.

        `standing`: the user's requests, if they are limited. The question has the files measured
        again once the last measurement is older than the interval between two.
        """
        self._ledger.touch(user_id)
        used = await self._ledger.read(user_id)
        async with self._database.reading() as connection:
            unfinished = await count_unfinished(connection, user_id)
        return {
            "jobs": {"unfinished": unfinished, "limit": self._limits.unfinished_jobs or None},
            "bytes": {
                "used": used.bytes,
                "limit": self._limits.user_bytes or None,
                "measured_at": iso(used.measured_at),
            },
            "requests": standing
            and {
                "limit": standing.limit,
                "window": standing.window,
                "remaining": standing.remaining,
            },
        }
