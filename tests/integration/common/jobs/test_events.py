"""A user's events become visible in the order of their ids, whatever commits in between."""

import asyncio
import random

from sqlalchemy import delete, insert, select, text, update

from common.database.engine import Database, utc_now
from common.database.tables import job_deletions, job_events, job_labels, jobs
from common.jobs.event_pages import (
    PAGE,
    PAGE_LENGTH,
    Event,
    is_full,
    newest,
    read_deletions,
    read_labels,
    read_later,
    read_of_job,
)
from common.jobs.events import EventType, NewEvent, prune_deletions, record_deletion, record_events
from common.jobs.lifecycle import Source, Status
from devtools.database import database_settings
from tests.support.records import add_job

WRITERS = 50
ROUNDS = 6


def new_event(job_id: int, details: str | None = None, user: str = "ada") -> NewEvent:
    return NewEvent(
        job_id=job_id,
        user_id=user,
        type=EventType.DETAILS,
        status=Status.RUNNING,
        source=Source.WORKER,
        details=details,
    )


async def record(database: Database, *events: NewEvent, held: float = 0.0) -> None:
    """Record events in a transaction that stays open for `held` seconds afterwards."""
    async with database.transaction() as tx:
        await record_events(tx, events)
        await asyncio.sleep(held)


async def later(database: Database, after: int = 0, user: str = "ada") -> list[Event]:
    async with database.reading() as connection:
        return (await read_later(connection, {user: after}))[user]


async def test_a_reader_misses_and_repeats_nothing_while_fifty_writers_commit(
    database_url: str,
) -> None:
    pools = [Database(database_settings(database_url, pool_size=size)) for size in (WRITERS, 2)]
    writing, reading = pools
    users = ("ada", "bob")
    own = {user: await add_job(writing, user_id=user) for user in users}
    chance = random.Random(7)

    async def write() -> None:
        for _ in range(ROUNDS):
            # of both users at once, in either order: nobody may deadlock
            chosen = chance.sample(users, chance.choice([1, 2]))
            events = [new_event(own[user], user=user) for user in chosen]
            await record(writing, *events, held=chance.random() * 0.004)

    async def follow(user: str) -> list[int]:
        seen = [0]
        while not writers.done() or await later(reading, seen[-1], user):
            seen += [event.id for event in await later(reading, seen[-1], user)]
            await asyncio.sleep(0)
        return seen[1:]

    writers = asyncio.gather(*(write() for _ in range(WRITERS)))
    followed = await asyncio.gather(*map(follow, users))
    await writers
    for user, seen in zip(users, followed, strict=True):
        ids = select(job_events.c.id).where(job_events.c.user_id == user).order_by(job_events.c.id)
        async with reading.reading() as connection:
            assert seen == list(await connection.scalars(ids))
    assert sum(map(len, followed)) >= WRITERS * ROUNDS
    for pool in pools:
        await pool.close()


async def test_many_users_are_read_at_once_each_from_a_position_of_its_own(
    database: Database,
) -> None:
    own = {user: await add_job(database, user_id=user) for user in ("ada", "bob", "eve")}
    for _ in range(3):
        await record(database, *(new_event(job, user=user) for user, job in own.items()))
    all_of = {user: [event.id for event in await later(database, 0, user)] for user in own}
    async with database.reading() as connection:
        found = await read_later(
            connection, {"ada": 0, "bob": all_of["bob"][1], "eve": all_of["eve"][-1], "nobody": 0}
        )
    assert {user: [event.id for event in page] for user, page in found.items()} == {
        "ada": all_of["ada"],
        "bob": all_of["bob"][2:],
        "eve": [],
        "nobody": [],
    }


