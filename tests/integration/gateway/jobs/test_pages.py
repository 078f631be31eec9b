"""Pages of jobs with long texts: all rows, as one array, in little memory."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.database.tables import jobs
from common.jobs.answer import Job
from gateway.http.memory import ByteBudget
from gateway.jobs.columns import is_long
from gateway.jobs.details import with_details
from gateway.jobs.finding import listing, pages
from gateway.jobs.finding.listing import Listing
from gateway.jobs.finding.pages import Page, Pages
from gateway.jobs.finding.search import Search
from gateway.jobs.finding.statements import Plan
from gateway.jobs.store import JobStore
from tests.support.records import add_job, change

LONG = "ü" * 30_000


@pytest.fixture
def reader(database: Database) -> Pages:
    return Pages(JobStore(database), ByteBudget(pages.TOTAL, per_caller=pages.PER_USER))


async def page_of(reader: Pages, *, limit: int, user: str = "ada", **more: Any) -> Page:
    database = reader.store._database
    plan = Plan(Search(**more.pop("search", {})), user, database.is_sqlite)
    return await reader.page(Listing(database, reader.store, plan, **more), limit)


async def jobs_of(page: Page) -> list[dict[str, Any]]:
    if isinstance(page.body, bytes):
        return list(orjson.loads(page.body))
    return list(orjson.loads(b"".join([bytes(piece) async for piece in page.body])))


async def read(reader: Pages, **which: Any) -> list[dict[str, Any]]:
    return await jobs_of(await page_of(reader, **which))


async def add_mixed(database: Database) -> list[int]:
    """Jobs of which some are long in one text or another, and some have no date; newest first."""
    ids = [await add_job(database, date_created=None) for _ in range(30)]
    for number in range(90):
        texts: dict[str, Any] = {
            0: {"runtime_details": LONG},
            1: {"attributes": {"files_down": {}, "env_vars": {"KEY": LONG}}},
            2: {"hardware": {"gpu_model": LONG}},
        }.get(number % 9, {"runtime_details": "short"})
        ids.append(await add_job(database, **texts))
    await add_job(database, user_id="eve")
    return ids[::-1]


@pytest.mark.parametrize("limit", [1, 24, 25, 26, 90, 119, 120, 10_000])
async def test_a_page_holds_all_that_was_asked_for(
    database: Database, reader: Pages, limit: int
) -> None:
    ids = await add_mixed(database)
    for offset in (0, 1, 100):
        found = await read(reader, offset=offset, limit=limit)
        assert [job["id"] for job in found] == ids[offset : offset + limit]
        for job in found:
            number = ids[::-1].index(job["id"]) - 30
            details = None if number < 0 or number % 9 in {1, 2} else "short"
            assert job["runtime_details"] == (details if number % 9 or number < 0 else LONG)
            assert set(job["hardware"]) >= {"gpu_model"}
            if number >= 0 and number % 9 == 1:
                assert job["attributes"]["env_vars"] == {"KEY": LONG}
            if number >= 0 and number % 9 == 2:
                assert job["hardware"]["gpu_model"] == LONG


async def test_a_short_page_is_one_piece(database: Database, reader: Pages) -> None:
    for _ in range(100):
        await add_job(database)
    assert isinstance((await page_of(reader, limit=100)).body, bytes)
    assert isinstance((await page_of(reader, user="nobody", limit=10_000)).body, bytes)


async def test_a_job_deleted_while_its_page_is_read_is_left_out(
    database: Database, reader: Pages
) -> None:
    ids = [await add_job(database, runtime_details=LONG) for _ in range(3)]
    found = (await page_of(reader, limit=10)).body
    assert not isinstance(found, bytes)
    for job_id in ids[1:]:
        await change(database, jobs, job_id, deleted_at=jobs.c.date_created)
    body = b"".join([bytes(piece) async for piece in found])
    assert [job["id"] for job in orjson.loads(body)] == ids[:1]


@pytest.mark.parametrize("limit", [5, 150])
async def test_a_job_that_is_gone_before_its_details_are_read_ends_no_page(
    database: Database, reader: Pages, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    ids = [await add_job(database) for _ in range(160)][::-1]
    gone = {ids[1], *ids[100:150]}

    async def read_late(connection: AsyncConnection, found: Sequence[Job]) -> list[Job]:
        return await with_details(connection, [job for job in found if job["id"] not in gone])

    monkeypatch.setattr(listing, "with_details", read_late)
    page = await page_of(reader, limit=limit, details=True)
    assert [job["id"] for job in await jobs_of(page)] == [
        job_id for job_id in ids[:limit] if job_id not in gone
    ]
    assert page.end is not None
    assert page.end.id == ids[limit - 1]


@pytest.mark.parametrize("sort", ["date_created", "job_name"])
@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("details", [True, False])
async def test_long_pages_neither_overlap_nor_skip_while_jobs_come_and_go(
    database: Database, reader: Pages, sort: str, descending: bool, details: bool
) -> None:
    ids = await add_mixed(database)
    gone, found, begin = set[int](), list[int](), None
    while True:
        search = {"sort": sort, "descending": descending}
        page = await page_of(reader, limit=50, search=search, details=details, begin=begin)
        victim = ids[7 * len(gone)]
        gone.add(victim)
        await change(database, jobs, victim, deleted_at=utc_now())
        await add_job(database)
        found += [job["id"] for job in await jobs_of(page)]
        begin = page.end
        if begin is None:
            break
    assert len(found) == len(set(found))
    assert set(ids) - gone <= set(found)


async def test_readers_that_stand_still_hold_neither_memory_nor_connections(
    database: Database,
) -> None:
    """More than one pool of connections, and more than the whole budget could hold."""
    for _ in range(3):
        await add_job(database, runtime_details="x" * (1 << 20))
    budget = ByteBudget(pages.TOTAL, per_caller=pages.PER_USER, longest_wait=0.2)
    reader = Pages(JobStore(database), budget)
    readers: list[AsyncIterator[Any]] = []
    for _ in range(40):
        found = (await page_of(reader, limit=10)).body
        assert not isinstance(found, bytes)
        readers.append(found)
    first = await asyncio.gather(*(anext(one) for one in readers), return_exceptions=True)
    served = [one for one in first if not isinstance(one, BaseException)]
    assert 1 <= len(served) <= pages.PER_USER // (1 << 20)
    assert await read(Pages(JobStore(database), budget), user="nobody", limit=10) == []
    other = await add_job(database, user_id="eve", runtime_details="x" * (1 << 20))
    found = await reader.job("eve", other)
    assert not isinstance(found, bytes)
    assert orjson.loads(b"".join([bytes(piece) async for piece in found]))["id"] == other
    for one in readers:
        await one.aclose()  # type: ignore[attr-defined]


async def test_only_long_jobs_come_by_themselves(database: Database, reader: Pages) -> None:
    job_id = await add_job(database, runtime_details="x" * 1_000)
    assert not is_long(await JobStore(database).find((job_id, "ada")))
    assert isinstance(await reader.job("ada", job_id), bytes)
    await change(database, jobs, job_id, runtime_details=LONG)
    assert is_long(await JobStore(database).find((job_id, "ada")))
