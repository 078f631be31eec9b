import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise

import pytest

from common.config.settings import DatabaseSettings
from common.database import notify as wakeup
from common.database.engine import Database
from common.database.notify import EMAILS, HANDOVERS, Listener, Notifier
from devtools.postgres import Server
from devtools.waiting import eventually
from tests.conftest import settings_of


@pytest.fixture
async def postgresql(postgresql_url: str) -> AsyncIterator[Database]:
    database = Database(settings_of(postgresql_url))
    yield database
    await database.close()


@pytest.fixture
async def woken(postgresql: Database) -> AsyncIterator[asyncio.Event]:
    """Set by notifications of hand-overs, from now on."""
    event = asyncio.Event()
    listener = Listener(postgresql.settings, HANDOVERS, event)
    listener.start()
    await asyncio.wait_for(event.wait(), 10)  # it listens
    event.clear()
    yield event
    await listener.stop()


async def test_a_notification_wakes_the_listener(
    postgresql: Database, woken: asyncio.Event
) -> None:
    notifier = Notifier(postgresql)
    notifier.notify(HANDOVERS)
    await asyncio.wait_for(woken.wait(), 5)
    await notifier.close()


async def test_another_channel_wakes_nobody(postgresql: Database, woken: asyncio.Event) -> None:
    notifier = Notifier(postgresql)
    notifier.notify(EMAILS)
    await notifier.close()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(woken.wait(), 0.3)


def counted(database: Database) -> list[float]:
    """The moments at which the database is asked for something, from now on."""
    moments: list[float] = []
    reading = database.reading

    def noted() -> object:
        moments.append(asyncio.get_running_loop().time())
        return reading()

    database.reading = noted  # type: ignore[method-assign, assignment]
    return moments


async def test_notifications_that_come_together_are_one(postgresql: Database) -> None:
    sent = counted(postgresql)
    notifier = Notifier(postgresql)
    for _ in range(100):
        notifier.notify(HANDOVERS)
    await notifier.close()
    assert len(sent) == 1


async def test_a_stream_of_notifications_is_thinned_out_and_its_last_one_is_sent(
    postgresql: Database,
) -> None:
    sent = counted(postgresql)
    notifier = Notifier(postgresql)
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
    await asyncio.wait_for(woken.wait(), 10)  # whatever came meanwhile is not missed
    woken.clear()
    fresh = Database(postgresql.settings)  # the other one's connections were cut off, too
    notifier = Notifier(fresh)
    notifier.notify(HANDOVERS)
    await asyncio.wait_for(woken.wait(), 5)
    await notifier.close()
    await fresh.close()


def with_option(settings: DatabaseSettings, **option: str) -> DatabaseSettings:
    return replace(settings, url=settings.url.update_query_dict(option))


async def test_an_option_of_the_url_that_is_not_the_drivers_keeps_nobody_from_listening(
    postgresql: Database,
) -> None:
    event = asyncio.Event()
    settings = with_option(postgresql.settings, prepared_statement_cache_size="0")
    listener = Listener(settings, HANDOVERS, event)
    listener.start()
    await asyncio.wait_for(event.wait(), 10)
    await listener.stop()


async def test_a_listener_that_fails_for_a_reason_nobody_foresaw_tries_again_and_can_be_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wakeup, "_RECONNECT_AFTER", 0.001)
    settings = with_option(settings_of("postgresql://nobody@127.0.0.1:1/none"), unknown="x")
    listener = Listener(settings, HANDOVERS, asyncio.Event())
    listener.start()
    seen = 0

    def has_failed_twice() -> bool:
        nonlocal seen
        seen += capsys.readouterr().out.count("wakeup.failed")
        return seen >= 2

    await eventually(has_failed_twice, within=10)
    await listener.stop()


async def test_behind_a_pooling_proxy_nobody_listens(postgresql: Database) -> None:
    settings = replace(postgresql.settings, statement_cache=False)
    listener = Listener(settings, HANDOVERS, asyncio.Event())
    listener.start()
    await listener.stop()
    async with postgresql.reading() as connection:
        found = await connection.exec_driver_sql(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
            " AND datname = current_database()"
        )
        assert found.scalar_one() == 0


async def test_on_sqlite_notifying_and_listening_do_nothing(sqlite_url: str) -> None:
    database = Database(settings_of(sqlite_url))
    notifier = Notifier(database)
    listener = Listener(database.settings, HANDOVERS, asyncio.Event())
    listener.start()
    notifier.notify(HANDOVERS)
    await notifier.close()
    await listener.stop()
    await database.close()
