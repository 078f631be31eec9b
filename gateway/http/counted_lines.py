"""Log lines that clients can cause in any number: one for each key and period, with a count."""

import asyncio
from collections.abc import Hashable, Mapping
from contextvars import Context
from typing import Any, Final

from common.telemetry.logs import get_logger

PERIOD: Final = 10.0
"""Seconds in which lines of one key are counted instead of written."""

_KEYS: Final = 100
"""Keys that have lines of their own within a period; the others have one together."""

_OTHERS: Final = object()

log = get_logger()


class CountedLines:
    """Writes the first line of a key at once, and those of the following period as one.

    That one has the first's fields and their number as `count`.
    """

    def __init__(self, event: str, period: float = PERIOD) -> None:
        self._event = event
        self._period = period
        self._waiting: dict[Hashable, int] = {}

    def write(self, key: Hashable, fields: Mapping[str, Any]) -> None:
        """To be called in the event loop. Beyond the keys of their own, `address` is "several"."""
        if key not in self._waiting and len(self._waiting) >= _KEYS:
            key, fields = _OTHERS, {**fields, "address": "several"}
        if key in self._waiting:
            self._waiting[key] += 1
            return
        log.info(self._event, **fields)
        self._begin(key, fields)

    def _begin(self, key: Hashable, fields: Mapping[str, Any]) -> None:
        self._waiting[key] = 0
        # without the fields that the present request has bound: the next line is about others
        asyncio.get_running_loop().call_later(
            self._period, self._end, key, fields, context=Context()
        )

    def _end(self, key: Hashable, fields: Mapping[str, Any]) -> None:
        if count := self._waiting.pop(key):
            log.info(self._event, **fields, count=count)
            self._begin(key, fields)
