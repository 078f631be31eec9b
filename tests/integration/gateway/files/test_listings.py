"""Equal listings that are requested at the same time are made once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import orjson
import pytest

from common.storage.errors import NotFound
from common.storage.paths import UserPath
from common.storage.protocol import Entry, Storage
from gateway.files.digests.service import Digests
from gateway.files.listings import Listing, ListingQuery, Listings
from gateway.http.budgets import LISTING, Budget
from gateway.http.limits import LimitExceeded
from gateway.http.shares import Shares


class SlowStorage:
    """A directory whose listing waits for `resume`."""

    def __init__(self) -> None:
        self.names = ["data/a"]
        self.listed = 0
        self.resume = asyncio.Event()
        self.error: Exception | None = None

    async def walk(self, path: UserPath, **_: Any) -> AsyncIterator[list[Entry]]:
        self.listed += 1
        found = [Entry(name, 1) for name in self.names]
        await self.resume.wait()
        if self.error:
            raise self.error
        yield found


class Unknown:
    """No digest is known."""

    async def known(self, user_id: str, files: Any) -> dict[str, str]:
        del user_id, files
        return {}


def asked(user: str = "user", path: str = "data/", **changes: Any) -> ListingQuery:
    plain = ListingQuery(UserPath.parse(user, path), False, True, False, after="", limit=None)
    return replace(plain, **changes)


async def settle() -> None:
    """Let all tasks run as far as they get."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def storage() -> SlowStorage:
    return SlowStorage()


@pytest.fixture
def listings(storage: SlowStorage) -> Listings:
    return with_budget(storage, Budget(slots=99, per_caller=99, waiting=0, longest_wait=1.0))


@pytest.fixture
def shared_listings(storage: SlowStorage) -> Listings:
    """Listings with the gateway's own budget."""
    return with_budget(storage, LISTING)


def with_budget(storage: SlowStorage, budget: Budget) -> Listings:
    return Listings(
        cast("Storage", storage), cast("Digests", Unknown()), Shares({"listing": budget})
    )


def paths(listing: Listing) -> list[str]:
    return [entry["path"] for entry in orjson.loads(listing.body)]


async def test_requests_during_a_listing_share_the_next_one(
    storage: SlowStorage, listings: Listings
) -> None:
    first = asyncio.create_task(listings.make(asked()))
    await settle()
    storage.names.append("data/b")
    later = [asyncio.create_task(listings.make(asked())) for _ in range(9)]
    await settle()
    storage.resume.set()
    assert paths(await first) == ["data/a"]
    assert [paths(await each) for each in later] == [["data/a", "data/b"]] * 9
    assert storage.listed == 2


async def test_only_equal_ones_are_shared(storage: SlowStorage, listings: Listings) -> None:
    each = [
        asked(), asked(user="other"), asked(path="config/"), asked(recursive=True),
        asked(show_dirs=False), asked(details=True), asked(after="data/"), asked(limit=5),
    ]  # fmt: skip
    tasks = [asyncio.create_task(listings.make(one)) for one in each]
    await settle()
    assert storage.listed == len(each)
    storage.resume.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("failing", [False, True])
async def test_nothing_is_kept_afterwards(
    storage: SlowStorage, listings: Listings, failing: bool
) -> None:
    storage.error = NotFound() if failing else None
    tasks = [asyncio.create_task(listings.make(asked(limit=n % 3 + 1))) for n in range(9)]
    await settle()
    for task in tasks[::2]:
        task.cancel()
    storage.resume.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    await settle()
    assert listings._running == {}


async def test_a_user_with_many_listings_delays_nobody_else(
    shared_listings: Listings, storage: SlowStorage
) -> None:
    greedy = [
        asyncio.ensure_future(shared_listings.make(asked(path=f"data/{number}/")))
        for number in range(60)
    ]
    await settle()
    assert storage.listed == LISTING.per_caller
    other = asyncio.ensure_future(shared_listings.make(asked("other")))
    await settle()
    assert storage.listed == LISTING.per_caller + 1
    storage.resume.set()
    assert paths(await other) == ["data/a"]
    await asyncio.gather(*greedy)


async def test_a_user_whose_share_is_used_up_is_refused(
    shared_listings: Listings, storage: SlowStorage
) -> None:
    most = LISTING.per_caller + LISTING.waiting
    running = [
        asyncio.ensure_future(shared_listings.make(asked(path=f"data/{number}/")))
        for number in range(most)
    ]
    await settle()
    with pytest.raises(LimitExceeded):
        await shared_listings.make(asked(path="data/more/"))
    storage.resume.set()
    await asyncio.gather(*running)
