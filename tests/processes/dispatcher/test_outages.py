"""A dispatcher whose PostgreSQL goes away under it."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.database.schema import migrate
from common.database.tables import handover_numbers, handovers
from common.runtime.startup import wait_until_up
from deploy.sandbox.ports import free_port
from devtools.postgres import OwnServer, Server
from devtools.waiting import eventually
from tests.conftest import settings_of
from tests.support.dispatcher import FakePeer, dispatcher_settings, running
from tests.support.records import add_handover, rows


async def all_done(database: Database) -> bool:
    try:
        return {row["state"] for row in await rows(database, handovers)} == {"done"}
    except DatabaseUnavailable:
        return False


async def probe(admin: Any, path: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(admin.make_url(path)) as response:
        return response.status


async def is_ready(admin: Any) -> bool:
    return await probe(admin, "/readyz") == 200


async def is_not_ready(admin: Any) -> bool:
    return not await is_ready(admin)


async def test_a_restart_of_postgresql_flips_readiness_and_is_recovered_from(
    server: OwnServer, peer: FakePeer, tmp_path: Path
) -> None:
    database = Database(settings_of(server.url))
    await migrate(database)
    job_ids = [await add_handover(database)]
    async with running(dispatcher_settings(server.url, peer.url, tmp_path)) as admin:
        await eventually(lambda: is_ready(admin))
        await eventually(lambda: all_done(database))
        await asyncio.to_thread(server.stop)
        await eventually(lambda: is_not_ready(admin))
        assert await probe(admin, "/livez") == 200
        await asyncio.to_thread(server.start)
        await eventually(lambda: is_ready(admin), within=10)
        await wait_until_up(database, 10.0)
        job_ids.append(await add_handover(database))
        await eventually(lambda: all_done(database), within=10)
    assert peer.taken == job_ids
    await database.close()


async def test_a_trial_whose_settlement_fails_lets_the_others_through(
    postgresql_url: str, tmp_path: Path
) -> None:
    database = Database(settings_of(postgresql_url))
    first = await add_handover(database)
    async with database.transaction() as tx:
        await tx.exec_driver_sql(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN RAISE EXCEPTION ''a fault of ours''; END'"
        )
        await tx.exec_driver_sql(
            "CREATE TRIGGER fail BEFORE UPDATE ON handovers FOR EACH ROW"
            f" WHEN (NEW.state = 'done' AND NEW.job_id = {first}) EXECUTE FUNCTION fail()"
        )
    port = free_port()
    settings = dispatcher_settings(postgresql_url, f"http://127.0.0.1:{port}", tmp_path)
    async with running(settings):
        await eventually(lambda: _was_tried(database))
        async with FakePeer().served(port) as peer:
            await eventually(lambda: peer.taken == [first])
            others = [await add_handover(database) for _ in range(10)]
            await eventually(lambda: sorted(peer.taken) == [first, *others])
    await database.close()


async def _was_tried(database: Database) -> bool:
    return all(row["last_error"] for row in await rows(database, handovers))


async def test_connections_terminated_twice_a_second_lose_no_job_and_send_none_twice(
    postgres: Server, postgresql_url: str, peer: FakePeer, tmp_path: Path
) -> None:
    database = Database(settings_of(postgresql_url))
    expected = [await add_handover(database) for _ in range(200)]
    name = database.settings.url.database
    await database.close()
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    )
    settings = dispatcher_settings(postgresql_url, peer.url, tmp_path, handover_concurrency=2)
    async with running(settings):
        for _ in range(6):
            await asyncio.sleep(0.5)
            await asyncio.to_thread(postgres.execute, cut)
        await eventually(lambda: all_done(database), within=20)
    # neither lost nor in doubt: what a claim took whose answer was cut off was never sent
    assert sorted(peer.taken) == expected
    assert await rows(database, handover_numbers) == []
    await database.close()
