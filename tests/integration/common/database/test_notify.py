import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise

import pytest

from common.config.settings import DatabaseSettings
from common.database.engine import Database
from common.database.notify import EMAILS, HANDOVERS, ChannelNotifier, can_listen
from common.runtime.listening import listening
from devtools.database import database_settings
from devtools.postgres import Server
from devtools.waiting import eventually


@pytest.fixture
async def postgresql(postgresql_url: str) -> AsyncIterator[Database]:
    database = Database(database_settings(postgresql_url))
    yield database
    await database.close()


@asynccontextmanager
async def wakes(settings: DatabaseSettings) -> AsyncIterator[asyncio.Event]:
    """An event set by notifications of hand-overs, from now on."""
    event = asyncio.Event()
    async with listening(settings, HANDOVERS, lambda _: event.set(), pause=0.01):
        await asyncio.wait_for(event.wait(), 30)  # connected
        event.clear()
        yield event


@pytest.fixture
async def woken(postgresql: Database) -> AsyncIterator[asyncio.Event]:
    async with wakes(postgresql.settings) as event:
        yield event


async def notify(database: Database, channel: str) -> None:
    notifier = ChannelNotifier(database)
    notifier.notify(channel)
    await notifier.close()


async def test_a_notification_wakes_the_listener_of_its_channel_alone(
    postgresql: Database, woken: asyncio.Event
) -> None:
    await notify(postgresql, EMAILS)
    async with wakes(postgresql.settings):  # later than the notification
        assert not woken.is_set()
    await notify(postgresql, HANDOVERS)
    await asyncio.wait_for(woken.wait(), 30)


def counted(database: Database) -> list[float]:
    """The moments at which the database is asked for something, from now on."""
    moments: list[float] = []
    reading = database.reading

    def noted() -> object:
        moments.append(asyncio.get_running_loop().time())
        return reading()

    database.reading = noted  # type: ignore[method-assign, assignment]
    return moments


async def test_a_stream_of_notifications_is_thinned_out_and_its_last_one_is_sent(
    postgresql: Database,
) -> None:
    sent = counted(postgresql)
    notifier = ChannelNotifier(postgresql)
    for _ in range(100):
        notifier.notify(HANDOVERS)
    await notifier.close()
    assert len(sent) == 1
    for _ in range(100):
        notifier.notify(HANDOVERS)
        last = asyncio.get_running_loop().time()
        await asyncio.sleep(0.001)
    await notifier.close()
    assert all(later - earlier >= 0.009 for earlier, later in pairwise(sent))
    assert sent[-1] >= last


async def test_a_listener_that_was_cut_off_comes_back_and_wakes_its_daemon(
    postgresql: Database, postgres: Server, woken: asyncio.Event
) -> None:
    name = postgresql.settings.url.database
    postgres.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )
    await asyncio.wait_for(woken.wait(), 30)  # notifications sent meanwhile are not missed
    woken.clear()
    fresh = Database(postgresql.settings)  # the other one's connections were cut off, too
    await notify(fresh, HANDOVERS)
    await asyncio.wait_for(woken.wait(), 30)
    await fresh.close()


def with_option(settings: DatabaseSettings, **option: str) -> DatabaseSettings:
    return replace(settings, url=settings.url.update_query_dict(option))


async def test_an_option_of_the_url_that_is_not_the_drivers_does_not_prevent_listening(
    postgresql: Database,
) -> None:
    async with wakes(with_option(postgresql.settings, prepared_statement_cache_size="0")):
        pass


async def test_a_listener_that_fails_for_an_unforeseen_reason_tries_again_and_can_be_stopped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = with_option(database_settings("postgresql://nobody@127.0.0.1:1/none"), unknown="x")
    seen = 0

    def has_failed_twice() -> bool:
        nonlocal seen
        seen += capsys.readouterr().out.count("wakeup.failed")
        return seen >= 2

    async with listening(settings, HANDOVERS, lambda _: None, pause=0.001):
        await eventually(has_failed_twice)


async def test_there_is_no_listening_on_sqlite_or_behind_a_pooling_proxy(
    database: Database,
) -> None:
    settings = replace(database.settings, statement_cache=False)
    assert not can_listen(settings)
    async with listening(settings, HANDOVERS, lambda _: None):
        await database.ping()


async def test_on_sqlite_a_notification_does_nothing(sqlite_url: str) -> None:
    database = Database(database_settings(sqlite_url))
    asked = counted(database)
    await notify(database, HANDOVERS)
    assert asked == []
    await database.close()
