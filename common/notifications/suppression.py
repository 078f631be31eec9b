"""Addresses that get no mails, since they bounced, or their owner complained at Mailjet."""

from collections.abc import Iterable

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import padded, utc_now
from common.database.tables import suppressed_addresses

_table = suppressed_addresses.c
_find = select(_table.address, _table.reason).where(
    _table.address.in_(bindparam("addresses", expanding=True))
)


def normalised(address: str) -> str:
    """The form in which addresses are compared: few servers tell upper from lower case."""
    return address.strip().lower()


async def suppress(tx: AsyncConnection, address: str, reason: str) -> None:
    """Let no more mails go to the address; the first reason is kept."""
    dialect = sqlite if tx.dialect.name == "sqlite" else postgresql
    await tx.execute(
        dialect.insert(suppressed_addresses)
        .values(address=normalised(address), reason=reason, created_at=utc_now())
        .on_conflict_do_nothing(index_elements=[_table.address])
    )


async def lift(tx: AsyncConnection, address: str) -> None:
    """Let mails go to the address again."""
    await tx.execute(delete(suppressed_addresses).where(_table.address == normalised(address)))


async def find_suppressed(connection: AsyncConnection, addresses: Iterable[str]) -> dict[str, str]:
    """Which of the addresses are suppressed, normalised, with the reasons."""
    wanted = padded(sorted(map(normalised, addresses)))
    return {
        row.address: row.reason for row in await connection.execute(_find, {"addresses": wanted})
    }