async def test_a_page_is_bounded_by_number_and_by_length(database: Database) -> None:
    job = await add_job(database)
    await record(database, *(new_event(job) for _ in range(PAGE + 1)))
    page = await later(database)
    assert len(page) == PAGE
    assert is_full(page)
    rest = await later(database, page[-1].id)
    assert len(rest) == 1
    assert not is_full(rest)
    long = "x" * (PAGE_LENGTH // 2)
    await record(database, *(new_event(job, long) for _ in range(4)))
    page = await later(database, rest[-1].id)
    assert len(page) == 2
    assert is_full(page)
    assert len(await later(database, page[-1].id)) == 2


async def test_events_of_a_deleted_job_are_not_read_but_its_deletion_is(
    database: Database,
) -> None:
    job, other = await add_job(database), await add_job(database)
    await record(database, new_event(job), new_event(other))
    async with database.reading() as connection:
        event, deletion = await newest(connection, "ada")
    async with database.transaction() as tx:
        await tx.execute(update(jobs).where(jobs.c.id == job).values(deleted_at=utc_now()))
        await record_deletion(tx, "ada", job)
    assert [found.job_id for found in await later(database)] == [other]
    async with database.reading() as connection:
        assert await read_of_job(connection, job, after=0, limit=10) == []
        found = await read_deletions(connection, {"ada": deletion, "bob": 0})
        assert [one.job_id for one in found["ada"]] == [job]
        assert found["bob"] == []
        assert (await newest(connection, "ada"))[0] == event


async def test_deletions_are_pruned_by_their_age(database: Database) -> None:
    for job_id in range(1, 6):
        async with database.transaction() as tx:
            await record_deletion(tx, "ada", job_id)
    async with database.transaction() as tx:
        old = job_deletions.c.job_id <= 3
        await tx.execute(update(job_deletions).where(old).values(created_at=utc_now(-3_700)))
    assert [await prune_deletions(database, 3_600, 2) for _ in range(3)] == [2, 1, 0]
    async with database.reading() as connection:
        left = (await read_deletions(connection, {"ada": 0}))["ada"]
        assert [one.job_id for one in left] == [4, 5]
        assert (await newest(connection, "ada"))[1] == left[-1].id


async def test_the_id_of_an_event_is_not_used_again(database: Database) -> None:
    job = await add_job(database)
    await record(database, new_event(job))
    (before,) = await later(database)
    async with database.transaction() as tx:
        await tx.execute(delete(jobs))
    await record(database, new_event(await add_job(database)))
    (after,) = await later(database)
    assert after.id > before.id


async def test_events_of_the_version_before_have_a_user_and_a_type(database: Database) -> None:
    job = await add_job(database)
    rows = [("queued", None), ("running", None), ("running", "epoch 1"), ("finished", None)]
    async with database.transaction() as tx:
        for status, details in rows:
            await tx.execute(
                insert(job_events).values(
                    job_id=job,
                    status=status,
                    details=details,
                    source="worker",
                    created_at=utc_now(),
                )
            )
    found = [(event.type, event.status, event.details) for event in await later(database)]
    assert found == [
        ("status", "queued", None),
        ("status", "running", None),
        ("details", "running", "epoch 1"),
        ("status", "finished", None),
    ]


async def test_labels_are_read_by_job(database: Database) -> None:
    one, two = await add_job(database), await add_job(database)
    async with database.transaction() as tx:
        label = {"job_id": one, "user_id": "ada"}
        await tx.execute(insert(job_labels).values(key="exp", value="7", **label))
    await record(database, new_event(one), new_event(two))
    async with database.reading() as connection:
        assert await read_labels(connection, await later(database)) == {one: {"exp": "7"}, two: {}}


async def test_a_users_lock_delays_no_other_user(postgresql_url: str) -> None:
    database = Database(database_settings(postgresql_url))
    own = {user: await add_job(database, user_id=user) for user in ("ada", "bob")}
    async with database.transaction() as tx:
        await record_events(tx, [new_event(own["ada"])])
        await record(database, new_event(own["bob"], user="bob"))
        assert len(await later(database, 0, "bob")) == 1
        waiting = asyncio.create_task(record(database, new_event(own["ada"], "second")))
        async with database.reading() as watching:
            blocked = text(
                "SELECT count(*) FROM pg_locks JOIN pg_database ON database = pg_database.oid"
                " WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
            )
            while not (await watching.execute(blocked)).scalar_one():
                await asyncio.sleep(0.01)
        assert await later(database) == []
    await waiting
    assert [event.details for event in await later(database)] == [None, "second"]
    await database.close()
