"""Record when each part of the service was last healthy; gaps are outages.

A job can stall only while its worker can be heard. The dispatcher records a heartbeat for database
and peer, each gateway one for the endpoint of workers' updates. An outage ends with the first
heartbeat after it; the very first one marks the adoption of a database.
"""

from datetime import datetime
from typing import Final

from sqlalchemy import case, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.database.tables import heartbeats

BEAT_EVERY: Final = 10.0
"""Maximum seconds between two heartbeats of one process."""

OUTAGE_AFTER: Final = 60.0
"""Seconds without a heartbeat that count as an outage."""

PEER: Final = "peer"
GATEWAY: Final = "gateway"


async def beat(database: Database, name: str) -> None:
    """Record that the part `name` is healthy. Raises `DatabaseUnavailable`."""
    dialect = sqlite if database.is_sqlite else postgresql
    first = dialect.insert(heartbeats).values(
        name=name, last_at=utc_now(), outage_ended_at=utc_now()
    )
    gap = heartbeats.c.last_at < utc_now(-OUTAGE_AFTER)
    ended = case((gap, utc_now()), else_=heartbeats.c.outage_ended_at)
    later = first.on_conflict_do_update(
        index_elements=[heartbeats.c.name], set_={"last_at": utc_now(), "outage_ended_at": ended}
    )
    async with database.transaction() as tx:
        await tx.execute(later)


async def listening_since(connection: AsyncConnection) -> datetime | None:
    """Since when, on the database's clock, workers could be heard without a gap.

    None during an outage of any part, and before the first heartbeat of the peer. A part without
    any heartbeat does not count.
    """
    statement = select(func.max(heartbeats.c.outage_ended_at)).having(
        func.min(heartbeats.c.last_at) >= utc_now(-OUTAGE_AFTER),
        func.count().filter(heartbeats.c.name == PEER) > 0,
    )
    since: datetime | None = (await connection.execute(statement)).scalar_one_or_none()
    return since
