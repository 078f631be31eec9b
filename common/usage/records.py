"""Each user's bytes in the database: a measurement, and the changes that came after it.

A dispatcher measures a tree from time to time (`dispatcher.usage`), with all that is in it. Between
two measurements the changes made through this API are added, each of which states when it began
and when it had taken effect. How exact the sum is:

- A change that ended before a measurement began is part of it, and is not added, however late it
  is written; one that ends later is added.
- A change that overlaps a measurement may be counted twice. The dispatcher measures again some
  seconds later (after ten times the duration of the measurement, if that is longer).
- What a killed process had not written yet, up to a second of changes, is missing until the next
  measurement; what it wrote without learning of it may be counted twice until then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    Insert,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal,
    or_,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import utc_now
from common.database.tables import UNPLACED, uploads, usage_changes, usage_uploads, user_usage

_CHANGES: Final = usage_changes.c
_USERS: Final = user_usage.c


@dataclass(frozen=True, slots=True)
class Change:
    """Growth of a user's tree, in bytes, negative if it shrank.

    `began` and `ended` are in seconds before now: the bytes changed between them.
    """

    user_id: str
    bytes: int
    began: float
    ended: float = 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a user's files take; `measured_at` is None before the first measurement."""

    bytes: int
    measured_at: datetime | None


def _ago(name: str) -> ColumnElement[datetime]:
    return utc_now(-bindparam(name, type_=Float))


_new_change = insert(usage_changes).values(
    user_id=bindparam("user_id"),
    bytes=bindparam("bytes"),
    began_at=_ago("began"),
    ended_at=_ago("ended"),
)

_after_measurement = or_(_USERS.measured_at.is_(None), _CHANGES.ended_at > _USERS.measured_at)

_grown = (
    select(cast(func.coalesce(func.sum(_CHANGES.bytes), 0), BigInteger))
    .where(_CHANGES.user_id == _USERS.user_id, _after_measurement)
    .correlate(user_usage)
    .scalar_subquery()
)

_usage = select((_USERS.bytes + _grown).label("bytes"), _USERS.measured_at).where(
    _USERS.user_id == bindparam("user_id")
)

_elsewhere = select(cast(func.coalesce(func.sum(usage_uploads.c.bytes), 0), BigInteger)).where(
    usage_uploads.c.user_id == bindparam("user_id"),
    usage_uploads.c.owner != bindparam("owner"),
    usage_uploads.c.expires_at > utc_now(),
)

_staged = select(cast(func.coalesce(func.sum(uploads.c.received), 0), BigInteger)).where(
    uploads.c.user_id == bindparam("user_id"), text(UNPLACED)
)


def insert_active(source: Any, *, is_sqlite: bool) -> Insert:
    """Insert users whose trees may change, or note that they may, so that they are measured.

    `source`: a mapping of values, or a query of user ids and of until when they are active.
    """
    dialect = sqlite if is_sqlite else postgresql
    new: Any = dialect.insert(user_usage)
    if isinstance(source, Mapping):
        new = new.values(source)
    else:
        new = new.from_select(["user_id", "active_until", "due_at"], source)
    later = new.excluded.active_until
    active = case((_USERS.active_until > later, _USERS.active_until), else_=later)
    due = case(
        (_USERS.due_at.is_not(None), _USERS.due_at),
        (_USERS.rest_until > utc_now(), _USERS.rest_until),
        else_=utc_now(),
    )
    statement: Insert = new.on_conflict_do_update(
        index_elements=[_USERS.user_id], set_={"active_until": active, "due_at": due}
    )
    return statement


_ACTIVE: Final = {
    "user_id": bindparam("user_id"),
    "active_until": utc_now(bindparam("active_for", type_=Float)),
    "due_at": utc_now(literal(0.0)),
}
_new_active = {
    is_sqlite: insert_active(_ACTIVE, is_sqlite=is_sqlite) for is_sqlite in (True, False)
}


async def mark_active(tx: AsyncConnection, active_for: Mapping[str, float]) -> None:
    """Have the trees of these users measured, again after so many seconds from now."""
    rows = [
        {"user_id": user_id, "active_for": seconds}
        for user_id, seconds in sorted(active_for.items())  # so that no two writers deadlock
    ]
    await tx.execute(_new_active[tx.dialect.name == "sqlite"], rows)


async def record_changes(tx: AsyncConnection, changes: Sequence[Change]) -> None:
    """Write changes; their users have to be marked as active as well."""
    rows = [
        {"user_id": it.user_id, "bytes": it.bytes, "began": it.began, "ended": it.ended}
        for it in changes
    ]
    await tx.execute(_new_change, rows)


async def read_usage(connection: AsyncConnection, user_id: str) -> Usage:
    """What the user's files take by what is written."""
    row = (await connection.execute(_usage, {"user_id": user_id})).one_or_none()
    return Usage(0, None) if row is None else Usage(max(0, row.bytes), row.measured_at)


async def uploads_elsewhere(connection: AsyncConnection, user_id: str, owner: str) -> int:
    """Bytes of the user's uploads that are under way in processes other than `owner`."""
    values = {"user_id": user_id, "owner": owner}
    return int((await connection.execute(_elsewhere, values)).scalar_one())


async def staged_bytes(connection: AsyncConnection, user_id: str) -> int:
    """What has arrived of the user's resumable uploads that are not whole yet."""
    return int((await connection.execute(_staged, {"user_id": user_id})).scalar_one())
