"""Keeps listening to a channel of the database."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import asyncpg

from common.config.settings import DatabaseSettings
from common.database.errors import reason_of
from common.database.notify import can_listen, listen
from common.runtime.retry import retry
from common.runtime.tasks import in_background
from common.telemetry.logs import get_logger
from common.telemetry.outages import warn_of_database

_OUTAGES = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)

log = get_logger()


@asynccontextmanager
async def listening(
    settings: DatabaseSettings, channel: str, wake: Callable[[str], object], *, pause: float = 1.0
) -> AsyncIterator[None]:
    """Listen in the background, if the database can; reconnect after about `pause` seconds."""
    if not can_listen(settings):
        yield
        return
    reconnecting = retry(
        partial(listen, settings, channel, wake),
        on=Exception,
        first=pause,
        cap=pause,
        on_retry=partial(_log_loss, channel, settings.place),
    )
    async with in_background(reconnecting):
        yield


def _log_loss(channel: str, place: str, error: Exception) -> None:
    if isinstance(error, _OUTAGES):
        warn_of_database("wakeup.lost", channel=channel, reason=f"{place}: {reason_of(error)}")
    else:
        log.error("wakeup.failed", channel=channel, exc_info=error)
