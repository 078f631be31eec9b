"""The transactional outbox: what has to be sent, claimed by one daemon at a time.

States:

- `pending`: to be sent once `due_at` has come;
- `sending`: claimed by `owner` until `leased_until`; perhaps sent already;
- `in_doubt`: perhaps arrived; proof is awaited until `due_at`;
- `held`: refused for an operator's mistake (wrong key or address); sent when that is mended;
- `done`: delivered; `failed`: refused for good. Both are settled, and pruned after a while.

Claiming is one statement; settling is a compare-and-set on (id, owner, attempt), so an owner
whose lease ran out changes nothing. Times are the database's clock.
"""

import os
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Integer,
    Table,
    Update,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.outbox.claims import Claims, Key, claim_statement

PENDING: Final = "pending"
SENDING: Final = "sending"
IN_DOUBT: Final = "in_doubt"
HELD: Final = "held"
DONE: Final = "done"
FAILED: Final = "failed"

_ONLY_FOR_SENDING: Final = ("payload",)


def state_is(table: Table, state: str) -> ColumnElement[bool]:
    """Compare with a literal: a plan for any parameter could not use the partial indexes."""
    return table.c.state == literal_column(f"'{state}'")


@dataclass(frozen=True, slots=True)
class Claimed:
    """One item that this owner may send now; `row` holds all its columns.

    Of an item in doubt it holds none that only sending needs: those may be megabytes each.
    """

    id: int
    attempt: int
    row: Mapping[str, Any]

    @property
    def key(self) -> Key:
        return self.id, self.attempt

    @property
    def job_id(self) -> int:
        return int(self.row["job_id"])

    @property
    def correlation_id(self) -> str | None:
        value = self.row["correlation_id"]
        return None if value is None else str(value)


