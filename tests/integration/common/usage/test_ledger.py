"""Changes of users' trees: summed, written soon, and never lost while the database is away."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.database.tables import usage_changes, user_usage
from common.usage.ledger import UsageLedger
from common.usage.records import read_usage
from devtools.waiting import eventually
from tests.support.records import rows


async def bytes_of(database: Database, user_id: str) -> int:
    async with database.reading() as connection:
        return (await read_usage(connection, user_id)).bytes


def change(ledger: UsageLedger, user_id: str, size: int) -> None:
    with ledger.changing(user_id) as growth:
        growth.bytes += size


async def test_changes_count_at_once_in_their_process_and_later_in_others(
    database: Database,
) -> None:
    ledger = UsageLedger(database)
    for size in (100, 50, -30):
        change(ledger, "ada", size)
    change(ledger, "eve", 7)
    assert await bytes_of(database, "ada") == 0
    assert (await ledger.read("ada")).bytes == 120
    assert await bytes_of(database, "ada") == 120
    assert await bytes_of(database, "eve") == 0
    await ledger.flush()
    assert await bytes_of(database, "eve") == 7
    assert [row["bytes"] for row in await rows(database, usage_changes)] == [120, 7]


async def test_what_was_read_is_not_counted_again(database: Database) -> None:
    ledger = UsageLedger(database)
    change(ledger, "ada", 100)
    assert (await ledger.read("ada")).bytes == 100
    await ledger.flush()
    assert (await ledger.read("ada")).bytes == 100


async def test_a_running_ledger_writes_by_itself_and_at_its_end(database: Database) -> None:
    async with UsageLedger(database).running() as ledger:
        change(ledger, "ada", 1)

        async def is_written() -> bool:
            return await bytes_of(database, "ada") == 1

        await eventually(is_written)
        change(ledger, "ada", 2)
    assert await bytes_of(database, "ada") == 3


async def test_a_write_whose_caller_is_cancelled_counts_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = UsageLedger(database)
    change(ledger, "ada", 5)
    committed, transaction = asyncio.Event(), database.transaction

    @asynccontextmanager
    async def slow_to_return() -> AsyncIterator[AsyncConnection]:
        async with transaction() as tx:
            yield tx
        committed.set()
        await asyncio.sleep(0.05)

    monkeypatch.setattr(database, "transaction", slow_to_return)
    flushing = asyncio.create_task(ledger.flush())
    await committed.wait()
    flushing.cancel()
    await asyncio.wait([flushing])
    assert flushing.cancelled()
    await ledger.flush()
    assert await bytes_of(database, "ada") == 5


async def test_more_than_was_there_may_go_but_nobody_has_less_than_nothing(
    database: Database,
) -> None:
    ledger = UsageLedger(database)
    change(ledger, "ada", -5)
    assert (await ledger.read("ada")).bytes == 0


async def test_changes_are_kept_while_the_database_is_away(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = UsageLedger(database)
    change(ledger, "ada", 5)

    @asynccontextmanager
    async def away() -> AsyncIterator[None]:
        raise DatabaseUnavailable("away")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(database, "transaction", away)
        with pytest.raises(DatabaseUnavailable):
            await ledger.flush()
        with pytest.raises(DatabaseUnavailable):
            await ledger.read("ada")
        change(ledger, "ada", 1)
    assert (await ledger.read("ada")).bytes == 6


async def test_a_change_that_fails_half_way_has_the_tree_measured(database: Database) -> None:
    ledger = UsageLedger(database)
    with pytest.raises(ValueError, match="broken"), ledger.changing("ada"):
        raise ValueError("broken")
    await ledger.flush()
    (row,) = await rows(database, user_usage)
    assert row["due_at"] is not None
    assert await rows(database, usage_changes) == []


async def test_many_users_are_written_in_batches(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.usage.ledger._BATCH", 3)
    ledger = UsageLedger(database)
    for number in range(8):
        ledger.changed(f"user-{number}", 1, began=time.monotonic())
    await ledger.flush()
    assert len(await rows(database, usage_changes)) == len(await rows(database, user_usage)) == 8
