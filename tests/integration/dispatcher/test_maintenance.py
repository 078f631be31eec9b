"""What a dispatcher does beside handing over."""

from common.database.engine import Database, utc_now
from common.database.tables import handovers
from devtools.waiting import eventually
from tests.integration.dispatcher.conftest import Dispatch
from tests.support.records import add_handover, job_row, rows


async def test_settled_hand_overs_are_kept_for_as_long_as_the_settings_say(
    database: Database, dispatch: Dispatch
) -> None:
    young, old = 60.0, 180.0
    kept, pruned = [
        await add_handover(database, state="done", settled_at=utc_now(-age)) for age in (young, old)
    ]

    async def is_pruned() -> bool:
        return [row["job_id"] for row in await rows(database, handovers)] == [kept]

    async with dispatch(handover_retention=120.0):
        await eventually(is_pruned)
    assert await job_row(database, pruned)  # its job stays
