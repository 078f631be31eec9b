"""Digests wait for a database that is away, and one that cannot be written holds up no other."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.digests.records import Noted
from devtools.waiting import eventually
from gateway.files.digests import notes as module
from gateway.files.digests.notes import DigestNotes


def noted(number: int, sha256: str = "aa") -> Noted:
    return Noted("ada", f"data/{number}", "etag", sha256)


class Table:
    """What was written; `error` is raised instead, and `before` called, at each write."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}
        self.error: Exception | None = None
        self.writes = 0

    def before(self) -> None:
        pass

    @asynccontextmanager
    async def statement(self) -> AsyncIterator["Table"]:
        yield self

    async def note(self, _: Any, batch: Sequence[Noted]) -> None:
        self.writes += 1
        self.before()
        if self.error is not None:
            raise self.error
        self.rows |= {it.path: it.sha256 for it in batch}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    table = Table()
    monkeypatch.setattr(module, "note_digests", table.note)
    monkeypatch.setattr(module, "_RETRY_AFTER", 0.01)
    return table


@pytest.fixture
def notes(table: Table) -> DigestNotes:
    return DigestNotes(cast("Database", table))


async def test_they_are_written_at_once_and_known_before(notes: DigestNotes, table: Table) -> None:
    async with notes.running():
        notes.add(noted(1))
        assert notes.find("ada", "data/1") == noted(1)
        await eventually(lambda: table.rows == {"data/1": "aa"})
        await eventually(lambda: notes.find("ada", "data/1") is None)


async def test_what_is_left_at_the_end_is_written(notes: DigestNotes, table: Table) -> None:
    async with notes.running():
        for number in range(1_200):
            notes.add(noted(number))
    assert len(table.rows) == 1_200


async def test_they_wait_for_a_database_that_is_away(notes: DigestNotes, table: Table) -> None:
    table.error = DatabaseUnavailable("it is away")
    async with notes.running():
        notes.add(noted(1))
        await eventually(lambda: table.writes > 1)
        table.error = None
        await eventually(lambda: table.rows == {"data/1": "aa"})


async def test_only_so_many_wait(
    notes: DigestNotes, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST", 3)
    for number in (1, 2, 3, 1, 4):
        notes.add(noted(number))
    await notes.write()
    assert set(table.rows) == {"data/3", "data/1", "data/4"}


async def test_what_cannot_be_written_holds_up_no_other(notes: DigestNotes, table: Table) -> None:
    table.error = ValueError("a row that no database takes")
    notes.add(noted(1))
    await notes.write()
    table.error = None
    notes.add(noted(2))
    await notes.write()
    assert table.rows == {"data/2": "aa"}


async def test_one_that_comes_during_a_write_is_written_next(
    notes: DigestNotes, table: Table
) -> None:
    table.before = lambda: notes.add(noted(1, "bb"))
    notes.add(noted(1, "aa"))
    await notes.write()
    assert notes.find("ada", "data/1") == noted(1, "bb")
    table.before = lambda: None
    await notes.write()
    assert table.rows == {"data/1": "bb"}


async def test_of_a_replaced_file_none_is_written_over_that_of_the_new_one(
    notes: DigestNotes, table: Table
) -> None:
    notes.add(noted(1, "aa"))
    notes.add(noted(2, "aa"))
    await notes.write_at_once([noted(1, "bb")])
    await notes.write()
    assert table.rows == {"data/1": "bb", "data/2": "aa"}


async def test_one_that_is_being_written_does_not_end_up_over_it_either(
    notes: DigestNotes, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def note_late(_: Any, batch: Sequence[Noted]) -> None:
        begun.set()
        await go_on.wait()
        await table.note(None, batch)

    monkeypatch.setattr(module, "note_digests", note_late)
    notes.add(noted(1, "aa"))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(notes.write())
        await begun.wait()
        monkeypatch.setattr(module, "note_digests", table.note)
        tasks.create_task(notes.write_at_once([noted(1, "bb")]))
        await asyncio.sleep(0)  # it would write now
        go_on.set()
    assert table.rows == {"data/1": "bb"}
