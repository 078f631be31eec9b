"""Wake-ups between processes: PostgreSQL's LISTEN/NOTIFY, beside the poll that is always there.

A notification is sent after the writing transaction's commit, on a connection of its own and at
most once per interval and channel: inside the transactions it would serialise all commits.
"""

import asyncio
import contextlib
from typing import Any, Final

import asyncpg
from sqlalchemy import URL

from common.config.settings import DatabaseSettings
from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.telemetry.logs import get_logger

HANDOVERS: Final = "opencloud_handovers"
EMAILS: Final = "opencloud_emails"

_AT_MOST_EVERY: Final = 0.01
"""Seconds between two notifications of one process: the first goes out at once."""

_NOT_FOR_THE_DRIVER: Final = (
    "async_creator_fn",
    "async_fallback",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
)
"""Options of a database URL that SQLAlchemy keeps to itself."""

_PING_EVERY: Final = 5.0
_RECONNECT_AFTER: Final = 1.0

log = get_logger()


class Notifier:
    """Tells other processes that a channel has work; calls that come close together are one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._enabled = not database.is_sqlite

    def notify(self, channel: str) -> None:
        """Wake whoever listens on `channel`, soon; never fails, since the poll is there as well."""
        if not self._enabled:
            return
        self._waiting.add(channel)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        while self._waiting:
            channels, self._waiting = self._waiting, set()
            try:
                async with self._database.reading() as connection:
                    for channel in channels:
                        await connection.exec_driver_sql(f"NOTIFY {channel}")
            except DatabaseUnavailable:
                return
            await asyncio.sleep(_AT_MOST_EVERY)

    async def close(self) -> None:
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)


class Listener:
    """Sets `event` whenever `channel` is notified, and after every (re)connection.

    On SQLite, and behind a proxy that pools transactions, it does nothing: the poll has to do.
    """

    def __init__(self, settings: DatabaseSettings, channel: str, event: asyncio.Event) -> None:
        self._settings = settings
        self._channel = channel
        self._event = event
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if not self._settings.is_sqlite and self._settings.statement_cache:
            self._task = asyncio.get_running_loop().create_task(self._listen_for_ever())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _listen_for_ever(self) -> None:
        while True:
            try:
                await self._listen()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("wakeup.lost", channel=self._channel, reason=type(error).__name__)
            except Exception:
                log.exception("wakeup.failed", channel=self._channel)
            await asyncio.sleep(_RECONNECT_AFTER)

    async def _listen(self) -> None:
        """Listen until the connection is lost."""
        connection: Any = await asyncpg.connect(
            **_connect_arguments(self._settings.url), timeout=self._settings.connect_timeout
        )
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(self._channel, lambda *_: self._event.set())
            self._event.set()  # whatever was notified while nobody listened
            while not lost.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), _PING_EVERY)
                    return
                await connection.execute("SELECT 1", timeout=_PING_EVERY)
        finally:
            connection.terminate()


def _connect_arguments(url: URL) -> dict[str, Any]:
    """What asyncpg is given for connections of this URL."""
    _, arguments = url.get_dialect()().create_connect_args(url)
    return {key: value for key, value in arguments.items() if key not in _NOT_FOR_THE_DRIVER}
