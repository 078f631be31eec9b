"""Wake-ups between processes: PostgreSQL's LISTEN/NOTIFY, beside the poll that is always there.

A notification is sent after the writing transaction's commit, on a connection of its own and at
most once per interval and channel: inside the transactions it would serialise all commits.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

import asyncpg
from sqlalchemy import URL, text

from common.config.settings import DatabaseSettings
from common.database.engine import Database
from common.database.errors import DatabaseUnavailable

HANDOVERS: Final = "opencloud_handovers"
EMAILS: Final = "opencloud_emails"
EVENTS: Final = "opencloud_events"
"""Its payload names users with new events, one per line."""
WEBHOOKS: Final = "opencloud_webhooks"

_AT_MOST_EVERY: Final = 0.01
"""Seconds between two notifications of one process; the first one goes out at once."""

_MAX_PAYLOAD: Final = 7_000
"""Bytes; PostgreSQL refuses 8 000 (https://www.postgresql.org/docs/current/sql-notify.html)."""

_NOT_FOR_THE_DRIVER: Final = (
    "async_creator_fn",
    "async_fallback",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
)
"""Options of a database URL that SQLAlchemy does not pass on to the driver."""

_PING_EVERY: Final = 5.0

_notify: Final = text("SELECT pg_notify(:channel, :payload)")


class ChannelNotifier:
    """Notifies channels that there is work; calls in quick succession share a notification."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, set[str]] = {}
        self._task: asyncio.Task[None] | None = None
        self._enabled = not database.is_sqlite

    def notify(self, channel: str, line: str = "") -> None:
        """Wake the listeners of `channel`, soon; never fails, since they poll as well.

        Lines from calls in quick succession share a notification's payload.
        """
        if not self._enabled:
            return
        self._waiting.setdefault(channel, set()).add(line)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        while self._waiting:
            channels, self._waiting = self._waiting, {}
            try:
                async with self._database.reading() as connection:
                    for channel, lines in channels.items():
                        for payload in _payloads(lines):
                            values = {"channel": channel, "payload": payload}
                            await connection.execute(_notify, values)
            except DatabaseUnavailable:
                return
            await asyncio.sleep(_AT_MOST_EVERY)

    async def close(self) -> None:
        """Wait until what was announced is sent."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)


def _payloads(lines: Collection[str]) -> Iterator[str]:
    """The lines, joined up to the longest payload; one empty payload if any line is empty."""
    if "" in lines or any(len(line.encode()) > _MAX_PAYLOAD for line in lines):
        yield ""
        return
    payload = ""
    for line in lines:
        longer = f"{payload}\n{line}" if payload else line
        if len(longer.encode()) > _MAX_PAYLOAD:
            yield payload
            longer = line
        payload = longer
    yield payload


def can_listen(settings: DatabaseSettings) -> bool:
    """Not on SQLite, nor behind a proxy that pools transactions: there is only the poll."""
    return not settings.is_sqlite and settings.statement_cache


async def listen(settings: DatabaseSettings, channel: str, wake: Callable[[str], object]) -> None:
    """Call `wake` once connected, and for each notification of `channel` until the connection ends.

    It gets the payload, which is empty where anything may have happened.

    Raises `OSError` (`TimeoutError` and `ConnectionError` included) or asyncpg's own errors.
    """
    connection: Any = await asyncpg.connect(
        **_connect_arguments(settings.url),
        timeout=settings.connect_timeout,
        server_settings=dict(settings.server_settings),
    )
    lost = asyncio.Event()
    connection.add_termination_listener(lambda _: lost.set())
    try:
        await connection.add_listener(channel, lambda *notified: wake(notified[-1]))
        wake("")  # for notifications sent while there was no connection
        while not lost.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(lost.wait(), _PING_EVERY)
                break
            await connection.execute("SELECT 1", timeout=_PING_EVERY)
        raise ConnectionResetError
    finally:
        connection.terminate()


def _connect_arguments(url: URL) -> dict[str, Any]:
    """asyncpg's arguments for connections of this URL."""
    _, arguments = url.get_dialect()().create_connect_args(url)
    return {key: value for key, value in arguments.items() if key not in _NOT_FOR_THE_DRIVER}
