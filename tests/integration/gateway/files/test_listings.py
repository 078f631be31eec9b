"""Listings that several requests ask for at the same time."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import orjson
import pytest

from common.storage.errors import NotFound
from common.storage.paths import UserPath
from common.storage.protocol import Entry, Storage
from gateway.files.listings import Listing, ListingQuery, Listings


class SlowStorage:
    """A directory whose listing waits for `go_on`."""

    def __init__(self) -> None:
        self.names = ["data/a"]
        self.listed = 0
        self.go_on = asyncio.Event()
        self.error: Exception | None = None

    async def walk(self, path: UserPath, **_: Any) -> AsyncIterator[list[Entry]]:
        self.listed += 1
        found = [Entry(name, 1) for name in self.names]
        await self.go_on.wait()
        if self.error:
            raise self.error
        yield found


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
    return Listings(cast("Storage", storage))


def paths(listing: Listing) -> list[str]:
    return [entry["path"] for entry in orjson.loads(listing.body)]


async def test_those_that_come_meanwhile_share_one_that_shows_what_is_there_by_then(
    storage: SlowStorage, listings: Listings
) -> None:
    first = asyncio.create_task(listings.make(asked()))
    await settle()
    storage.names.append("data/b")
    later = [asyncio.create_task(listings.make(asked())) for _ in range(9)]
    await settle()
    storage.go_on.set()
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
    storage.go_on.set()
    await asyncio.gather(*tasks)


async def test_a_failure_reaches_everyone_who_shares_it(
    storage: SlowStorage, listings: Listings
) -> None:
    storage.error = NotFound()
    tasks = [asyncio.create_task(listings.make(asked())) for _ in range(3)]
    await settle()
    storage.go_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [NotFound] * 3


@pytest.mark.parametrize("failing", [False, True])
async def test_nothing_is_kept_afterwards(
    storage: SlowStorage, listings: Listings, failing: bool
) -> None:
    storage.error = NotFound() if failing else None
    tasks = [asyncio.create_task(listings.make(asked(limit=n % 3 + 1))) for n in range(9)]
    await settle()
    for task in tasks[::2]:
        task.cancel()
    storage.go_on.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    await settle()
    assert listings._running == {}
