"""Listings as JSON; equal ones that are requested at the same time are made once."""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson

from common.database.errors import DatabaseUnavailable
from common.runtime.batching import Batcher
from common.storage.paths import UserPath
from common.storage.protocol import BATCH, Entry, Storage
from common.telemetry.outages import warn_of_database
from gateway.files.digests.service import Digests
from gateway.http.limits import user_caller
from gateway.http.shares import Shares
from gateway.trees.entries import detailed_json, entry_json


@dataclass(frozen=True, slots=True)
class ListingQuery:
    """Which directory to list, and which of its entries to show."""

    path: UserPath
    recursive: bool
    show_dirs: bool
    details: bool
    after: str
    limit: int | None


@dataclass(frozen=True, slots=True)
class Listing:
    """A listing as JSON; `next_after`: the last path on this page, if another page follows."""

    body: bytes
    next_after: str | None


class Listings:
    """Makes listings; equal queries that arrive while one is being answered share the next answer.

    So each answer shows the state after its request, and any number of simultaneous requests for a
    large directory cost as much as two. Different ones take turns between users (`shares`). A
    listing that nobody waits for any more is cancelled.
    """

    def __init__(self, storage: Storage, digests: Digests, shares: Shares) -> None:
        self._storage = storage
        self._digests = digests
        self._shares = shares
        self._running: dict[ListingQuery, Batcher[ListingQuery, Listing]] = {}

    async def make(self, query: ListingQuery) -> Listing:
        """Raises what `Storage.walk` does, and `LimitExceeded` beyond the user's share."""
        shared = self._running.get(query)
        if shared is None:
            shared = self._running[query] = Batcher(
                self._make_once,
                cancel_unwanted=True,
                when_idle=lambda: self._running.pop(query),
            )
        return await shared(query)

    async def _make_once(self, equal: Sequence[ListingQuery]) -> list[Listing]:
        query = equal[0]
        async with self._shares.slot("listing", user_caller(query.path.user)):
            return [await self._list(query)] * len(equal)

    async def _list(self, query: ListingQuery) -> Listing:
        """Each batch becomes JSON at once: a long listing takes little more memory than that."""
        most = BATCH if query.limit is None else min(BATCH, query.limit + 1)
        found = self._storage.walk(
            query.path, recursive=query.recursive, after=query.after, batch=most
        )
        details = _Details(self._digests, query.path.user) if query.details else None
        parts: list[bytes] = []
        left, last = query.limit, ""
        async with aclosing(found) as batches:
            async for batch in batches:
                if not query.show_dirs:
                    batch = [entry for entry in batch if not entry.is_directory]
                shown = batch[:left]
                if shown:
                    items = await details.of(shown) if details else [*map(entry_json, shown)]
                    parts.append(orjson.dumps(items)[1:-1])
                    last = shown[-1].path
                if len(batch) > len(shown):
                    return Listing(_array(parts), last)
                if left is not None:
                    left -= len(shown)
        return Listing(_array(parts), None)


class _Details:
    """Entries of one listing with their details: one query for each batch."""

    def __init__(self, digests: Digests, user_id: str) -> None:
        self._digests = digests
        self._user_id = user_id
        self._is_away = False

    async def of(self, entries: Sequence[Entry]) -> list[dict[str, Any]]:
        known: dict[str, str] = {}
        if not self._is_away:
            try:
                known = await self._digests.known(self._user_id, entries)
            except DatabaseUnavailable as error:
                # files are listed without it, and each try would take time
                warn_of_database("digests.unread", reason=str(error))
                self._is_away = True
        items = [*map(detailed_json, entries)]
        for item in items if known else ():
            if (sha256 := known.get(item["path"])) is not None:
                item["sha256"] = sha256
        return items


def _array(parts: list[bytes]) -> bytes:
    return b"[%b]" % b",".join(parts)