def new_owner() -> str:
    """A name for one run of one daemon process; a restarted one is somebody else."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:12]}"


class Outbox:
    """One outbox table, seen by one owner (a daemon process)."""

    def __init__(self, database: Database, table: Table, *, owner: str, lease: float) -> None:
        """`lease`, in seconds, must outlast the total deadline of one delivery."""
        self._database = database
        self._table = table
        self._owner = owner
        self._lease = lease
        self._claims = Claims(self._give_back)
        columns = table.c
        by_age = (columns.priority.desc(), columns.id)
        is_due = columns.due_at <= utc_now()
        pending = and_(state_is(table, PENDING), is_due)
        self._claim_pending = self._claim_statement(pending, by_age, state=SENDING)
        self._claim_untried = self._claim_statement(
            and_(pending, columns.attempts == 0), by_age, state=SENDING
        )
        self._claim_longest_due = self._claim_statement(
            pending, (columns.due_at, columns.id), state=SENDING
        )
        # the one that was tried longest ago, so that no single item keeps the others from a try
        self._claim_held = self._claim_statement(
            state_is(table, HELD), (columns.due_at, columns.id), state=SENDING
        )
        self._claim_doubtful = self._claim_statement(
            and_(state_is(table, IN_DOUBT), is_due),
            by_age,
            without=_ONLY_FOR_SENDING,
            due_at=utc_now(lease),
        )
        self._done = None if database.is_sqlite else self._done_statement()

    def _done_statement(self) -> Update:
        """For the hot path: one statement for any number of items, made up only once."""
        pairs = select(
            func.unnest(bindparam("item_ids", type_=ARRAY(BigInteger))),
            func.unnest(bindparam("item_attempts", type_=ARRAY(Integer))),
        )
        mine = tuple_(self._table.c.id, self._table.c.attempts).in_(pairs)
        return self._settle_statement(
            mine, SENDING, state=DONE, settled_at=utc_now(), last_error=None
        )

    # -- claiming ---------------------------------------------------------------------------

    async def claim(self, limit: int) -> list[Claimed]:
        """Take up to `limit` due items: by priority, then age."""
        return await self._claim_to_send(self._claim_pending, limit)

    async def claim_for_trial(self) -> list[Claimed]:
        """Take one due item that tells most of the peer: an untried one, else the longest due.

        By priority and age, those that the peer never takes would be the only ones ever tried.
        """
        return await self._claim_to_send(self._claim_untried, 1) or await self._claim_to_send(
            self._claim_longest_due, 1
        )

    async def claim_held(self, limit: int) -> list[Claimed]:
        """Take held items, to try whether what held them has been mended."""
        return await self._claim_to_send(self._claim_held, limit)

    async def claim_doubtful(self, limit: int) -> list[Claimed]:
        """Take items in doubt whose wait is over, to look for proof of their arrival.

        They stay `in_doubt`, since looking sends nothing; nobody else looks during the lease.
        Their rows hold no payload.
        """
        return await self._claim(self._claim_doubtful, limit)

    async def has_work(self, within: float) -> bool:
        """Whether anybody's item is on its way, held, or comes due within that many seconds."""
        table = self._table
        soon = table.c.due_at <= utc_now(within)
        pending = exists().where(state_is(table, PENDING), soon)
        others = exists().where(
            or_(
                state_is(table, SENDING),
                state_is(table, HELD),
                and_(state_is(table, IN_DOUBT), soon),
            )
        )
        async with self._database.reading() as connection:
            return bool((await connection.execute(select(or_(pending, others)))).scalar_one())

    def _claim_statement(
        self, condition: ColumnElement[bool], order: Sequence[ColumnElement[Any]], **values: Any
    ) -> Any:
        return claim_statement(
            self._table,
            condition,
            order,
            owner=self._owner,
            lease=self._lease,
            is_sqlite=self._database.is_sqlite,
            **values,
        )

    async def _claim_to_send(self, statement: Any, limit: int) -> list[Claimed]:
        await self._claims.begin()
        items = await self._claim(statement, limit)
        self._claims.answered(item.key for item in items)
        return items

    async def _give_back(self, known: Collection[Key]) -> None:
        table = self._table
        lost = and_(state_is(table, SENDING), table.c.owner == self._owner)
        if known:
            lost &= tuple_(table.c.id, table.c.attempts).not_in(list(known))
        values = {"owner": None, "leased_until": None, "attempts": table.c.attempts - 1}
        async with self._database.statement() as tx:
            await tx.execute(update(table).where(lost).values(state=PENDING, **values))

    async def _claim(self, statement: Any, limit: int) -> list[Claimed]:
        async with self._database.statement() as tx:
            rows = (await tx.execute(statement, {"claim_limit": limit})).mappings().all()
        claimed = [Claimed(row["id"], row["attempts"], dict(row)) for row in rows]
        return sorted(claimed, key=lambda item: (-item.row["priority"], item.id))

    # -- settling ---------------------------------------------------------------------------

    async def done(self, items: Sequence[Claimed]) -> None:
        """The items were delivered."""
        if self._done is None or not items:
            await self._settle(items, state=DONE, settled_at=utc_now(), last_error=None)
            return
        which = {
            "item_ids": [item.id for item in items],
            "item_attempts": [item.attempt for item in items],
        }
        async with self._database.statement() as tx:
            await tx.execute(self._done, which)
        self.forget(items)

    async def retry(self, items: Sequence[Claimed], delay: float, reason: str) -> None:
        """Not taken: try again `delay` seconds from now."""
        await self._settle(items, state=PENDING, due_at=utc_now(delay), last_error=reason)

    async def doubt(self, items: Sequence[Claimed], wait: float, reason: str) -> None:
        """Perhaps arrived: wait `wait` seconds for proof."""
        await self._settle(
            items,
            state=IN_DOUBT,
            due_at=utc_now(wait),
            doubts=self._table.c.doubts + 1,
            last_error=reason,
        )

    async def hold(self, items: Sequence[Claimed], reason: str) -> None:
        """Refused for an operator's mistake."""
        await self._settle(items, state=HELD, due_at=utc_now(), last_error=reason)

    async def release(self, items: Sequence[Claimed]) -> None:
        """Give claimed items back untried, as if they had not been claimed."""
        await self._settle(items, state=PENDING, attempts=self._table.c.attempts - 1)

    async def fail(self, items: Sequence[Claimed], reason: str) -> None:
        """Refused for good."""
        await self._settle(items, state=FAILED, settled_at=utc_now(), last_error=reason)

    async def found(self, item: Claimed) -> None:
        """An item in doubt has arrived."""
        await self._settle([item], IN_DOUBT, state=DONE, settled_at=utc_now(), last_error=None)

    async def lost(self, item: Claimed) -> None:
        """An item in doubt has not arrived: send it again."""
        await self._settle([item], IN_DOUBT, state=PENDING, due_at=utc_now())

    async def still_in_doubt(self, item: Claimed, wait: float, *, counts: bool) -> None:
        """Look again after `wait` seconds; `counts` tells whether that was one more doubt."""
        more = 1 if counts else 0
        await self._settle(
            [item], IN_DOUBT, due_at=utc_now(wait), doubts=self._table.c.doubts + more
        )

    async def give_up(self, item: Claimed, reason: str) -> None:
        """An item in doubt is neither found nor sent again."""
        await self._settle([item], IN_DOUBT, state=FAILED, settled_at=utc_now(), last_error=reason)

    async def _settle(
        self, items: Sequence[Claimed], from_state: str = SENDING, **values: Any
    ) -> int:
        if not items:
            return 0
        async with self._database.statement() as tx:
            settled = await self.settle_in(tx, items, from_state, **values)
        self.forget(items)
        return settled

    def forget(self, items: Sequence[Claimed]) -> None:
        """The items are settled: for whoever settles within a transaction, after its commit."""
        self._claims.forget(item.key for item in items)

    async def settle_in(
        self,
        tx: AsyncConnection,
        items: Sequence[Claimed],
        from_state: str = SENDING,
        **values: Any,
    ) -> int:
        """Settle within a caller's transaction; returns how many were still this owner's."""
        pairs = [item.key for item in items]
        mine = tuple_(self._table.c.id, self._table.c.attempts).in_(pairs)
        return (await tx.execute(self._settle_statement(mine, from_state, **values))).rowcount

    def _settle_statement(
        self, mine: ColumnElement[bool], from_state: str, **values: Any
    ) -> Update:
        return (
            update(self._table)
            .where(mine, self._table.c.owner == self._owner, state_is(self._table, from_state))
            .values(owner=None, leased_until=None, **values)
        )

    async def release_held(self) -> int:
        """Make everything held due again; returns how many."""
        async with self._database.statement() as tx:
            released = await tx.execute(
                update(self._table)
                .where(state_is(self._table, HELD))
                .values(state=PENDING, due_at=utc_now())
            )
        return released.rowcount
