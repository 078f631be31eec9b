"""Warnings about a database that is away: one line per process and period, whatever fails."""

import asyncio
import time
from contextvars import Context
from typing import Any, Final

from common.telemetry.logs import get_logger

PERIOD: Final = 10.0
"""Minimum seconds between two lines of a process."""

log = get_logger()


class OutageLog:
    """Writes the first warning at once, and later ones together, once in `period` seconds.

    Their line is the latest of them, with their number as `count`.
    """

    def __init__(self, period: float = PERIOD) -> None:
        self._period = period
        self._quiet_until = float("-inf")
        self._count = 0
        self._latest: tuple[str, dict[str, Any]] = ("", {})

    def warn(self, event: str, **fields: Any) -> None:
        """To be called in the event loop."""
        self._count += 1
        self._latest = event, fields
        if time.monotonic() >= self._quiet_until:
            self._write()

    def _write(self) -> None:
        event, fields = self._latest
        counted = {"count": self._count} if self._count > 1 else {}
        self._count = 0
        log.warning(event, **fields, **counted)
        self._quiet_until = time.monotonic() + self._period
        # without the fields that the present task has bound: the next line is about others
        asyncio.get_running_loop().call_later(
            self._period, self._summarise, self._quiet_until, context=Context()
        )

    def _summarise(self, quiet_until: float) -> None:
        if self._count and quiet_until == self._quiet_until:
            self._write()


_database: Final = OutageLog()


def warn_of_database(event: str, **fields: Any) -> None:
    """Log that something failed because the database is away."""
    _database.warn(event, **fields)
