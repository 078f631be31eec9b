"""Keeps a channel listener connected."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import asyncpg

from common.database.notify import ChannelListener
from common.runtime.retry import retry
from common.runtime.tasks import end
from common.telemetry.logs import get_logger

_OUTAGES = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)

log = get_logger()


@asynccontextmanager
async def listening(listener: ChannelListener, *, pause: float = 1.0) -> AsyncIterator[None]:
    """Listen in the background; reconnect after at most about `pause` seconds, for ever."""
    if not listener.is_possible:
        yield
        return
    reconnecting = retry(
        listener.listen,
        on=Exception,
        first=pause,
        cap=pause,
        on_retry=partial(_log_loss, listener.channel),
    )
    task = asyncio.get_running_loop().create_task(reconnecting)
    try:
        yield
    finally:
        await end(task)


def _log_loss(channel: str, error: Exception) -> None:
    if isinstance(error, _OUTAGES):
        log.warning("wakeup.lost", channel=channel, reason=type(error).__name__)
    else:
        log.error("wakeup.failed", channel=channel, exc_info=error)
