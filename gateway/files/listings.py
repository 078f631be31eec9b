"""Listings as clients get them; those that are asked for at the same time are made once."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from common.coalesce import Coalescer
from common.storage.paths import UserPath
from common.storage.protocol import Entry, Storage
from gateway.files import entries

_LARGE: Final = 2_000
"""Listings with more entries than this are rendered in a thread."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be listed, and which part of it is to be shown."""

    path: UserPath
    recursive: bool
    show_dirs: bool
    details: bool
    after: str | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class Listing:
    """A listing as JSON; `following`: where its next part starts after, if there is one."""

    body: bytes
    following: str | None


class Listings:
    """Makes listings. Equal ones that are asked for while one is being made share the next.

    So each shows what was there when it was asked for, and a client that asks for a large
    directory many times at once costs as much as one that asks twice.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._under_way: dict[Asked, Coalescer[Asked, Listing]] = {}

    async def make(self, asked: Asked) -> Listing:
        """Raises what `Storage.list_directory` does."""
        shared = self._under_way.get(asked)
        if shared is None:
            shared = self._under_way[asked] = Coalescer(
                self._make_once, when_idle=lambda: self._under_way.pop(asked)
            )
        return await shared(asked)

    async def _make_once(self, equal: Sequence[Asked]) -> list[Listing]:
        asked = equal[0]
        found = await self._storage.list_directory(asked.path, recursive=asked.recursive)
        shown, following = entries.select(
            found, show_dirs=asked.show_dirs, after=asked.after, limit=asked.limit
        )
        if len(shown) > _LARGE:
            body = await asyncio.to_thread(_render, shown, details=asked.details)
        else:
            body = _render(shown, details=asked.details)
        return [Listing(body, following)] * len(equal)


def _render(shown: list[Entry], *, details: bool) -> bytes:
    return orjson.dumps(entries.render(shown, details=details))
