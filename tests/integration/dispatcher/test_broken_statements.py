"""A dispatcher whose database breaks off amid its statements, executed or not."""

import random
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from sqlalchemy import event

from common.database.engine import Database
from common.database.tables import emails, handover_numbers, handovers, job_events
from common.runtime.daemon import DAEMON
from devtools.waiting import eventually
from dispatcher.app import create_app
from tests.support.dispatcher import FakePeer, dispatcher_settings
from tests.support.records import add_handover, job_row, rows

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
    database: Database, database_url: str, peer: FakePeer, tmp_path: Path
) -> None:
    job_ids = [await add_handover(database) for _ in range(JOBS)]
    refused, late = job_ids[1], job_ids[2]

    async def behave(_: web.Request, body: dict[str, Any]) -> web.StreamResponse | None:
        number = body["job"]["meta"]["job_id"]
        if number == refused:
            return web.json_response({"detail": "no such image"}, status=422)
        if number == late and peer.tried.count(late) < 3:
            return web.json_response({}, status=503)
        return None

    async def all_settled() -> bool:
        found = {row["job_id"]: row["state"] for row in await rows(database, handovers)}
        return found == {**dict.fromkeys(job_ids, "done"), refused: "failed"}

    peer.behave = behave
    app = create_app(dispatcher_settings(database_url, peer.url, tmp_path))
    async with TestServer(app):
        breaking = Breaking(app[DAEMON].database, seed=1)
        await eventually(all_settled, within=30)
    assert breaking.broken > 5
    assert sorted(peer.taken) == [number for number in job_ids if number != refused]
    assert await rows(database, handover_numbers) == []
    assert (await job_row(database, refused))["status"] == "error"
    assert [row["job_id"] for row in await rows(database, job_events)] == [refused]
    assert [row["job_id"] for row in await rows(database, emails)] == [refused]
