"""A dispatcher whose database fails it amid its statements, executed or not."""

import random
from typing import Any

from aiohttp import web
from sqlalchemy import event

from common.database.engine import Database
from common.database.tables import emails, handover_numbers, handovers, job_events
from common.runtime.daemon import DAEMON
from deploy.sandbox.ports import free_port
from devtools.waiting import eventually
from tests.integration.dispatcher.conftest import Dispatch
from tests.support.cloud import on_postgresql
from tests.support.dispatcher import FakePeer, answering
from tests.support.records import add_handover, job_row, rows, until

BROKEN = 0.3
STATEMENTS = 80
JOBS = 8


class Breaking:
    """Breaks many of a database's first statements off, before or after they were executed."""

    def __init__(self, database: Database, seed: int) -> None:
        self._chance = random.Random(seed)
        self._left = STATEMENTS
        self.broken = 0
        for moment in ("before_cursor_execute", "after_cursor_execute"):
            event.listen(database.engine.sync_engine, moment, self._break)

    def _break(self, *_: Any) -> None:
        self._left -= 1
        if self._left > 0 and self._chance.random() < BROKEN / 2:
            self.broken += 1
            raise ConnectionResetError


async def test_although_statements_break_off_each_job_is_handed_over_or_refused_once(
    database: Database, peer: FakePeer, dispatch: Dispatch
) -> None:
    job_ids = [await add_handover(database) for _ in range(JOBS)]
    refused, late = job_ids[1], job_ids[2]

    async def behave(_: web.Request, body: dict[str, Any]) -> web.StreamResponse | None:
        number = body["job"]["meta"]["job_id"]
        if number == refused:
            return answering(422)()
        if number == late and peer.tried.count(late) < 3:
            return answering(503)()
        return None

    peer.behave = behave
    async with dispatch() as server:
        breaking = Breaking(server.app[DAEMON].database, seed=1)
        await until(database, handovers, done=JOBS - 1, failed=1, within=30)
    assert breaking.broken > 5
    assert sorted(peer.taken) == [number for number in job_ids if number != refused]
    assert await rows(database, handover_numbers) == []
    assert (await job_row(database, refused))["status"] == "error"
    assert [row["job_id"] for row in await rows(database, job_events)] == [refused]
    assert [row["job_id"] for row in await rows(database, emails)] == [refused]


@on_postgresql
async def test_a_trial_whose_settlement_fails_lets_the_others_through(
    database: Database, dispatch: Dispatch
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
    async with dispatch(f"http://127.0.0.1:{port}"):
        await eventually(was_tried)
        async with FakePeer().served(port) as peer:
            await eventually(lambda: peer.taken == [first])
            others = [await add_handover(database) for _ in range(10)]
            await eventually(lambda: sorted(peer.taken) == [first, *others])
