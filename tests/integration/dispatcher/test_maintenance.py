"""What a dispatcher does beside handing over."""

from pathlib import Path

from common.database.engine import Database, utc_now
from common.database.tables import handovers
from devtools.waiting import eventually
from tests.support.dispatcher import FakePeer, dispatcher_settings, running
from tests.support.records import add_handover, job_row, rows


async def test_settled_hand_overs_are_kept_for_as_long_as_the_settings_say(
    database: Database, database_url: str, peer: FakePeer, tmp_path: Path
) -> None:
    young, old = 60.0, 180.0
    kept, pruned = [
        await add_handover(database, state="done", settled_at=utc_now(-age)) for age in (young, old)
    ]
    settings = dispatcher_settings(database_url, peer.url, tmp_path, handover_retention=120.0)

    async def is_pruned() -> bool:
        return [row["job_id"] for row in await rows(database, handovers)] == [kept]

    async with running(settings):
        await eventually(is_pruned)
    assert await job_row(database, pruned)  # its job stays
