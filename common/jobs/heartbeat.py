"""Heartbeats in the database, shared by all processes: they tell how long one could hear workers.

Whoever can vouch for a part of the service (the dispatcher: database and peer; a gateway: the
endpoint that workers' updates reach) beats while it is all right. A gap means an outage, which
ended with the first beat after it. The first beat ever is the adoption of a database.
"""

from datetime import datetime
from typing import Final

from sqlalchemy import case, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.database.tables import heartbeats

BEAT_EVERY: Final = 10.0
"""Seconds between two beats of one process, at most."""

OUTAGE_AFTER: Final = 60.0
"""Seconds without any beat that make an outage."""

PEER: Final = "peer"
GATEWAY: Final = "gateway"


async def beat(database: Database, name: str) -> None:
    """Vouch for the part `name`, now. Raises `DatabaseUnavailable`."""
    dialect = sqlite if database.is_sqlite else postgresql
    gap = heartbeats.c.last_at < utc_now(-OUTAGE_AFTER)
    async with database.transaction() as tx:
        beaten = await tx.execute(
            update(heartbeats)
            .where(heartbeats.c.name == name)
            .values(
                last_at=utc_now(),
                outage_ended_at=case((gap, utc_now()), else_=heartbeats.c.outage_ended_at),
            )
        )
        if beaten.rowcount == 0:
            await tx.execute(
                dialect.insert(heartbeats)
                .values(name=name, last_at=utc_now(), outage_ended_at=utc_now())
                .on_conflict_do_nothing(index_elements=[heartbeats.c.name])
            )


async def listening_since(connection: AsyncConnection) -> datetime | None:
    """Since when, on the database's clock, workers could be heard without a gap.

    None while some part is out, or before the first beat. A part that has never beaten is not
    waited for.
    """
    row = (
        await connection.execute(
            select(
                func.max(heartbeats.c.outage_ended_at).label("since"),
                func.min(heartbeats.c.last_at).label("last"),
                utc_now(-OUTAGE_AFTER).label("bound"),
                func.count().filter(heartbeats.c.name == PEER).label("vouched"),
            )
        )
    ).one()
    if not row.vouched or row.last < row.bound:
        return None
    since: datetime = row.since
    return since
