import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.database.pool import export_pool
from devtools.database import database_settings
from tests.support.metrics import metric


def value(name: str, **labels: str) -> float:
    return metric(f"opencloud_database_{name}", **labels)


def connections() -> tuple[float, float]:
    return value("connections", state="in_use"), value("connections", state="idle")


@pytest.fixture
async def small(database_url: str) -> AsyncIterator[Database]:
    """A database with two connections, in the metrics."""
    database = Database(database_settings(database_url, pool_size=2))
    export_pool(database.engine)
    yield database
    await database.close()


async def test_connections_are_counted_when_the_metrics_are_read(small: Database) -> None:
    assert (value("pool_size"), connections()) == (2, (0, 0))
    async with small.reading():
        assert connections() == (1, 0)
        async with small.reading():
            assert connections() == (2, 0)
        assert connections() == (1, 1)
    assert connections() == (0, 2)
    await small.close()
    assert (value("pool_size"), connections()) == (2, (0, 0))


async def test_only_a_wait_counts_with_its_length(small: Database) -> None:
    count, seconds = value("wait_seconds_count"), value("wait_seconds_sum")
    await asyncio.gather(small.ping(), small.ping())  # without a wait
    async with small.reading(), small.reading():
        began = time.perf_counter()
        waiting = asyncio.create_task(small.ping())
        await asyncio.sleep(0.1)
    await waiting
    took = time.perf_counter() - began
    assert value("wait_seconds_count") == count + 1
    assert 0.05 < value("wait_seconds_sum") - seconds <= took


async def test_a_wait_in_vain_counts_as_such(
    small: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small.engine.pool, "_timeout", 0.1)
    count, in_vain = value("wait_seconds_count"), value("pool_timeouts_total")
    async with small.reading(), small.reading():
        with pytest.raises(DatabaseUnavailable):
            await small.ping()
    await small.ping()
    assert value("pool_timeouts_total") == in_vain + 1
    assert value("wait_seconds_count") == count + 1
