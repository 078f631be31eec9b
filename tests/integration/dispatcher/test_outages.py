"""A dispatcher whose PostgreSQL fails it amid its work."""

import asyncio
from pathlib import Path

from common.database.engine import Database
from common.database.tables import handover_numbers, handovers
from deploy.sandbox.ports import free_port
from devtools.postgres import Server
from devtools.waiting import eventually
from tests.support.cloud import on_postgresql
from tests.support.dispatcher import FakePeer, dispatcher_settings, running
from tests.support.records import add_handover, all_done, rows


@on_postgresql
async def test_a_trial_whose_settlement_fails_lets_the_others_through(
    database: Database, database_url: str, tmp_path: Path
) -> None:
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

    async def was_tried() -> bool:
        return all(row["last_error"] for row in await rows(database, handovers))

    port = free_port()
    settings = dispatcher_settings(database_url, f"http://127.0.0.1:{port}", tmp_path)
    async with running(settings):
        await eventually(was_tried)
        async with FakePeer().served(port) as peer:
            await eventually(lambda: peer.taken == [first])
            others = [await add_handover(database) for _ in range(10)]
            await eventually(lambda: sorted(peer.taken) == [first, *others])


@on_postgresql
async def test_connections_that_are_cut_again_and_again_lose_no_job_and_send_none_twice(
    postgres: Server, database: Database, database_url: str, peer: FakePeer, tmp_path: Path
) -> None:
    expected = [await add_handover(database) for _ in range(200)]
    name = database.settings.url.database
    await database.engine.dispose()
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    )
    settings = dispatcher_settings(database_url, peer.url, tmp_path, handover_concurrency=2)
    async with running(settings):
        for part in range(6):
            await eventually(lambda part=part: len(peer.taken) > part * 30)
            await asyncio.to_thread(postgres.execute, cut)
        await eventually(lambda: len(peer.taken) >= len(expected), within=30)
        await eventually(lambda: all_done(database, handovers), within=30)
    # what was claimed by a statement whose answer was cut off has never been sent
    assert sorted(peer.taken) == expected
    assert await rows(database, handover_numbers) == []
