"""Idempotency keys in the database: claimed by a request, kept with what it made, or freed.

A request claims its key in a statement of its own, under a token that nobody else has. The answer
is kept in the transaction that makes the jobs, if the key is still claimed under that token: else
the transaction is rolled back. So two requests never both succeed under one key, however slow the
first one is, and a process that dies leaves a claim that runs out.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import bindparam, delete, null, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.database.errors import DatabaseUnavailable
from common.database.tables import idempotency_keys
from common.runtime.batching import Batcher
from gateway.jobs.errors import KeyBusy, KeyUsed

BUSY_FOR: Final = 60.0
"""Seconds after which the claim of a request that has not ended may be taken over."""

_table = idempotency_keys.c
_row = (_table.user_id == bindparam("user_id"), _table.key == bindparam("key"))

_known = select(_table.fingerprint, _table.status, _table.body, _table.headers).where(*_row)
_free = delete(idempotency_keys).where(
    *_row, _table.owner == bindparam("owner"), _table.status.is_(None)
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A key that one request holds under its own token; what its answer will be, but the body."""

    user_id: str
    key: str
    fingerprint: str
    owner: str
    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Stored:
    """The answer that was given under a key."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class ClaimsLost(Exception):
    """Other requests have taken over these claims, by their owners."""

    def __init__(self, owners: frozenset[str]) -> None:
        super().__init__(owners)
        self.owners = owners


async def keep_answers(tx: AsyncConnection, answers: Sequence[tuple[Claim, bytes]]) -> None:
    """Keep the bodies of answers under their claims. Raises `ClaimsLost`."""
    rows = [
        {
            "user_id": claim.user_id,
            "key": claim.key,
            "fingerprint": claim.fingerprint,
            "owner": claim.owner,
            "status": claim.status,
            "body": body.decode(),
            "headers": dict(claim.headers),
        }
        # in one order everywhere: no deadlocks
        for claim, body in sorted(answers, key=lambda answer: (answer[0].user_id, answer[0].key))
    ]
    kept = set((await tx.execute(_keep[tx.dialect.name], rows)).scalars())
    lost = frozenset(claim.owner for claim, _ in answers if claim.owner not in kept)
    if lost:
        raise ClaimsLost(lost)


def _keep_with(insert: Any) -> Any:
    """What keeps an answer: also where the claim is gone, since then nobody else has the key."""
    new = insert(idempotency_keys).values(created_at=utc_now())
    columns = ("fingerprint", "created_at", "owner", "status", "body", "headers")
    return new.on_conflict_do_update(
        index_elements=[_table.user_id, _table.key],
        set_={name: new.excluded[name] for name in columns} | {"busy_until": null()},
        where=(_table.owner == new.excluded.owner) & _table.status.is_(None),
    ).returning(_table.owner)


_keep: Final = {
    "postgresql": _keep_with(postgresql.insert),
    "sqlite": _keep_with(sqlite.insert),
}


class IdempotencyKeys:
    """Claims keys on behalf of requests; all gateways share them.

    Concurrent claims share round trips.
    """

    def __init__(self, database: Database, *, retention: float) -> None:
        """`retention`: seconds for which an answer is kept."""
        self._database = database
        self._try: Batcher[Claim, bool] = Batcher(self._try_some, limit=50)
        insert = sqlite.insert if database.is_sqlite else postgresql.insert
        new = insert(idempotency_keys).values(created_at=utc_now(), busy_until=utc_now(BUSY_FOR))
        columns = ("fingerprint", "created_at", "owner", "busy_until")
        nothing = dict.fromkeys(("status", "body", "headers"), null())
        self._claim = new.on_conflict_do_update(
            index_elements=[_table.user_id, _table.key],
            set_={name: new.excluded[name] for name in columns} | nothing,
            where=or_(
                _table.busy_until < utc_now(),
                _table.status.is_not(None) & (_table.created_at < utc_now(-retention)),
            ),
        ).returning(_table.owner)

    async def claim(
        self, user_id: str, key: str, fingerprint: str, *, status: int, headers: Mapping[str, str]
    ) -> Claim | Stored:
        """The key for this request, or the answer that the same request got before.

        Raises `KeyUsed` for a key of another request, `KeyBusy` while the first one is under way.
        """
        claim = Claim(user_id, key, fingerprint, uuid4().hex, status, headers)
        while not await self._try(claim):
            async with self._database.reading() as connection:
                values = {"user_id": user_id, "key": key}
                found = (await connection.execute(_known, values)).first()
            if found is None:
                continue  # it has been freed meanwhile
            if found.fingerprint != fingerprint:
                raise KeyUsed
            if found.status is None:
                raise KeyBusy
            return Stored(found.status, found.body.encode(), found.headers or {})
        return claim

    async def _try_some(self, claims: Sequence[Claim]) -> list[bool]:
        """Whether each claim succeeds; of those for one key, the first alone can."""
        first: dict[tuple[str, str], Claim] = {}
        for claim in claims:
            first.setdefault((claim.user_id, claim.key), claim)
        names = ("user_id", "key", "fingerprint", "owner")
        # in one order everywhere: no deadlocks
        rows = [{name: getattr(first[key], name) for name in names} for key in sorted(first)]
        async with self._database.statement() as tx:
            owners = set((await tx.execute(self._claim, rows)).scalars())
        return [claim.owner in owners for claim in claims]

    @asynccontextmanager
    async def held(self, claim: Claim) -> AsyncIterator[None]:
        """A block that answers under the claim: if it raises, the key is freed.

        Freeing does nothing once the answer is kept. If it fails, the claim runs out by itself.
        """
        try:
            yield
        except BaseException:
            with suppress(DatabaseUnavailable):
                await self._release(claim)
            raise

    async def _release(self, claim: Claim) -> None:
        values = {"user_id": claim.user_id, "key": claim.key, "owner": claim.owner}
        async with self._database.statement() as tx:
            await tx.execute(_free, values)
